"""Training through the rounding of int8, so that what is learned survives `quantize`.

Inputs and weights of each layer are rounded as `quantize` rounds them: weights symmetric and per output channel,
inputs per tensor on 256 steps from their least to their greatest value. Gradients pass through the rounding as if it
were not there (Jacob et al., arXiv:1712.05877). Rounded values are never made bfloat16, which has other steps.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compress.reparam import UnfoldableError, reparameterise
from zoo.errors import InputError

#: Steps of a rounded input; the greatest rounded weight.
INPUT_STEPS, GREATEST_WEIGHT = 255, 127
#: The smallest step: of a tensor of zeros.
SMALLEST_STEP = 1e-8


class Int8Conv2d(nn.Conv2d):
    """A convolution of rounded inputs and weights; its own weight stays as it is."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C', H', W'), in float32."""
        with torch.autocast(x.device.type, enabled=False):
            return self._conv_forward(round_input(x), round_weight(self.weight), self.bias)


class Int8Linear(nn.Linear):
    """A linear layer of rounded inputs and weights; its own weight stays as it is."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) to (..., C'), in float32."""
        with torch.autocast(x.device.type, enabled=False):
            return F.linear(round_input(x), round_weight(self.weight), self.bias)


ROUNDED: dict[type[nn.Module], type[nn.Module]] = {nn.Conv2d: Int8Conv2d, nn.Linear: Int8Linear}


def simulate_int8(encoder: nn.Module, image_size: int | None = None) -> nn.Module:
    """A folded copy of an encoder that computes as if in int8; its weights are float and keep their names.

    Args:
        encoder: in eval mode.
        image_size: as of `reparameterise`.

    Raises:
        InputError: an encoder that cannot be folded.
        ValueError: as `reparameterise`.
    """
    try:
        folded = reparameterise(encoder, image_size)
    except UnfoldableError as error:
        found = f"{error.found}, the first {error.where}"
        raise InputError("--int8", found, "an encoder that can be folded") from error
    for module in folded.modules():
        # The class alone differs, so that no hook, name or parameter is lost.
        module.__class__ = ROUNDED.get(type(module), type(module))
    return folded


def round_input(x: Tensor) -> Tensor:
    """Rounds a tensor to 256 steps from its least value, or 0, to its greatest, or 0."""
    least, greatest = torch.aminmax(x.detach().float())
    least, greatest = least.clamp(max=0), greatest.clamp(min=0)
    step = ((greatest - least) / INPUT_STEPS).clamp(min=SMALLEST_STEP)
    zero = (-least / step).round().int()
    return torch.fake_quantize_per_tensor_affine(x.float(), step, zero, 0, INPUT_STEPS)


def round_weight(weight: Tensor) -> Tensor:
    """Rounds a weight (C', ...) to whole multiples, up to 127, of a step for each output channel."""
    greatest = weight.detach().float().flatten(1).abs().amax(1)
    step = (greatest / GREATEST_WEIGHT).clamp(min=SMALLEST_STEP)
    zero = torch.zeros_like(step, dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(weight.float(), step, zero, 0, -GREATEST_WEIGHT, GREATEST_WEIGHT)
