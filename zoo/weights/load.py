"""Loading a checkpoint strictly, and telling what keeps it from fitting."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from torch import Tensor, nn

from zoo.errors import InputError
from zoo.files import sha256_of
from zoo.sam.model import Sam
from zoo.weights.cards import check_sha256, locate
from zoo.weights.identity import WeightsId
from zoo.weights.read import read_checkpoint

#: Before the encoder's keys in a whole model's state dict.
ENCODER_PREFIX = "image_encoder."


class MismatchError(InputError):
    """A readable checkpoint whose keys, shapes or dtypes are not the model's."""


def load_weights(module: nn.Module, path: Path) -> WeightsId:
    """Loads the checkpoint at `path` into a whole model, or its encoder's part into an encoder, strictly.

    The spec of a whole model says from then on whether these weights take masks for prompts.

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
    return WeightsId(path.name, sha256_of(path), trained=True)


def load_card_or_file(sam: nn.Module, weights: str | Path) -> WeightsId:
    """Loads the weights that a card's name or a path stands for; a card's file must have its pinned hash.

    Raises:
        InputError: as `load_weights`, a card that was not downloaded, or a file that is not what its card says.
    """
    path, card = locate(weights)
    identity = load_weights(sam, path)
    if card:
        check_sha256(card, identity.sha256)
    return identity


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
