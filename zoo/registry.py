"""The registry: a name for every image encoder, its `EncoderSpec`, and the way to build it.

A new encoder is one new file in `zoo/encoders/` with a function under `@register_encoder(...)`.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from zoo.errors import InputError, unknown_name
from zoo.plugins import load_plugins

if TYPE_CHECKING:
    from torch import nn

    from zoo.sam.model import Sam

#: Side of the image embedding in positions, and its channels: the contract between encoder and decoder.
EMBEDDING_SIZE, EMBEDDING_CHANNELS = 64, 256
#: Sides of the input in pixels that `NAME@SIZE` may ask for.
LEAST_SIZE, GREATEST_SIZE = 16, 4096


@dataclass(frozen=True)
class Cost:
    """What an encoder costs as trained, before folding, at its spec's input size; tests hold the code to it.

    Attributes:
        params_m: parameters in millions.
        gmacs: multiply-adds of one image in 1e9: convolutions, products and attention.
    """

    params_m: float
    gmacs: float


@dataclass(frozen=True)
class EncoderSpec:
    """What surrounds an encoder: its input, the frame that prompts live in, and where it comes from.

    An exported graph keeps this and loses the class.

    Attributes:
        name: name in the registry.
        image_size: S, side of the square input in pixels.
        prompt_frame: side in pixels of the frame in which box and point coordinates are given.
        fit: `pad` scales the longest side to S and pads bottom and right; `squash` scales both sides to S.
        resize: interpolation when the image is brought to S.
        normalisation: `min_max` to [0, 1] before padding, or `imagenet` mean and std on 0-255 before padding.
        title: the published model that this is.
        paper: reference of the architecture.
        licence: of the published weights.
        weights_from: where users get the published weights.
        adaptable: whether `image_size` may be changed when building.
        decoder_norm_eps: epsilon of the layer normalisations in the decoder's transformer.
        mask_prompts: whether the model's weights were trained to take the mask of a neighbouring slice for a prompt.
        reference_cost: of the published architecture at `image_size`; None for other sizes and backbones on demand.
    """

    name: str
    image_size: int
    prompt_frame: int
    fit: Literal["pad", "squash"]
    resize: Literal["area", "linear", "cubic"]
    normalisation: Literal["min_max", "imagenet"]
    title: str
    paper: str
    licence: str
    weights_from: str
    adaptable: bool = False
    decoder_norm_eps: float = 1e-5
    mask_prompts: bool = False
    reference_cost: Cost | None = None


#: Builds the encoder that a spec describes.
EncoderFactory = Callable[[EncoderSpec], "nn.Module"]
#: Spec and factory of a family's member, built with the published weights that its name asks for if the flag is set.
Family = Callable[[str, bool], tuple[EncoderSpec, EncoderFactory]]

_REGISTRY: dict[str, tuple[EncoderSpec, EncoderFactory]] = {}
#: Families whose members are named `FAMILY:MEMBER` and made on demand.
_FAMILIES: dict[str, Family] = {}


def register_encoder(spec: EncoderSpec) -> Callable[[EncoderFactory], EncoderFactory]:
    """Decorator: registers a function that builds the encoder of `spec`."""

    def register(factory: EncoderFactory) -> EncoderFactory:
        if spec.name in _REGISTRY:
            raise ValueError(f"encoder {spec.name!r} is registered twice")
        _REGISTRY[spec.name] = (spec, factory)
        return factory

    return register


def register_family(name: str) -> Callable[[Family], Family]:
    """Decorator: registers a function that gives spec and factory of the member of a family, or an `InputError`."""

    def register(member: Family) -> Family:
        if name in _FAMILIES:
            raise ValueError(f"family {name!r} is registered twice")
        _FAMILIES[name] = member
        return member

    return register


def _entry(name: str, *, published: bool = True) -> tuple[EncoderSpec, EncoderFactory]:
    """Spec and factory of a registered encoder or of a family's member, without `@SIZE`."""
    _import_encoders()
    family, _, member = name.partition(":")
    if member and family in _FAMILIES:
        return _FAMILIES[family](member, published)
    if name not in _REGISTRY:
        raise unknown_name("encoder", name, [*_REGISTRY, *(f"{known}:NAME" for known in _FAMILIES)])
    return _REGISTRY[name]


@cache
def _import_encoders() -> None:
    import zoo.encoders

    for module in pkgutil.iter_modules(zoo.encoders.__path__, "zoo.encoders."):
        importlib.import_module(module.name)
    load_plugins()


def list_encoders() -> list[str]:
    """Names of all encoders, sorted; the members of families (`timm:NAME`) are too many to list."""
    _import_encoders()
    return sorted(_REGISTRY)


def encoder_spec(name: str) -> EncoderSpec:
    """Spec of the encoder `name`, or of its variant for another input size.

    Args:
        name: a name of `list_encoders()`, or `NAME@SIZE` for another input size in pixels, which the prompt frame
            follows, as in `vit_b@256`.

    Raises:
        InputError: unknown name, or a size beyond `LEAST_SIZE` and `GREATEST_SIZE`, or other than the only one. What
            else an encoder asks of its size, such as whole patches, `create_encoder` tells.
    """
    base, _, suffix = name.partition("@")
    if suffix and not suffix.isdecimal():
        raise InputError("encoder", f"{name!r}", "NAME or NAME@SIZE with a size in pixels")
    spec = _entry(base)[0]
    size = int(suffix or spec.image_size)
    if size == spec.image_size:
        return spec
    if not spec.adaptable:
        raise InputError(f"encoder {base}", f"input size {size} px", f"{spec.image_size} px, the only one it has")
    if not LEAST_SIZE <= size <= GREATEST_SIZE:
        raise InputError(f"encoder {base}", f"input size {size} px", f"{LEAST_SIZE} to {GREATEST_SIZE} px")
    return replace(spec, name=f"{base}@{size}", image_size=size, prompt_frame=size, reference_cost=None)


def create_encoder(name: str, *, published: bool = True) -> nn.Module:
    """The encoder `name` in eval mode, with the random weights of torch's current seed.

    Args:
        name: as in `encoder_spec`.
        published: whether a backbone gets the published weights that its name asks for (`timm:NAME.TAG`), which may
            have to be fetched.

    Returns:
        A module: float32 (B, 3, S, S), normalised as its spec says, to (B, 256, 64, 64).

    Raises:
        InputError: as `encoder_spec`, a size that this encoder cannot be built for, or published weights that cannot be
            had.
    """
    spec = encoder_spec(name)
    return _entry(spec.name.partition("@")[0], published=published)[1](spec).eval()


def create_sam(name: str, weights: str | Path | None = None) -> Sam:
    """A whole model around the encoder `name`: image encoder, prompt encoder and mask decoder, in eval mode.

    Args:
        name: as in `encoder_spec`.
        weights: a checkpoint's path, a weight card's name, or `random:SEED`; None is what ships for
            this encoder at its own size, else `random:0`.

    Raises:
        InputError: unknown name, or weights that do not fit; the message says what would. An encoder from elsewhere
            that gives no embedding of the contract's shape.
    """
    from zoo.sam.model import Sam
    from zoo.weights import default_weights, identify, load_card_or_file, random_seed_of, seeded

    weights = default_weights(encoder_spec(name).name) if weights is None else weights
    seed = random_seed_of(weights)
    # Encoder and decoder are seeded apart, so that equal seeds give equal decoders behind different encoders.
    with seeded(seed or 0):
        encoder = create_encoder(name, published=seed is not None)
    if not _is_built_in(name):
        _check_embedding(encoder, encoder_spec(name))
    with seeded(seed or 0):
        sam = Sam(encoder, encoder_spec(name)).eval()
    if seed is None:
        sam.weights = load_card_or_file(sam, str(weights))
    else:
        tag = getattr(encoder, "pretrained", None)
        sam.weights = identify(sam, f"random:{seed} around {tag}" if tag else f"random:{seed}")
    return sam


def _is_built_in(name: str) -> bool:
    """Whether an encoder is one of this package, whose shapes its tests know; a family's members are others' work."""
    _, factory = _REGISTRY.get(name.partition("@")[0], (None, None))
    return factory is not None and factory.__module__.startswith("zoo.encoders.")


def _check_embedding(encoder: nn.Module, spec: EncoderSpec) -> None:
    """Makes sure that an encoder turns an image of its size into an embedding of the decoder's.

    Raises:
        InputError: another shape, or an error on the way.
    """
    import torch

    expected = (1, EMBEDDING_CHANNELS, EMBEDDING_SIZE, EMBEDDING_SIZE)
    try:
        with torch.inference_mode():
            found = tuple(encoder(torch.zeros(1, 3, spec.image_size, spec.image_size)).shape)
    except (RuntimeError, ValueError, AssertionError) as error:
        told = f"no embedding of an image of {spec.image_size} px ({' '.join(str(error).split())})"
        raise InputError(f"encoder {spec.name}", told, f"{expected}") from error
    if found != expected:
        raise InputError(f"encoder {spec.name}", f"{found}", f"{expected}")
