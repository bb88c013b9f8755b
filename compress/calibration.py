"""Inputs to calibrate and check a graph with: slices and images of cases, as the encoder sees them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np

from zoo.backends import Floats
from zoo.data.case import Case
from zoo.data.cases import CaseSource
from zoo.errors import InputError
from zoo.registry import EncoderSpec
from zoo.transforms import preprocess_image


def calibration_inputs(sources: Sequence[CaseSource], spec: EncoderSpec, most: int) -> list[Floats]:
    """At most `most` normalised inputs (1, 3, S, S), spread evenly over the cases and over the slices that boxes reach.

    Raises:
        InputError: no case at all.
    """
    if not sources:
        raise InputError("calibration", "no case", "images or volumes like those that will be segmented")
    share = max(1, -(-most // len(sources)))
    inputs = [preprocess_image(image, spec) for source in sources[:most] for image in _images_of(source.load(), share)]
    return inputs[:most]


def check_modalities(sources: Sequence[CaseSource], wanted: Sequence[str]) -> None:
    """Makes sure that calibration shows what will be segmented: all of `wanted`, and nothing else.

    Raises:
        InputError: a case of another modality, or a modality without a case; nothing is asked where `wanted` is empty.
    """
    if not wanted:
        return
    names = {name.lower(): name for name in wanted}
    found: set[str] = set()
    for source in sources:
        modality = source.load().modality
        if modality.lower() not in names:
            raise InputError(f"calibration case {source.case_id}", f"modality {modality}", f"only {', '.join(wanted)}")
        found.add(modality.lower())
    if missing := sorted(names.keys() - found):
        told = ", ".join(names[name] for name in missing)
        raise InputError("calibration", f"no case of modality {told}", "some of each that will be segmented")


def _images_of(case: Case, most: int) -> Iterator[np.ndarray[tuple[int, ...], np.dtype[np.uint8]]]:
    if not case.is_volume:
        yield case.image
        return
    low, high = int(case.boxes[:, 2].min()), int(case.boxes[:, 5].max())
    reached = np.arange(max(0, low), min(high, case.image.shape[0] - 1) + 1)
    for z in reached[np.linspace(0, len(reached) - 1, min(most, len(reached))).astype(int)]:
        yield case.image[z]


def digest_of(inputs: Sequence[Floats]) -> str:
    """Hex sha256 of the inputs' values: two calibrations with one digest saw the same."""
    digest = hashlib.sha256()
    for image in inputs:
        digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()
