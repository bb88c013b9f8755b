"""Loading a checkpoint strictly, and telling what keeps it from fitting."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from torch import Tensor, nn

from zoo.errors import InputError
from zoo.files import sha256_of
from zoo.notes import note
from zoo.registry import EncoderSpec, encoder_spec
from zoo.sam.model import Sam
from zoo.weights.cards import check_sha256, locate
from zoo.weights.identity import WeightsId
from zoo.weights.read import read_checkpoint

#: Before the encoder's keys in a whole model's state dict.
ENCODER_PREFIX = "image_encoder."


class MismatchError(InputError):
    """A readable checkpoint whose keys, shapes or dtypes are not the model's."""


def load_weights(module: nn.Module, path: Path, trained_as: str | None = None) -> WeightsId:
    """Loads the checkpoint at `path` into a whole model, or its encoder's part into an encoder, strictly.

    The spec of a whole model says from then on whether these weights take masks for prompts. It is noted where they
    were trained on images that were prepared otherwise than the model's are.

    Args:
        module: the model or encoder.
        path: of the checkpoint.
        trained_as: the encoder whose weights these are; None is the one that the checkpoint names, if any.

    Raises:
        MismatchError: keys, shapes or dtypes that do not fit, with the encoder that would; nothing is loaded then.
        InputError: unreadable file.
    """
    checkpoint = read_checkpoint(path)
    state = checkpoint.state
    expected = module.state_dict()
    if not any(key.startswith(ENCODER_PREFIX) for key in expected):
        state = encoder_part(state)
    if problems := describe_mismatch(expected, state):
        from zoo.weights.detect import suggest

        raise MismatchError(path, problems, f"the {len(expected)} tensors of {_name(module)}{suggest(state)}")
    module.load_state_dict(state, strict=True)
    if isinstance(module, Sam):
        module.spec = replace(module.spec, mask_prompts=checkpoint.takes_mask_prompts)
        if named := trained_as or checkpoint.scalars.get("encoder"):
            _note_other_preparation(path, named, module.spec)
    return WeightsId(path.name, sha256_of(path), trained=True)


def load_card_or_file(sam: nn.Module, weights: str | Path) -> WeightsId:
    """Loads the weights that a card's name or a path stands for; a card's file must have its pinned hash.

    Raises:
        InputError: as `load_weights`, a card that was not downloaded, or a file that is not what its card says.
    """
    path, card = locate(weights)
    identity = load_weights(sam, path, card.encoder if card else None)
    if card:
        check_sha256(card, identity.sha256)
    return identity


def _note_other_preparation(path: Path, trained_as: str, spec: EncoderSpec) -> None:
    """Notes weights of an encoder whose images are prepared otherwise than `spec` says, but for their size.

    That may differ: weights for one size are what training for another begins with.
    """
    # Another program's word for something else, or the encoder of a plugin that is not here.
    with contextlib.suppress(InputError):
        trained = encoder_spec(trained_as)
        then, now = (f"{one.fit}, {one.resize}, {one.normalisation}" for one in (trained, spec))
        if then != now:
            note(f"{path}: weights of {trained.name}, for images prepared by {then}; {spec.name} prepares by {now}")


def _name(module: nn.Module) -> str:
    spec = getattr(module, "spec", None)
    return f"encoder {spec.name!r}" if spec else type(module).__name__


def encoder_part(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The encoder's tensors without their prefix; all of them where no key has it."""
    part = {key.removeprefix(ENCODER_PREFIX): value for key, value in state.items() if key.startswith(ENCODER_PREFIX)}
    return part or dict(state)


def describe_mismatch(expected: Mapping[str, Tensor], found: Mapping[str, Tensor], most: int = 4) -> str:
    """What keeps `found` from loading as `expected`, in one line of at most `most` keys a kind; empty if nothing."""
    both = sorted(expected.keys() & found.keys())
    shapes = [
        f"{key} {tuple(found[key].shape)} instead of {tuple(expected[key].shape)}"
        for key in both
        if found[key].shape != expected[key].shape
    ]
    dtypes = [
        f"{key} {str(found[key].dtype).removeprefix('torch.')}"
        for key in both
        if found[key].is_floating_point() != expected[key].is_floating_point()
    ]
    kinds = (
        ("missing", sorted(expected.keys() - found.keys())),
        ("unknown", sorted(found.keys() - expected.keys())),
        ("of another shape", shapes),
        ("of another dtype", dtypes),
    )
    return "; ".join(
        f"{len(keys)} {kind}: {', '.join(keys[:most])}{', ...' if len(keys) > most else ''}"
        for kind, keys in kinds
        if keys
    )
