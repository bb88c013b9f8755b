"""PyTorch, operator by operator."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zoo.backends import Floats, Prompts, register_backend
from zoo.sam.fast_decoder import FastDecoder
from zoo.sam.model import Sam


@register_backend("torch", precisions=("fp32", "bf16"))
class TorchBackend:
    """`Backend` that runs the module as it is, on the CPU. The thread count holds for the whole process.

    bf16 is autocast: products and convolutions in bfloat16, sums and normalisations in float32.
    """

    name = "torch"

    def __init__(self, sam: Sam, precision: str, threads: int) -> None:
        self.version: str = str(torch.__version__)
        self.precision, self.threads = precision, threads
        self.spec = sam.spec
        self._sam = sam
        torch.set_num_threads(threads)
        cv2.setNumThreads(threads)
        self._encoder: Callable[[Tensor], Tensor] = sam.image_encoder
        with torch.no_grad():
            self._image_pe = sam.prompt_encoder.get_dense_pe()
            self._fast_decoder: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] = FastDecoder(sam)

    def encode(self, images: Floats) -> Floats:
        """As `Backend.encode`."""
        with self._running():
            return _array(self._encoder(torch.from_numpy(images)))

    def decode(self, embedding: Floats, prompts: Prompts, multimask: bool = False) -> tuple[Floats, Floats]:
        """As `Backend.decode`."""
        points = None
        if prompts.points is not None and prompts.point_labels is not None:
            points = (torch.from_numpy(prompts.points), torch.from_numpy(prompts.point_labels))
        with self._running():
            sparse, dense = self._sam.prompt_encoder(points, _tensor(prompts.boxes), _tensor(prompts.masks))
            logits, iou = self._sam.mask_decoder(torch.from_numpy(embedding), self._image_pe, sparse, dense, multimask)
        return _array(logits), _array(iou)

    def decode_boxes(self, embedding: Floats, boxes: Floats) -> Floats:
        """As `Backend.decode_boxes`."""
        with self._running():
            logits, _ = self._fast_decoder(torch.from_numpy(embedding), torch.from_numpy(boxes))
        return _array(logits)

    @contextmanager
    def _running(self) -> Iterator[None]:
        """Without gradients, in the precision."""
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=self.precision == "bf16"):
            yield


def _tensor(array: Floats | None) -> Tensor | None:
    return None if array is None else torch.from_numpy(array)


def _array(tensor: Tensor) -> NDArray[np.float32]:
    """A tensor that nobody else holds, as an array."""
    array: NDArray[np.float32] = tensor.float().contiguous().numpy()
    return array
