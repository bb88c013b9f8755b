"""EfficientViT-SAM encoders.

EfficientViT (Cai et al., ICCV 2023, arXiv:2205.14756) replaces softmax attention by a linear one with ReLU features;
EfficientViT-SAM (Zhang et al. 2024, arXiv:2402.05008) fuses the last three stages of its L series at 64x64. State-dict
keys are those of the published checkpoints.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.folding import conv_like, fold_bn
from zoo.layers import LayerNorm2d
from zoo.registry import EMBEDDING_CHANNELS, EMBEDDING_SIZE, Cost, EncoderSpec, register_encoder

WIDTHS = (32, 64, 128, 256, 512)
HEAD_DEPTH = 32
#: The published models set every normalisation's epsilon to this.
EPS = 1e-6
#: Keeps a division by an all-zero attention row finite.
ATTENTION_EPS = 1e-15


class ConvNorm(nn.Sequential):
    """Convolution, BatchNorm (then without bias) and GELU (tanh form), each of the latter where asked for."""

    conv: nn.Conv2d
    norm: nn.BatchNorm2d
    act: nn.GELU

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int = 1,
        stride: int = 1,
        groups: int = 1,
        norm: bool = True,
        act: bool = False,
    ) -> None:
        conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=not norm)
        layers: OrderedDict[str, nn.Module] = OrderedDict(conv=conv)
        if norm:
            layers["norm"] = nn.BatchNorm2d(outputs, eps=EPS)
        if act:
            layers["act"] = nn.GELU(approximate="tanh")
        super().__init__(layers)

    def folded(self) -> nn.Module:
        """Convolution and BatchNorm as one; the activation behind them stays."""
        if "norm" not in self._modules:
            return self
        conv = conv_like(self.conv, *fold_bn(self.conv.weight, None, self.norm))
        return nn.Sequential(conv, self.act) if "act" in self._modules else conv


class Named(nn.Sequential):
    """Layers in a row under their published names."""

    def __init__(self, **layers: nn.Module) -> None:
        super().__init__(OrderedDict(layers))


class Residual(nn.Module):
    """`x + main(x)`, or `main(x)` where the shape changes."""

    def __init__(self, main: nn.Module, skip: bool = True) -> None:
        super().__init__()
        self.main = main
        self.skip = skip

    def forward(self, x: Tensor) -> Tensor:
        """Any shape that `main` takes."""
        out: Tensor = self.main(x)
        return x + out if self.skip else out


def fused_mbconv(inputs: int, outputs: int, stride: int, expansion: int) -> nn.Module:
    """A full 3x3 convolution that expands, then a projection."""
    hidden = inputs * expansion
    return Named(
        spatial_conv=ConvNorm(inputs, hidden, 3, stride, act=True),
        point_conv=ConvNorm(hidden, outputs),
    )


def mbconv(inputs: int, outputs: int, stride: int, expansion: int) -> nn.Module:
    """Expansion, depthwise convolution and projection, normalised only at the end."""
    hidden = inputs * expansion
    return Named(
        inverted_conv=ConvNorm(inputs, hidden, norm=False, act=True),
        depth_conv=ConvNorm(hidden, hidden, 3, stride, groups=hidden, norm=False, act=True),
        point_conv=ConvNorm(hidden, outputs),
    )


class LinearAttention(nn.Module):
    """Multi-scale linear attention: ReLU features, at the map's own scale and aggregated over 5x5."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.qkv = Named(conv=nn.Conv2d(width, 3 * width, 1, bias=False))
        depthwise = nn.Conv2d(3 * width, 3 * width, 5, padding=2, groups=3 * width, bias=False)
        pointwise = nn.Conv2d(3 * width, 3 * width, 1, groups=3 * width // HEAD_DEPTH, bias=False)
        self.aggreg = nn.ModuleList([nn.Sequential(depthwise, pointwise)])
        self.proj = ConvNorm(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C, H, W)."""
        qkv = self.qkv(x)
        scales = torch.cat([qkv, self.aggreg[0](qkv)], dim=1)
        q, k, v = scales.flatten(2).unflatten(1, (-1, 3, HEAD_DEPTH)).unbind(2)
        q, k = F.relu(q), F.relu(k)
        ones = torch.ones_like(v[:, :, :1])
        summed = torch.cat([v, ones], dim=2) @ k.transpose(2, 3) @ q
        mixed = summed[:, :, :-1] / (summed[:, :, -1:] + ATTENTION_EPS)
        projected: Tensor = self.proj(mixed.flatten(1, 2).unflatten(2, x.shape[2:]))
        return projected


def attention_block(width: int, expansion: int) -> nn.Module:
    """Linear attention, then an inverted bottleneck, each with a residual."""
    return Named(
        context_module=Residual(LinearAttention(width)),
        local_module=Residual(mbconv(width, width, 1, expansion)),
    )


class OpList(nn.Module):
    """Operators in a row, under the published key."""

    def __init__(self, operators: list[nn.Module]) -> None:
        super().__init__()
        self.op_list = nn.ModuleList(operators)

    def forward(self, x: Tensor) -> Tensor:
        """Whatever the operators take and give."""
        for operator in self.op_list:
            x = operator(x)
        return x


class Backbone(nn.Module):
    """Five stages, each of half the resolution of the one before."""

    def __init__(self, depths: tuple[int, int, int, int, int]) -> None:
        super().__init__()
        first = [_res_block(WIDTHS[0]) for _ in range(depths[0])]
        stages = [OpList([ConvNorm(3, WIDTHS[0], 3, 2, act=True), *first])]
        stages += [_stage(index, depths[index]) for index in range(1, len(WIDTHS))]
        self.stages = nn.ModuleList(stages)

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, 3, S, S) to the maps of all stages, S/2 to S/32 a side."""
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps


def _res_block(width: int) -> nn.Module:
    return Residual(Named(conv1=ConvNorm(width, width, 3, act=True), conv2=ConvNorm(width, width, 3)))


def _stage(index: int, depth: int) -> OpList:
    """Stage 1 and 2 of fused bottlenecks, 3 of inverted ones, 4 of attention; each opens with a strided bottleneck."""
    inputs, width = WIDTHS[index - 1], WIDTHS[index]
    if index <= 2:
        opening = Residual(fused_mbconv(inputs, width, 2, 16), skip=False)
        return OpList([opening, *(Residual(fused_mbconv(width, width, 1, 4)) for _ in range(depth))])
    if index == 3:
        opening = Residual(mbconv(inputs, width, 2, 16), skip=False)
        return OpList([opening, *(Residual(mbconv(width, width, 1, 4)) for _ in range(depth))])
    opening = Residual(mbconv(inputs, width, 2, 24), skip=False)
    return OpList([opening, *(attention_block(width, 6) for _ in range(depth))])


class Neck(nn.Module):
    """Brings the last three stages to one width and 64x64, adds them, and refines the sum."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        width = EMBEDDING_CHANNELS
        self.input_ops = nn.ModuleList(OpList([ConvNorm(inputs, width)]) for inputs in WIDTHS[:1:-1])
        self.middle = OpList([Residual(fused_mbconv(width, width, 1, 1)) for _ in range(depth)])
        self.output_ops = nn.ModuleList([OpList([ConvNorm(width, width, norm=False)])])

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Maps of all stages to (B, 256, 64, 64)."""
        size = (EMBEDDING_SIZE, EMBEDDING_SIZE)
        brought = [bring(x) for bring, x in zip(self.input_ops, reversed(maps[2:]), strict=True)]
        resized = [x if x.shape[-2:] == size else F.interpolate(x, size, mode="bicubic") for x in brought]
        fused: Tensor = self.output_ops[0](self.middle(sum(resized[1:], resized[0])))
        return fused


@dataclass(frozen=True)
class EfficientViTGeometry:
    """Depths of the five stages and of the neck."""

    depths: tuple[int, int, int, int, int]
    neck_depth: int


class EfficientViTEncoder(nn.Module):
    """EfficientViT with its fusing neck: (B, 3, 512, 512) to (B, 256, 64, 64)."""

    def __init__(self, geometry: EfficientViTGeometry) -> None:
        super().__init__()
        self.backbone = Backbone(geometry.depths)
        self.neck = Neck(geometry.neck_depth)
        self.norm = LayerNorm2d(EMBEDDING_CHANNELS, eps=EPS)

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images to embeddings."""
        embedding: Tensor = self.norm(self.neck(self.backbone(x)))
        return embedding


SIZES = {
    "l0": EfficientViTGeometry((1, 1, 1, 4, 4), neck_depth=4),
    "l1": EfficientViTGeometry((1, 1, 1, 6, 6), neck_depth=8),
    "l2": EfficientViTGeometry((1, 2, 2, 8, 8), neck_depth=12),
}


def _register_size(size: str, cost: Cost) -> None:
    spec = EncoderSpec(
        name=f"efficientvit_sam_{size}",
        image_size=512,
        prompt_frame=1024,
        fit="pad",
        resize="linear",
        normalisation="imagenet",
        title=f"EfficientViT-SAM-{size.upper()}",
        paper="EfficientViT-SAM: arXiv:2402.05008",
        licence="Apache-2.0",
        weights_from="github.com/mit-han-lab/efficientvit",
        decoder_norm_eps=EPS,
        reference_cost=cost,
    )
    register_encoder(spec)(lambda spec: EfficientViTEncoder(SIZES[size]))


for _size, _cost in {
    "l0": Cost(30.728224, 34.775),
    "l1": Cost(43.585568, 48.980),
    "l2": Cost(57.264032, 68.554),
}.items():
    _register_size(_size, _cost)
