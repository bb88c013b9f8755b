"""RepViT encoders for SAM.

RepViT (Wang et al., CVPR 2024, arXiv:2307.09283) separates token mixing (a depthwise 3x3 convolution that is
re-parameterised from three branches, and squeeze-excitation) from channel mixing (a two-layer 1x1 MLP).
Rep-MedSAM takes its M1.0 size, drops both strides of the stem and that of the last stage, so that a 256 px image
gives a 64x64 map, and ends in SAM's neck. State-dict keys are those of the published checkpoints.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from zoo.layers import ConvBn, SamNeck
from zoo.registry import EMBEDDING_CHANNELS, EncoderSpec, register_encoder


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
    """Token mixer, then channel mixer; residual where channels and resolution stay."""

    def __init__(self, inputs: int, outputs: int, stride: int, use_se: bool) -> None:
        super().__init__()
        hidden = 2 * inputs
        se = SqueezeExcite(inputs) if use_se else nn.Identity()
        mlp = nn.Sequential(ConvBn(inputs, hidden), nn.GELU(), ConvBn(hidden, outputs))
        if stride == 1:
            self.token_mixer = nn.Sequential(RepVggDepthwise(inputs), se)
            self.channel_mixer = Residual(mlp) if inputs == outputs else mlp
        else:
            depthwise = ConvBn(inputs, inputs, kernel=3, stride=stride, padding=1, groups=inputs)
            self.token_mixer = nn.Sequential(depthwise, se, ConvBn(inputs, outputs))
            mlp = nn.Sequential(ConvBn(outputs, 2 * outputs), nn.GELU(), ConvBn(2 * outputs, outputs))
            self.channel_mixer = Residual(mlp)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) to (B, C_out, H/stride, W/stride)."""
        mixed: Tensor = self.channel_mixer(self.token_mixer(x))
        return mixed


@dataclass(frozen=True)
class RepViTGeometry:
    """Size of a RepViT: channels and blocks of its four stages, and the strides that differ between publications."""

    widths: tuple[int, int, int, int]
    depths: tuple[int, int, int, int]
    stem_stride: int
    last_stride: int


class RepViTEncoder(nn.Module):
    """RepViT with SAM's neck: (B, 3, S, S) to (B, 256, 64, 64)."""

    def __init__(self, geometry: RepViTGeometry) -> None:
        super().__init__()
        width, stride = geometry.widths[0], geometry.stem_stride
        stem = nn.Sequential(
            ConvBn(3, width // 2, kernel=3, stride=stride, padding=1),
            nn.GELU(),
            ConvBn(width // 2, width, kernel=3, stride=stride, padding=1),
        )
        self.features = nn.ModuleList([stem, *_stages(geometry)])
        self.neck = SamNeck(geometry.widths[-1], EMBEDDING_CHANNELS)

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images to embeddings."""
        for block in self.features:
            x = block(x)
        embedding: Tensor = self.neck(x)
        return embedding


def _stages(geometry: RepViTGeometry) -> list[RepViTBlock]:
    """All blocks in order. Squeeze-excitation sits in every other block of a stage, but not in its last."""
    blocks, width = [], geometry.widths[0]
    for stage, (outputs, depth) in enumerate(zip(geometry.widths, geometry.depths, strict=True)):
        if stage > 0:
            last = stage == len(geometry.widths) - 1
            blocks.append(RepViTBlock(width, outputs, geometry.last_stride if last else 2, use_se=False))
        blocks += [RepViTBlock(outputs, outputs, 1, use_se=i % 2 == 0 and i < depth - 1) for i in range(depth)]
        width = outputs
    return blocks


REPVIT_M1_0 = RepViTGeometry((56, 112, 224, 448), (3, 3, 15, 2), stem_stride=1, last_stride=1)


@register_encoder(
    EncoderSpec(
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
    )
)
def repvit(spec: EncoderSpec) -> nn.Module:
    """Rep-MedSAM's encoder: RepViT-M1.0 at 256 px."""
    return RepViTEncoder(REPVIT_M1_0)
