"""Which encoder a state dict belongs to, told from its keys and shapes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from zoo.errors import InputError
from zoo.notes import note
from zoo.registry import create_encoder, encoder_spec, list_encoders
from zoo.weights.load import ENCODER_PREFIX, describe_mismatch

if TYPE_CHECKING:
    from zoo.weights.read import Checkpoint

#: Makes another graph of an encoder for images of a side in pixels, such as the re-parameterised one, whose checkpoints
#: have other keys; an `InputError` where there is none.
Variant = Callable[[nn.Module, int], nn.Module]


@dataclass(frozen=True)
class Fit:
    """A model that a state dict loads into strictly.

    Attributes:
        encoder: name in the registry.
        variant: `train`, or the name of the variant whose keys they are.
        part: `model` for encoder, prompt encoder and mask decoder, `encoder` for the encoder alone.
    """

    encoder: str
    variant: str
    part: str


@dataclass(frozen=True)
class Nearest:
    """The encoder that a state dict which fits none comes closest to, and what keeps it from fitting."""

    encoder: str
    problems: str


def fitting(
    state: Mapping[str, Tensor], variants: Mapping[str, Variant] | None = None, encoders: Sequence[str] | None = None
) -> list[Fit]:
    """All encoders that `state` fits; several share a layout and differ in preprocessing only.

    Args:
        state: a flat state dict, of a whole model or of an encoder, with or without `image_encoder.` before its keys.
        variants: further graphs to try, by name, where no graph as trained fits.
        encoders: names to try; by default, all registered ones.

    Raises:
        InputError: an unknown name among `encoders`.
    """
    names = encoders or list_encoders()
    for variant, change in {"train": None, **(variants or {})}.items():
        fits = [
            Fit(name, variant, part)
            for name in names
            for part, expected in _parts(_layout(name, change))
            if _same(expected, state)
        ]
        if fits:
            return fits
    return []


def fits_of(checkpoint: Checkpoint, variants: Mapping[str, Variant] | None = None) -> list[Fit]:
    """What a checkpoint fits: the encoder that it names, which need not be listed, or any that is.

    Args:
        checkpoint: as read from its file.
        variants: as in `fitting`.
    """
    if named := checkpoint.scalars.get("encoder"):
        # Another program's word for something else, or the encoder of a plugin that is not here.
        with contextlib.suppress(InputError):
            if fits := fitting(checkpoint.state, variants, [named]):
                return fits
    return fitting(checkpoint.state, variants)


def _parts(layout: dict[str, Tensor]) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """The parts of a model that checkpoints hold, and what they hold then."""
    encoder = _encoder_of(layout)
    yield "model", layout
    yield "encoder", encoder
    yield "encoder", {ENCODER_PREFIX + key: value for key, value in encoder.items()}


def nearest(state: Mapping[str, Tensor]) -> Nearest:
    """The registered encoder with most tensors of equal name and shape in `state`."""
    whole = any(key.startswith(ENCODER_PREFIX) for key in state)
    layouts = {name: _layout(name, None) for name in list_encoders()}
    candidates = {name: layout if whole else _encoder_of(layout) for name, layout in layouts.items()}
    best = max(candidates, key=lambda name: _likeness(candidates[name], state))
    return Nearest(best, describe_mismatch(candidates[best], state))


def suggest(state: Mapping[str, Tensor]) -> str:
    """` (it fits ...)` of a state dict that did not fit, or nothing."""
    fits = fitting(state)
    names = ", ".join(sorted({fit.encoder for fit in fits}))
    if not names:
        return f" (of all encoders, {nearest(state).encoder!r} is nearest)"
    if fits[0].part == "encoder":
        return f" (it is the image encoder alone of: {names})"
    return f" (it fits: {names})"


@cache
def _layout(name: str, variant: Variant | None) -> dict[str, Tensor]:
    """State dict, without memory, of a registered model whose encoder `variant` changes; empty where it cannot.

    So it is where the encoder cannot be built, too, which is noted: it may be a plugin's, and the one sought another.
    """
    # Imported here: the model needs this package's identities.
    from zoo.sam.model import Sam

    spec = encoder_spec(name)
    with torch.device("meta"):
        try:
            encoder = create_encoder(name)
        except Exception as error:
            note(f"encoder {name} is not looked for: it cannot be built ({type(error).__name__}: {error})")
            return {}
        sam = Sam(encoder, spec).eval()
        if variant:
            try:
                sam.image_encoder = variant(sam.image_encoder, sam.spec.image_size)
            except InputError:
                return {}
    return sam.state_dict()


def _encoder_of(layout: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix(ENCODER_PREFIX): v for key, v in layout.items() if key.startswith(ENCODER_PREFIX)}


def _same(expected: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> bool:
    return expected.keys() == state.keys() and all(expected[key].shape == state[key].shape for key in expected)


def _likeness(expected: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> float:
    equal = sum(key in state and expected[key].shape == state[key].shape for key in expected)
    return equal / len(expected.keys() | state.keys())
