"""Inputs to calibrate and check a graph with: slices and images of cases, as the encoder sees them."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from zoo.backends import Floats
from zoo.data.case import Case
from zoo.data.cases import CaseSource
from zoo.errors import InputError
from zoo.registry import EncoderSpec
from zoo.transforms import preprocess_image

T = TypeVar("T")
Pixels = NDArray[np.uint8]


def evenly(items: Sequence[T], most: int) -> list[T]:
    """All items, or `most` of them, spread evenly."""
    return [items[i] for i in np.linspace(0, len(items) - 1, min(most, len(items))).astype(int)]


def calibration_cases(modalities: Mapping[CaseSource, str], most: int) -> list[CaseSource]:
    """At most `most` cases: of each modality as many as of any other, or all, spread evenly over its cases."""
    if len(modalities) <= most:
        return list(modalities)
    by_modality: dict[str, list[CaseSource]] = {}
    for source, modality in modalities.items():
        by_modality.setdefault(modality, []).append(source)
    turns = sorted((turn, name) for name, alike in by_modality.items() for turn in range(len(alike)))
    shares = Counter(name for _, name in turns[:most])
    return [source for name, alike in by_modality.items() for source in evenly(alike, shares[name])]


def calibration_inputs(sources: Sequence[CaseSource], spec: EncoderSpec, most: int) -> tuple[list[Floats], list[str]]:
    """At most `most` inputs of at most as many cases, the same number of each, and the set of cases that each is of.

    Of a volume these are slices, spread evenly over those that boxes reach. One case is held at a time.

    Returns:
        Normalised inputs (1, 3, S, S), and as many names as `set_of` gives.

    Raises:
        InputError: no case at all.
    """
    if not sources:
        raise InputError("calibration", "no case", "images or volumes like those that will be segmented")
    inputs: list[Floats] = []
    sets: list[str] = []
    share, left = divmod(most, len(sources))
    for place, source in enumerate(sources):
        case = source.load(labels=False)
        own = [preprocess_image(image, spec) for image in _images_of(case, share + (place < left))]
        inputs += own
        sets += [set_of(case)] * len(own)
    return inputs, sets


def set_of(case: Case) -> str:
    """The set of cases that are gated together: modality, and whether they are images or volumes."""
    return f"{case.modality} {'3D' if case.is_volume else '2D'}"


def check_modalities(modalities: Mapping[CaseSource, str], wanted: Sequence[str]) -> None:
    """Makes sure that calibration has what will be segmented: all of `wanted`, and nothing else.

    Raises:
        InputError: a case of another modality, or a modality without a case; nothing is asked where `wanted` is empty.
    """
    if not wanted:
        return
    names = {name.lower(): name for name in wanted}
    found: set[str] = set()
    for source, modality in modalities.items():
        if modality.lower() not in names:
            raise InputError(f"calibration case {source.case_id}", f"modality {modality}", f"only {', '.join(wanted)}")
        found.add(modality.lower())
    if missing := sorted(names.keys() - found):
        told = ", ".join(names[name] for name in missing)
        raise InputError("calibration", f"no case of modality {told}", "some of each that will be segmented")


def check_shown(shown: Collection[str], wanted: Sequence[str], most: int) -> None:
    """Makes sure that the cases which calibration took of all show each modality that will be segmented.

    Raises:
        InputError: `most`, how many could be taken, left one out.
    """
    known = {modality.lower() for modality in shown}
    if left_out := [name for name in wanted if name.lower() not in known]:
        expected = f"{len(wanted)} or more, one for each modality"
        raise InputError("--calib-images", f"{most}, which leaves none for {', '.join(left_out)}", expected)


def _images_of(case: Case, most: int) -> Iterator[Pixels]:
    if not case.is_volume:
        yield case.image
        return
    low, high = int(case.boxes[:, 2].min()), int(case.boxes[:, 5].max())
    reached = range(max(0, low), min(high, case.image.shape[0] - 1) + 1)
    for z in evenly(reached, most):
        yield case.image[z]


def digest_of(inputs: Sequence[Floats]) -> str:
    """Hex sha256 of the inputs' values: two calibrations with one digest saw the same."""
    digest = hashlib.sha256()
    for image in inputs:
        digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()
