"""PyTorch on an NVIDIA GPU, the encoder replayed as one CUDA graph."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from zoo.backends import Floats, register_backend
from zoo.backends.torch_eager import TorchBackend
from zoo.sam.model import Sam

#: Runs before a graph is captured: the first ones choose kernels and make workspaces.
WARMUP = 3


def _lacking(precision: str) -> tuple[str, str] | None:
    if not torch.cuda.is_available():
        return "no CUDA GPU that torch can use", "torch, compile, onnxruntime or openvino, which run on the CPU"
    if precision == "bf16" and not torch.cuda.is_bf16_supported(including_emulation=False):
        return "bf16 on a GPU without bf16 instructions", "fp16 or fp32 on this machine"
    return None


@register_backend("cuda", precisions=("fp32", "fp16", "bf16"), lacking=_lacking)
class CudaBackend(TorchBackend):
    """`Backend` on the first GPU, with a copy of the model. Results are on the host when a call returns.

    fp16 and bf16 are autocast, as in `TorchBackend`. fp32 is float32 throughout: convolutions take no TF32, which cuDNN
    would use, and products only if torch is told so.
    """

    name = "cuda"

    def __init__(self, sam: Sam, precision: str, threads: int) -> None:
        super().__init__(copy.deepcopy(sam).to("cuda"), precision, threads)
        self._replayed: Callable[[Tensor], Tensor] | None = None

    def encode(self, images: Floats) -> Floats:
        """As `Backend.encode`, one image at a time, since a graph has one shape."""
        if self._replayed is None:
            with self._running():
                self._replayed = capture(self._encoder, self._tensor(images[:1]))
            self._encoder = self._replayed
        return np.concatenate([super(CudaBackend, self).encode(image[None]) for image in images])

    @contextmanager
    def _running(self) -> Iterator[None]:
        with torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=False), super()._running():
            yield


def capture(module: Callable[[Tensor], Tensor], example: Tensor) -> Callable[[Tensor], Tensor]:
    """Records `module` on an input like `example` as a CUDA graph; what it returns is written again by the next call.

    Source: the rules of capture in PyTorch's notes on CUDA semantics: warm up on another stream, static inputs.
    """
    held = example.clone()
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(WARMUP):
            module(held)
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = module(held)

    def replay(image: Tensor) -> Tensor:
        held.copy_(image)
        graph.replay()
        return result

    return replay
