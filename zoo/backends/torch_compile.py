"""PyTorch with torch.compile: fused kernels for the encoder."""

from __future__ import annotations

import logging
import os
import shutil

import numpy as np
import torch
from torch import Tensor

from zoo.backends import Floats, lacking_bf16, register_backend
from zoo.backends.torch_eager import TorchBackend
from zoo.cache import cached_folder
from zoo.sam.model import Sam

#: Encoders that a process may compile.
MOST_COMPILED = 1000
#: Any of these makes the kernels.
COMPILERS = ("g++", "clang++", "c++")


def _lacking(precision: str) -> tuple[str, str] | None:
    if not (os.environ.get("CXX") or any(map(shutil.which, COMPILERS))):
        return "no C++ compiler", f"one of {', '.join(COMPILERS)}, or $CXX"
    return lacking_bf16(precision)


@register_backend("compile", precisions=("fp32", "bf16"), lacking=_lacking)
class CompiledBackend(TorchBackend):
    """`Backend` whose encoder is compiled at its first call; kernels stay in the cache folder.

    The decoder is not: compiled for any number of boxes it takes half a minute to make and is no faster.
    """

    name = "compile"

    def __init__(self, sam: Sam, precision: str, threads: int) -> None:
        # Seconds of import, for this backend alone.
        import torch._dynamo.config as dynamo
        import torch._inductor.config as inductor

        # It tells a user without a GPU that there is no GPU.
        logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
        if "TORCHINDUCTOR_CACHE_DIR" not in os.environ:
            os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(cached_folder("inductor"))
        super().__init__(sam, precision, threads)
        # Encoders of one class share the code that is compiled: past the limit the next would run as it is, unsaid.
        dynamo.recompile_limit, dynamo.fail_on_recompile_limit_hit = MOST_COMPILED, True
        compiled = torch.compile(self._encoder)

        def encoder(images: Tensor) -> Tensor:
            # Weights that are constants are packed for the CPU. As an option of torch.compile it comes too late: they
            # are inputs of what has been traced by then.
            with inductor.patch(freezing=True):
                embedding: Tensor = compiled(images)
            return embedding

        self._encoder = encoder

    def encode(self, images: Floats) -> Floats:
        """As `Backend.encode`, one image at a time: another batch size would be compiled anew."""
        return np.concatenate([super(CompiledBackend, self).encode(image[None]) for image in images])
