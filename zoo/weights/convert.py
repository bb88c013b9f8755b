"""Converting checkpoints between the published layout (`.pth`) and safetensors, bit for bit."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from zoo.errors import InputError
from zoo.files import sha256_of, whole_file
from zoo.notes import note
from zoo.registry import encoder_spec
from zoo.weights.cards import cards_of
from zoo.weights.detect import Fit, Variant, fits_of, fitting, nearest
from zoo.weights.read import Checkpoint, read_checkpoint

SUFFIXES = (".pth", ".pt", ".safetensors")
#: What torch and safetensors raise of a file that they cannot write.
SAVE_FAILURES = (OSError, RuntimeError, SafetensorError)


def convert(
    source: Path,
    target: Path,
    encoder: str | None = None,
    variants: Mapping[str, Variant] | None = None,
    *,
    half: bool = False,
) -> dict[str, str]:
    """Writes the weights of `source` to `target`, flat, every tensor with its bits and dtype unless `half`.

    Args:
        source: any checkpoint that `read_checkpoint` reads.
        target: `.safetensors` (with metadata), or `.pth` / `.pt` as published: a dict of tensors.
        encoder: whose weights they are, where several encoders share the layout (SAM's and MedSAM's ViT-B).
        variants: further graphs of an encoder whose checkpoints have other keys, by name.
        half: matrices and kernels as float16; vectors, such as norms and biases, stay as they are.

    Returns:
        The metadata: encoder, variant, part, spec (JSON), source, source_sha256, training (JSON of the numbers beside
        the weights, such as epoch and loss).

    Raises:
        InputError: an unreadable source, another suffix, weights of no known or of several models, one that float16
            cannot hold, or a target that cannot be written.
    """
    if target.suffix not in SUFFIXES:
        raise InputError(target, f"suffix {target.suffix!r}", f"one of {', '.join(SUFFIXES)}")
    checkpoint = read_checkpoint(source)
    fit = _only_fit(source, checkpoint, encoder, variants)
    metadata = _metadata(source, checkpoint, fit)
    state = {key: value.contiguous().clone() for key, value in checkpoint.state.items()}
    if half:
        state = {key: _halved(source, key, value) for key, value in state.items()}
    if checkpoint.takes_mask_prompts and target.suffix != ".safetensors":
        note(f"{target}: a .pth cannot say that these weights were trained with masks; volumes are walked without them")
    with whole_file(target, SAVE_FAILURES) as part:
        write_state_dict(state, part, metadata, is_safetensors=target.suffix == ".safetensors")
    return metadata


def _halved(source: Path, key: str, value: Tensor) -> Tensor:
    if value.ndim < 2 or not value.is_floating_point():
        return value
    halved = value.half()
    if not halved.isfinite().all():
        raise InputError(source, f"{key} up to {value.abs().max():g}", f"at most {torch.finfo(torch.float16).max:g}")
    return halved


def write_state_dict(
    state: Mapping[str, Tensor], path: Path, metadata: dict[str, str], *, is_safetensors: bool
) -> None:
    """Writes tensors to `path` in one of the two formats; `.pth` has no place for metadata."""
    if is_safetensors:
        save_file(dict(state), path, metadata={"format": "pt", **metadata})
    else:
        torch.save(dict(state), path)


def _only_fit(source: Path, checkpoint: Checkpoint, encoder: str | None, variants: Mapping[str, Variant] | None) -> Fit:
    """The encoder whose weights these are. Of several with one layout, only one may have published weights."""
    fits = fitting(checkpoint.state, variants, [encoder]) if encoder else fits_of(checkpoint, variants)
    if not fits:
        near = nearest(checkpoint.state)
        wanted = f"weights of {encoder}" if encoder else f"those of an encoder; nearest is {near.encoder}"
        raise InputError(source, f"weights that do not fit ({near.problems})", wanted)
    published = [fit for fit in fits if cards_of(fit.encoder)] or fits
    if len(published) > 1:
        names = ", ".join(fit.encoder for fit in published)
        raise InputError(source, f"weights that fit {names} alike", "--encoder with the one they were trained for")
    return published[0]


def _metadata(source: Path, checkpoint: Checkpoint, fit: Fit) -> dict[str, str]:
    """Of a conversion; what the source says of its own source stays."""
    said = checkpoint.scalars
    training = {key: value for key, value in said.items() if key not in _OWN_KEYS}
    return {
        "encoder": fit.encoder,
        "variant": fit.variant,
        "part": fit.part,
        "spec": json.dumps(asdict(replace(encoder_spec(fit.encoder), mask_prompts=checkpoint.takes_mask_prompts))),
        "source": said.get("source", source.name),
        "source_sha256": said.get("source_sha256") or sha256_of(source),
        "training": said.get("training") or json.dumps(training),
    }


_OWN_KEYS = ("encoder", "variant", "part", "spec", "source", "source_sha256", "training", "format")
