"""PyTorch, operator by operator."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zoo.backends import Floats, Prompts, register_backend
from zoo.sam.fast_decoder import FastDecoder
from zoo.sam.model import Sam


@register_backend("torch", precisions=("fp32",))
class TorchBackend:
    """`Backend` that runs the module as it is, on the CPU. The thread count holds for the whole process."""

    name = "torch"

    def __init__(self, sam: Sam, precision: str, threads: int) -> None:
        self.version: str = str(torch.__version__)
        self.precision, self.threads = precision, threads
        self.spec = sam.spec
        self._sam = sam
        torch.set_num_threads(threads)
        cv2.setNumThreads(threads)
        with torch.inference_mode():
            self._image_pe = sam.prompt_encoder.get_dense_pe()
            self._fast_decoder = FastDecoder(sam)

    def encode(self, images: Floats) -> Floats:
        """As `Backend.encode`."""
        with torch.inference_mode():
            return _array(self._sam.image_encoder(torch.from_numpy(images)))

    def decode(self, embedding: Floats, prompts: Prompts, multimask: bool = False) -> tuple[Floats, Floats]:
        """As `Backend.decode`."""
        points = None
        if prompts.points is not None and prompts.point_labels is not None:
            points = (torch.from_numpy(prompts.points), torch.from_numpy(prompts.point_labels))
        with torch.inference_mode():
            sparse, dense = self._sam.prompt_encoder(points, _tensor(prompts.boxes), _tensor(prompts.masks))
            logits, iou = self._sam.mask_decoder(torch.from_numpy(embedding), self._image_pe, sparse, dense, multimask)
        return _array(logits), _array(iou)

    def decode_boxes(self, embedding: Floats, boxes: Floats) -> Floats:
        """As `Backend.decode_boxes`."""
        with torch.inference_mode():
            logits, _ = self._fast_decoder(torch.from_numpy(embedding), torch.from_numpy(boxes))
        return _array(logits)


def _tensor(array: Floats | None) -> Tensor | None:
    return None if array is None else torch.from_numpy(array)


def _array(tensor: Tensor) -> NDArray[np.float32]:
    """A tensor that nobody else holds, as an array."""
    array: NDArray[np.float32] = tensor.contiguous().numpy()
    return array
