"""Light RepViT encoders for SAM: RepViT as it was made for ImageNet, with its four stages summed to 64x64.

Rep-MedSAM drops the strides of RepViT's stem so that the last stage comes out at 64x64, and pays for it twenty times:
31.1 GMACs instead of 1.8. Here all strides stay; the last maps of the four stages (strides 4 to 32) are projected to
the embedding's channels, raised to the first's resolution and added. Trained from nothing by this toolkit; the idea of
fusing stages is EdgeSAM's (arXiv:2312.06660), which fuses two.
"""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor, nn

from zoo.encoders.repvit import SIZES, RepViTGeometry, mixing_blocks, stem
from zoo.layers import SummingNeck
from zoo.registry import EMBEDDING_CHANNELS, EMBEDDING_SIZE, Cost, EncoderSpec, register_encoder


class LightRepViT(nn.Module):
    """(B, 3, S, S) to (B, 256, 64, 64); smaller images, as in training, to proportionally smaller embeddings.

    Args:
        geometry: of the RepViT.
        image_size: S.
    """

    def __init__(self, geometry: RepViTGeometry, image_size: int) -> None:
        super().__init__()
        self.image_size = image_size
        blocks = mixing_blocks(geometry)
        self.stem = stem(geometry)
        self.stages = nn.ModuleList()
        for i, depth in enumerate(geometry.depths):
            length = depth + (i > 0)
            self.stages.append(nn.Sequential(*blocks[:length]))
            blocks = blocks[length:]
        self.neck = SummingNeck(list(geometry.widths), EMBEDDING_CHANNELS)

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images to embeddings."""
        side = EMBEDDING_SIZE * x.shape[-1] // self.image_size
        maps = []
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        embedding: Tensor = self.neck(maps, side)
        return embedding


SPEC = EncoderSpec(
    name="light_repvit",
    image_size=256,
    prompt_frame=256,
    fit="pad",
    resize="area",
    normalisation="min_max",
    title="Light RepViT-M1.0: ImageNet strides, stages summed",
    paper="RepViT: arXiv:2307.09283",
    licence="none published",
    weights_from="`train`; none published yet",
    adaptable=True,
    reference_cost=Cost(6.689468, 1.834),
)


def _geometry(size: str) -> RepViTGeometry:
    return replace(SIZES[size], stem_stride=2, last_stride=2)


@register_encoder(SPEC)
def light_repvit(spec: EncoderSpec) -> nn.Module:
    """The light encoder of RepViT-M1.0's size."""
    return LightRepViT(_geometry("m1_0"), spec.image_size)


@register_encoder(
    replace(
        SPEC,
        name="light_repvit_m0_9",
        title="Light RepViT-M0.9: ImageNet strides, stages summed",
        licence="Apache-2.0",
        weights_from="this toolkit: ckpts/light_repvit_m0_9.md",
        reference_cost=Cost(4.973536, 1.439),
    )
)
def light_repvit_m0_9(spec: EncoderSpec) -> nn.Module:
    """The light encoder of RepViT-M0.9's size."""
    return LightRepViT(_geometry("m0_9"), spec.image_size)
