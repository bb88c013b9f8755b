"""Any feature backbone of timm as a SAM encoder: `timm:NAME`, `timm:NAME@SIZE`, `timm:NAME.TAG` with published weights.

The maps of its last stages are projected to the embedding's channels, brought to 64x64 and added; a depthwise-separable
convolution and a normalisation follow. At 256 px in their ImageNet geometry such encoders cost a twentieth of
Rep-MedSAM's.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from zoo.errors import InputError, unknown_name
from zoo.layers import SummingNeck
from zoo.registry import (
    EMBEDDING_CHANNELS,
    EMBEDDING_SIZE,
    EncoderFactory,
    EncoderSpec,
    register_family,
)

#: Stages that the neck reads, counted from the last; of backbones with fewer, all.
STAGES = 4

SPEC = EncoderSpec(
    name="timm:",
    image_size=256,
    prompt_frame=256,
    fit="pad",
    resize="area",
    normalisation="imagenet",
    title="timm backbone with a summing neck",
    paper="timm: Wightman, doi:10.5281/zenodo.4414861",
    licence="timm: Apache-2.0; its weights have their own",
    weights_from="timm's hub (backbone alone)",
    adaptable=True,
)


class TimmEncoder(nn.Module):
    """A backbone's last stages, summed: (B, 3, S, S) to (B, 256, 64, 64).

    Attributes:
        image_size: S, which transformers are bound to.
        channels_last: whether the backbone's maps are (B, H, W, C).
        pretrained: tag of the published weights that the backbone holds, or None.
    """

    def __init__(self, backbone: nn.Module, widths: list[int], image_size: int, pretrained: str | None) -> None:
        super().__init__()
        self.image_size = image_size
        self.channels_last = getattr(backbone, "output_fmt", None) == "NHWC"
        self.pretrained = pretrained
        self.backbone = backbone
        self.neck = SummingNeck(widths, EMBEDDING_CHANNELS)

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images to embeddings."""
        maps = self.backbone(x)[-STAGES:]
        if self.channels_last:
            maps = [m.permute(0, 3, 1, 2) for m in maps]
        embedding: Tensor = self.neck(maps, EMBEDDING_SIZE)
        return embedding

    def folded(self) -> nn.Module:
        """Itself, once the backbone has merged its branches, as timm's models know how to."""
        from timm.utils.model import reparameterize_model

        dtype = next(self.backbone.parameters()).dtype
        with _float64():
            self.backbone = reparameterize_model(self.backbone.double()).to(dtype)
        return self


@contextmanager
def _float64() -> Iterator[None]:
    """New modules get float64 parameters: merging branches makes some."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@register_family("timm")
def timm_backbone(name: str, published: bool) -> tuple[EncoderSpec, EncoderFactory]:
    """Spec and factory of a timm model that offers feature maps.

    Args:
        name: in timm, with the tag of published weights or without.
        published: whether it is built with the weights of its tag.

    Raises:
        InputError: timm has no such model.
    """
    timm = _timm()
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        raise unknown_name("timm model", architecture, timm.list_models())
    if tag and not timm.is_model_pretrained(name):
        raise unknown_name("timm weights", name, timm.list_pretrained(f"{architecture}.*"))

    def build(spec: EncoderSpec) -> nn.Module:
        held = tag if tag and published else None
        # Where only the layout is asked for, no weights are fetched.
        is_layout = torch.get_default_device().type == "meta"
        backbone: Any = _backbone(name, spec.image_size, pretrained=held is not None and not is_layout)
        return TimmEncoder(backbone, backbone.feature_info.channels()[-STAGES:], spec.image_size, held)

    return replace(SPEC, name=f"timm:{name}", title=f"timm {name} with a summing neck"), build


def _timm() -> Any:
    with warnings.catch_warnings():
        # timm's import warns of what it will mend itself.
        warnings.simplefilter("ignore")
        import timm
    return timm


def _backbone(name: str, image_size: int, pretrained: bool) -> nn.Module:
    """The model's last stages; transformers are told the image size, convolutional networks take any.

    Raises:
        InputError: the model offers no feature maps, or its weights cannot be had.
    """
    create = _timm().create_model
    try:
        try:
            return create(name, features_only=True, pretrained=pretrained, img_size=image_size)
        except TypeError:
            return create(name, features_only=True, pretrained=pretrained)
    except OSError as error:
        raise InputError(
            f"timm:{name}", f"no published weights ({error})", "a network, or the name without tag"
        ) from error
    except (RuntimeError, AttributeError, ValueError, AssertionError) as error:
        raise InputError(
            f"timm:{name}", f"no feature maps ({error})", "a model that timm builds features_only"
        ) from error
