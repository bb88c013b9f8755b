"""Any feature backbone of timm as a SAM encoder: `timm:NAME`, `timm:NAME@SIZE`.

The maps of its last stages are projected to the embedding's channels, brought to 64x64 and added; a depthwise-separable
convolution and a normalisation follow. At 256 px in their ImageNet geometry such encoders cost a twentieth of
Rep-MedSAM's.
"""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.errors import unknown_name
from zoo.layers import ConvBn, LayerNorm2d
from zoo.registry import (
    EMBEDDING_CHANNELS,
    EMBEDDING_SIZE,
    EncoderFactory,
    EncoderSpec,
    register_family,
)

#: Stages that the neck reads, counted from the last.
STAGES = 4

SPEC = EncoderSpec(
    name="timm:",
    image_size=256,
    prompt_frame=256,
    fit="pad",
    resize="area",
    normalisation="min_max",
    title="timm backbone with a summing neck",
    paper="timm: Wightman, doi:10.5281/zenodo.4414861",
    licence="timm: Apache-2.0; its weights have their own",
    weights_from="none published",
    adaptable=True,
)


class TimmEncoder(nn.Module):
    """A backbone's last stages, summed: (B, 3, S, S) to (B, 256, 64, 64)."""

    def __init__(self, backbone: nn.Module, widths: list[int]) -> None:
        super().__init__()
        self.backbone = backbone
        self.projections = nn.ModuleList(ConvBn(width, EMBEDDING_CHANNELS) for width in widths)
        self.neck = nn.Sequential(
            ConvBn(EMBEDDING_CHANNELS, EMBEDDING_CHANNELS, kernel=3, padding=1, groups=EMBEDDING_CHANNELS),
            ConvBn(EMBEDDING_CHANNELS, EMBEDDING_CHANNELS),
            LayerNorm2d(EMBEDDING_CHANNELS),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images to embeddings."""
        maps = self.backbone(x)
        size = (EMBEDDING_SIZE, EMBEDDING_SIZE)
        projected = [projection(m) for projection, m in zip(self.projections, maps, strict=True)]
        embedding: Tensor = self.neck(torch.stack([F.interpolate(p, size, mode="bilinear") for p in projected]).sum(0))
        return embedding


@register_family("timm")
def timm_backbone(name: str) -> tuple[EncoderSpec, EncoderFactory]:
    """Spec and factory of a timm model that offers feature maps.

    Raises:
        InputError: timm has no such model.
    """
    with warnings.catch_warnings():
        # timm's import warns of what it will mend itself.
        warnings.simplefilter("ignore")
        import timm

    if not timm.is_model(name.partition(".")[0]):
        raise unknown_name("timm model", name, timm.list_models())

    def build(spec: EncoderSpec) -> nn.Module:
        backbone: Any = timm.create_model(name, features_only=True, out_indices=tuple(range(-STAGES, 0)))
        return TimmEncoder(backbone, backbone.feature_info.channels())

    return replace(SPEC, name=f"timm:{name}", title=f"timm {name} with a summing neck"), build
