"""Parameters and multiply-adds of a candidate, by two counters that know nothing of each other."""

from __future__ import annotations

import contextlib
import io
import logging
import math
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from zoo.registry import EMBEDDING_CHANNELS, EMBEDDING_SIZE
from zoo.sam.model import Sam


@dataclass(frozen=True)
class Macs:
    """Multiply-adds of one call.

    Attributes:
        macs: by fvcore, which traces and multiplies shapes; attention products included.
        second_macs: by torch's own counter, which watches what is dispatched (half its flops).
        uncounted: operators that fvcore passed over, and how often: element-wise work, softmax, copies.
    """

    macs: int
    second_macs: int
    uncounted: dict[str, int]


class PromptedDecoder(nn.Module):
    """Prompt encoder and mask decoder for one box on one image, as one module to count or trace."""

    def __init__(self, sam: Sam) -> None:
        super().__init__()
        self.prompt_encoder, self.mask_decoder = sam.prompt_encoder, sam.mask_decoder

    def forward(self, embedding: Tensor, box: Tensor) -> Tensor:
        """Embedding (1, 256, 64, 64) and box (1, 4) to logits (1, 1, 256, 256)."""
        sparse, dense = self.prompt_encoder(None, box, None)
        image_pe = self.prompt_encoder.get_dense_pe()
        logits, _ = self.mask_decoder(embedding, image_pe, sparse, dense, False)
        return logits


def count_parameters(module: nn.Module) -> int:
    """Number of trainable values."""
    return sum(parameter.numel() for parameter in module.parameters())


def count_macs(module: nn.Module, *inputs: Tensor) -> Macs:
    """Multiply-adds of `module(*inputs)`. fvcore calls them flops."""
    with torch.no_grad(), _quiet(), _frozen(module):
        # Imported here, where its deprecation warnings are kept from the user.
        from fvcore.nn import FlopCountAnalysis

        analysis = FlopCountAnalysis(module, inputs)
        analysis.set_op_handle("aten::scaled_dot_product_attention", _attention_macs)
        macs = int(analysis.total())
        uncounted = dict(analysis.unsupported_ops())
        # The math kernel is made of products that the second counter sees; the fused ones hide them from it.
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            module(*inputs)
    return Macs(macs, counter.get_total_flops() // 2, uncounted)


def measure_cost(sam: Sam) -> dict[str, Any]:
    """Measurements of a `cost` record: see `bench.record.MEASUREMENTS`."""
    size = sam.spec.image_size
    encoder = count_macs(sam.image_encoder, torch.zeros(1, 3, size, size))
    embedding = torch.zeros(1, EMBEDDING_CHANNELS, EMBEDDING_SIZE, EMBEDDING_SIZE)
    box = torch.tensor([[0.25, 0.25, 0.75, 0.75]]) * sam.spec.prompt_frame
    decoder = count_macs(PromptedDecoder(sam), embedding, box)
    return {
        "encoder_params": count_parameters(sam.image_encoder),
        "decoder_params": count_parameters(sam.prompt_encoder) + count_parameters(sam.mask_decoder),
        "encoder_gmacs": encoder.macs / 1e9,
        "decoder_gmacs": decoder.macs / 1e9,
        "encoder_gmacs_second_counter": encoder.second_macs / 1e9,
        "decoder_gmacs_second_counter": decoder.second_macs / 1e9,
        "input_px": size,
        "uncounted_operators": encoder.uncounted,
        "title": sam.spec.title,
        "licence": sam.spec.licence,
        "weights_from": sam.spec.weights_from,
    }


def _attention_macs(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
    """Both products of softmax(q k^T) v, from the traced values' shapes; fvcore has no rule of its own."""
    (*batch, queries, depth), (*_, keys, value_depth) = (inputs[i].type().sizes() for i in (0, 2))
    return Counter(attention=math.prod(batch) * queries * keys * (depth + value_depth))


@contextlib.contextmanager
def _frozen(module: nn.Module) -> Iterator[None]:
    """Without gradients asked for: torch's counter trips over a parameter that is returned under `no_grad`."""
    asked = [parameter for parameter in module.parameters() if parameter.requires_grad]
    module.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in asked:
            parameter.requires_grad_(True)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what tracing says of itself: the uncounted operators are returned, not logged."""
    logger = logging.getLogger("fvcore.nn.jit_analysis")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
