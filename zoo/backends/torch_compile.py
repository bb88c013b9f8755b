"""PyTorch with torch.compile: fused kernels for the encoder."""

from __future__ import annotations

import logging
import os
import shutil
from typing import Any

import numpy as np
import torch

from zoo.backends import Floats, lacking_bf16, register_backend
from zoo.backends.torch_eager import TorchBackend
from zoo.cache import cache_folder
from zoo.sam.model import Sam

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
        # It tells a user without a GPU that there is no GPU.
        logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_folder() / "inductor"))
        super().__init__(sam, precision, threads)
        options: Any = {"freezing": True}
        self._encoder = torch.compile(self._encoder, options=options)

    def encode(self, images: Floats) -> Floats:
        """As `Backend.encode`, one image at a time: another batch size would be compiled anew."""
        return np.concatenate([super(CompiledBackend, self).encode(image[None]) for image in images])
