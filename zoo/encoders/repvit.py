"""RepViT encoders for SAM.

RepViT (Wang et al., CVPR 2024, arXiv:2307.09283) separates token mixing (a depthwise 3x3 convolution that is
re-parameterised from three branches, and squeeze-excitation) from channel mixing (a two-layer 1x1 MLP).
Rep-MedSAM takes its M1.0 size, drops both strides of the stem and that of the last stage, so that a 256 px image
gives a 64x64 map, and ends in SAM's neck. State-dict keys are those of the published checkpoints.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch.nn.functional as F
from torch import Tensor, nn

from zoo.folding import conv_like, fold_bn
from zoo.layers import ConvBn, SamNeck
from zoo.registry import EMBEDDING_CHANNELS, Cost, EncoderSpec, register_encoder


class RepVggDepthwise(nn.Module):
    """Depthwise mixing of three branches that fold into one 3x3 convolution: BN(conv3x3+BN + conv1x1 + identity)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = ConvBn(channels, channels, kernel=3, padding=1, groups=channels)
        self.conv1 = nn.Conv2d(channels, channels, 1, groups=channels)
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C, H, W)."""
        mixed: Tensor = self.bn(self.conv(x) + self.conv1(x) + x)
        return mixed

    def folded(self) -> nn.Conv2d:
        """Adds the 1x1 branch and the identity into the centre of the 3x3 kernel, then folds the outer BatchNorm."""
        weight, bias = fold_bn(self.conv.c.weight, None, self.conv.bn)
        weight[:, :, 1, 1] += self.conv1.weight.double()[:, :, 0, 0] + 1
        if self.conv1.bias is not None:
            bias = bias + self.conv1.bias.double()
        return conv_like(self.conv.c, *fold_bn(weight, bias, self.bn))


class EarlyRepVggDepthwise(nn.Module):
    """The form of RepViT's first version: conv3x3+BN + conv1x1+BN + identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = ConvBn(channels, channels, kernel=3, padding=1, groups=channels)
        self.conv1 = ConvBn(channels, channels, groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C, H, W)."""
        mixed: Tensor = self.conv(x) + self.conv1(x) + x
        return mixed

    def folded(self) -> nn.Conv2d:
        """As of `RepVggDepthwise`, for two branches with a BatchNorm each and none after their sum."""
        weight, bias = fold_bn(self.conv.c.weight, None, self.conv.bn)
        centre, shift = fold_bn(self.conv1.c.weight, None, self.conv1.bn)
        weight[:, :, 1, 1] += centre[:, :, 0, 0] + 1
        return conv_like(self.conv.c, weight, bias + shift)


class SqueezeExcite(nn.Module):
    """Scales each channel by a gate computed from all channels' means (Hu et al. 2018, arXiv:1709.01507).

    The same as timm's `SqueezeExcite(channels, 0.25)`, whose import alone takes longer than a segmentation.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        reduced = max(8, (channels // 4 + 4) // 8 * 8)
        self.fc1 = nn.Conv2d(channels, reduced, 1)
        self.fc2 = nn.Conv2d(reduced, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C, H, W)."""
        gate: Tensor = self.fc2(F.relu(self.fc1(x.mean((2, 3), keepdim=True)))).sigmoid()
        return x * gate


class Residual(nn.Module):
    """`x + m(x)`."""

    def __init__(self, m: nn.Module) -> None:
        super().__init__()
        self.m = m

    def forward(self, x: Tensor) -> Tensor:
        """Any shape that `m` keeps."""
        mixed: Tensor = x + self.m(x)
        return mixed


class RepViTBlock(nn.Module):
    """Token mixer, then channel mixer, which is residual where the width stays."""

    def __init__(self, inputs: int, outputs: int, use_se: bool = False, early: bool = False) -> None:
        super().__init__()
        depthwise = EarlyRepVggDepthwise(inputs) if early else RepVggDepthwise(inputs)
        se = SqueezeExcite(inputs) if use_se else nn.Identity()
        mlp = _channel_mlp(inputs, outputs)
        self.token_mixer = nn.Sequential(depthwise, se)
        self.channel_mixer = Residual(mlp) if inputs == outputs else mlp

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) to (B, C_out, H, W)."""
        mixed: Tensor = self.channel_mixer(self.token_mixer(x))
        return mixed


class RepViTMerge(nn.Module):
    """The block between stages: a strided depthwise convolution, a projection, and a residual channel mixer."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        depthwise = ConvBn(inputs, inputs, kernel=3, stride=stride, padding=1, groups=inputs)
        self.token_mixer = nn.Sequential(depthwise, nn.Identity(), ConvBn(inputs, outputs))
        self.channel_mixer = Residual(_channel_mlp(outputs, outputs))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) to (B, C_out, H/stride, W/stride)."""
        mixed: Tensor = self.channel_mixer(self.token_mixer(x))
        return mixed


def _channel_mlp(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(ConvBn(inputs, 2 * inputs), nn.GELU(), ConvBn(2 * inputs, outputs))


@dataclass(frozen=True)
class RepViTGeometry:
    """Size of a RepViT, and where publications differ.

    Attributes:
        widths: channels of the four stages.
        depths: blocks of the four stages, without those between them.
        stem_stride: of each of the stem's two convolutions.
        last_stride: of the block before the last stage; None where a plain block does no more than widen.
        early: the depthwise block of RepViT's first version.
    """

    widths: tuple[int, int, int, int]
    depths: tuple[int, int, int, int]
    stem_stride: int = 1
    last_stride: int | None = None
    early: bool = False


class RepViTEncoder(nn.Module):
    """RepViT with SAM's neck: (B, 3, S, S) to (B, 256, 64, 64)."""

    def __init__(self, geometry: RepViTGeometry) -> None:
        super().__init__()
        self.features = nn.ModuleList([stem(geometry), *mixing_blocks(geometry)])
        self.neck = SamNeck(geometry.widths[-1], EMBEDDING_CHANNELS)

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images to embeddings."""
        for block in self.features:
            x = block(x)
        embedding: Tensor = self.neck(x)
        return embedding


def stem(geometry: RepViTGeometry) -> nn.Sequential:
    """The two convolutions before the first stage."""
    width, stride = geometry.widths[0], geometry.stem_stride
    return nn.Sequential(
        ConvBn(3, width // 2, kernel=3, stride=stride, padding=1),
        nn.GELU(),
        ConvBn(width // 2, width, kernel=3, stride=stride, padding=1),
    )


def mixing_blocks(geometry: RepViTGeometry) -> list[nn.Module]:
    """All blocks in order, each stage's behind the one that leads to it.

    Squeeze-excitation sits in every other block of a stage, but not in its last.
    """
    blocks: list[nn.Module] = []
    for stage, (width, depth) in enumerate(zip(geometry.widths, geometry.depths, strict=True)):
        if stage > 0:
            stride = geometry.last_stride if stage == len(geometry.widths) - 1 else 2
            before = geometry.widths[stage - 1]
            blocks.append(RepViTMerge(before, width, stride) if stride else RepViTBlock(before, width))
        gated = [i % 2 == 0 and i < depth - 1 for i in range(depth)]
        blocks += [RepViTBlock(width, width, use_se, geometry.early) for use_se in gated]
    return blocks


class EdgeSamEncoder(nn.Module):
    """EdgeSAM's encoder: the last two stages of a RepViT, brought to one resolution and added, then SAM's neck."""

    def __init__(self, geometry: RepViTGeometry) -> None:
        super().__init__()
        self.features = nn.ModuleList([stem(geometry), *mixing_blocks(geometry)])
        self.last_stage = len(self.features) - geometry.depths[-1] - 1
        self.fuse_stage2 = nn.Conv2d(geometry.widths[2], EMBEDDING_CHANNELS, 1, bias=False)
        self.fuse_stage3 = nn.ModuleDict(
            {"op_list": nn.ModuleList([nn.Conv2d(geometry.widths[3], EMBEDDING_CHANNELS, 1, bias=False)])}
        )
        self.neck = SamNeck(EMBEDDING_CHANNELS, EMBEDDING_CHANNELS)

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images to embeddings."""
        for block in self.features[: self.last_stage]:
            x = block(x)
        fine = self.fuse_stage2(x)
        for block in self.features[self.last_stage :]:
            x = block(x)
        coarse = self.fuse_stage3["op_list"][0](x)  # type: ignore[index]
        fused = fine + F.interpolate(coarse, fine.shape[-2:], mode="bicubic")
        embedding: Tensor = self.neck(fused)
        return embedding


#: Sizes of the RepViT paper, in Rep-MedSAM's geometry.
SIZES = {
    "m0_9": RepViTGeometry((48, 96, 192, 384), (3, 3, 15, 2)),
    "m1_0": RepViTGeometry((56, 112, 224, 448), (3, 3, 15, 2)),
    "m1_1": RepViTGeometry((64, 128, 256, 512), (3, 3, 13, 2)),
    "m1_5": RepViTGeometry((64, 128, 256, 512), (5, 5, 25, 4)),
    "m2_3": RepViTGeometry((80, 160, 320, 640), (7, 7, 35, 2)),
}

REP_MEDSAM = EncoderSpec(
    name="repvit",
    image_size=256,
    prompt_frame=256,
    fit="pad",
    resize="area",
    normalisation="min_max",
    title="Rep-MedSAM: RepViT-M1.0, stride-1 stem",
    paper="Rep-MedSAM, CVPR 2024 MedSAM on Laptop; RepViT: arXiv:2307.09283",
    licence="not stated by the repository",
    weights_from="github.com/muxin-wei/Rep-MedSAM",
    reference_cost=Cost(6.505532, 31.145),
)


@register_encoder(REP_MEDSAM)
def repvit(spec: EncoderSpec) -> nn.Module:
    """Rep-MedSAM's encoder: RepViT-M1.0 at 256 px."""
    return RepViTEncoder(SIZES["m1_0"])


def _register_size(size: str, cost: Cost) -> None:
    """A size of RepViT in Rep-MedSAM's geometry; nobody has published weights for it but those of `repvit`."""
    title = f"RepViT-{size.upper().replace('_', '.')} in Rep-MedSAM's geometry"
    spec = replace(
        REP_MEDSAM,
        name=f"repvit_{size}",
        title=title,
        licence="none published",
        weights_from="none published",
        reference_cost=cost,
    )
    register_encoder(spec)(lambda spec: RepViTEncoder(SIZES[size]))


for _size, _cost in {
    "m0_9": Cost(4.963808, 23.631),
    "m1_0": Cost(6.505532, 31.145),
    "m1_1": Cost(7.709328, 37.627),
    "m1_5": Cost(13.550848, 63.691),
    "m2_3": Cost(21.92884, 108.060),
}.items():
    _register_size(_size, _cost)

REPVIT_SAM = EncoderSpec(
    name="repvit_sam",
    image_size=1024,
    prompt_frame=1024,
    fit="pad",
    resize="linear",
    normalisation="imagenet",
    title="RepViT-SAM: RepViT-M2.3",
    paper="RepViT-SAM: arXiv:2312.05760",
    licence="Apache-2.0",
    weights_from="github.com/THU-MIG/RepViT",
    reference_cost=Cost(23.15892, 113.305),
)


@register_encoder(REPVIT_SAM)
def repvit_sam(spec: EncoderSpec) -> nn.Module:
    """RepViT-SAM's encoder: RepViT-M2.3 at 1024 px."""
    return RepViTEncoder(replace(SIZES["m2_3"], stem_stride=2, last_stride=1))


@register_encoder(
    replace(
        REPVIT_SAM,
        name="edge_sam",
        title="EdgeSAM: RepViT-M1 with fused stages",
        paper="EdgeSAM: arXiv:2312.06660",
        licence="NTU S-Lab 1.0, non-commercial only",
        weights_from="github.com/chongzhou96/EdgeSAM",
        reference_cost=Cost(5.517552, 20.046),
    )
)
def edge_sam(spec: EncoderSpec) -> nn.Module:
    """EdgeSAM's encoder, built from the paper, the key layout and golden outputs; its weights are non-commercial."""
    return EdgeSamEncoder(replace(SIZES["m0_9"], stem_stride=2, last_stride=2, early=True))
