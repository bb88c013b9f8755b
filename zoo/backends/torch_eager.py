"""PyTorch, operator by operator."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zoo.backends import Floats, Prompts, Windows, register_backend
from zoo.fovea import fovea_of
from zoo.sam.fast_decoder import FastDecoder, positions_first
from zoo.sam.foveated_decoder import FoveatedDecoder
from zoo.sam.model import Sam
from zoo.windows import logits_of, positions_in

#: What products are computed in, by precision.
LOWER = {"bf16": torch.bfloat16, "fp16": torch.float16}


@register_backend("torch", precisions=("fp32", "bf16"))
class TorchBackend:
    """`Backend` that runs the module as it is, where it is. The thread count holds for the whole process.

    bf16 (on a GPU also fp16) is autocast: products and convolutions in it, sums and normalisations in float32.
    """

    name = "torch"

    def __init__(self, sam: Sam, precision: str, threads: int) -> None:
        self.version: str = str(torch.__version__)
        self.precision, self.threads = precision, threads
        self.spec, self.weights = sam.spec, sam.weights_name
        self._sam, self._device = sam, sam.prompt_encoder.no_mask_embed.weight.device.type
        torch.set_num_threads(threads)
        cv2.setNumThreads(threads)
        self._encoder: Callable[[Tensor], Tensor] = sam.image_encoder
        with torch.no_grad():
            self._image_pe = sam.prompt_encoder.get_dense_pe()
            self._fast_decoder = FastDecoder(sam)
            self._foveated_decoder = FoveatedDecoder(self._fast_decoder)

    def encode(self, images: Floats) -> Floats:
        """As `Backend.encode`."""
        with self._running():
            return _array(self._encoder(self._tensor(images)))

    def decode(self, embedding: Floats, prompts: Prompts, multimask: bool = False) -> tuple[Floats, Floats]:
        """As `Backend.decode`."""
        points = None
        if prompts.points is not None and prompts.point_labels is not None:
            points = (self._tensor(prompts.points), self._tensor(prompts.point_labels))
        boxes, masks = (None if given is None else self._tensor(given) for given in (prompts.boxes, prompts.masks))
        with self._running():
            sparse, dense = self._sam.prompt_encoder(points, boxes, masks)
            logits, iou = self._sam.mask_decoder(self._tensor(embedding), self._image_pe, sparse, dense, multimask)
        return _array(logits), _array(iou)

    def decode_boxes(
        self, embedding: Floats, boxes: Floats, windows: Windows | None = None, masks: Floats | None = None
    ) -> tuple[Floats, Floats]:
        """As `Backend.decode_boxes`."""
        inputs = self._tensor(embedding), self._tensor(boxes)
        asked = None if masks is None else self._tensor(masks)
        with self._running():
            if windows is None:
                logits, iou = self._fast_decoder(*inputs, asked)
                return _array(logits), _array(iou)
            positions = positions_in(windows)
            image = positions_first(inputs[0])
            pixels, iou = self._fast_decoder.at_positions(image, inputs[1], self._tensor(positions), asked)
        return logits_of(_array(pixels), positions, len(boxes)), _array(iou)

    def decode_foveated(
        self, embedding: Floats, boxes: Floats, windows: Windows, masks: Floats | None = None
    ) -> tuple[Floats, Floats]:
        """As `Backend.decode_foveated`."""
        fovea = fovea_of(windows)
        where = [self._tensor(array) for array in (boxes, fovea.seen, fovea.counts, fovea.wanted)]
        asked = None if masks is None else self._tensor(masks)
        with self._running():
            pixels, iou = self._foveated_decoder(positions_first(self._tensor(embedding)), *where, asked)
        return logits_of(_array(pixels), positions_in(windows), len(boxes)), _array(iou)

    @contextmanager
    def _running(self) -> Iterator[None]:
        """Without gradients, in the precision. Nothing is kept of casts, which a CUDA graph could not hold on to."""
        lower = LOWER.get(self.precision)
        autocast = torch.autocast(self._device, lower, enabled=lower is not None, cache_enabled=False)
        with torch.inference_mode(), autocast:
            yield

    def _tensor(self, array: NDArray[Any]) -> Tensor:
        """An array on the device that the model is on."""
        return torch.from_numpy(array).to(self._device)


def _array(tensor: Tensor) -> NDArray[np.float32]:
    """A tensor that nobody else holds, as an array; waits for the device to be done with it."""
    array: NDArray[np.float32] = tensor.float().contiguous().cpu().numpy()
    return array
