"""A runtime whose masks are known beforehand."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from zoo.backends import Floats, Prompts, Windows
from zoo.registry import EncoderSpec, encoder_spec


@dataclass
class BoxBackend:
    """Answers each prompt with a mask that fills its box, shrunk by `shrink_px`; remembers what it was asked.

    An embedding holds the slice's mean brightness, so a prompt tells which slice it was decoded on.
    """

    shrink_px: int = 3
    name: str = "box"
    version: str = "0"
    precision: str = "fp32"
    threads: int = 1
    spec: EncoderSpec = field(default_factory=lambda: replace(encoder_spec("repvit"), normalisation="imagenet"))
    weights: str = "none"
    prompts: list[list[float]] = field(default_factory=list)
    means: list[float] = field(default_factory=list)
    beside: list[Floats | None] = field(default_factory=list)

    def encode(self, images: Floats) -> Floats:
        return np.full((1, 1, 1, 1), images.mean(), np.float32)

    def decode(self, embedding: Floats, prompts: Prompts, multimask: bool = False) -> tuple[Floats, Floats]:
        assert prompts.boxes is not None
        logits = np.full((len(prompts.boxes), 1, 256, 256), -1, np.float32)
        self.beside += [None] * len(logits) if prompts.masks is None else list(prompts.masks[:, 0])
        for row, box in zip(logits, prompts.boxes, strict=True):
            self.prompts.append(box.tolist())
            self.means.append(float(embedding[0, 0, 0, 0]))
            x0, y0, x1, y1 = (int(v) for v in box)
            shrink = self.shrink_px
            row[0, y0 + shrink : y1 - shrink + 1, x0 + shrink : x1 - shrink + 1] = 1
        return logits, np.ones((len(logits), 1), np.float32)

    def decode_boxes(
        self, embedding: Floats, boxes: Floats, windows: Windows | None = None, masks: Floats | None = None
    ) -> tuple[Floats, Floats]:
        return self.decode(embedding, Prompts(boxes=boxes, masks=masks))

    def decode_foveated(
        self, embedding: Floats, boxes: Floats, windows: Windows, masks: Floats | None = None
    ) -> tuple[Floats, Floats]:
        return self.decode_boxes(embedding, boxes, windows, masks)
