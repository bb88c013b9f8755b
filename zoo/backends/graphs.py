"""What the runtimes of exported graphs share: making the graphs, and turning prompts into their inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from zoo.backends import Floats, Prompts
from zoo.graphs import LOGITS_SIZE, GraphName, onnx_file
from zoo.sam.model import Sam

#: Runs a loaded graph: inputs by name to outputs in order, as arrays that nothing else holds.
Run = Callable[[Mapping[str, NDArray[Any]]], list[Floats]]
#: Labels of the points that a box's corners are.
TOP_LEFT, BOTTOM_RIGHT, PADDING = 2, 3, -1


class GraphBackend:
    """`Backend` over three ONNX graphs of a model; each is exported and loaded when it is first asked for.

    Args:
        sam: the model.
        precision: as in `Backend`.
        threads: as in `Backend`.
        version: of the runtime.
        load: loads an ONNX file.
        encoder_graph: ONNX file that takes the encoder's place.
    """

    name: str

    def __init__(
        self,
        sam: Sam,
        precision: str,
        threads: int,
        version: str,
        load: Callable[[Path], Run],
        encoder_graph: Path | None,
    ) -> None:
        self.version, self.precision, self.threads = version, precision, threads
        self.spec = sam.spec
        cv2.setNumThreads(threads)

        @cache
        def run(name: GraphName) -> Run:
            if name == "encoder" and encoder_graph:
                return load(encoder_graph)
            return load(onnx_file(sam, name))

        self._graph = run

    def encode(self, images: Floats) -> Floats:
        """As `Backend.encode`; a graph takes one image at a time."""
        encoder = self._graph("encoder")
        return np.concatenate([encoder({"image": image[None]})[0] for image in images])

    def decode(self, embedding: Floats, prompts: Prompts, multimask: bool = False) -> tuple[Floats, Floats]:
        """As `Backend.decode`."""
        logits, iou = self._graph("prompts")({"embedding": embedding, **prompt_inputs(prompts)})
        wanted = slice(1, None) if multimask else slice(0, 1)
        return np.ascontiguousarray(logits[:, wanted]), np.ascontiguousarray(iou[:, wanted])

    def decode_boxes(self, embedding: Floats, boxes: Floats) -> Floats:
        """As `Backend.decode_boxes`."""
        return self._graph("boxes")({"embedding": embedding, "boxes": boxes})[0]


def prompt_inputs(prompts: Prompts) -> dict[str, NDArray[Any]]:
    """Inputs of the graph `prompts` beside the embedding: a box is two labelled points behind the others."""
    points: list[Floats] = []
    labels: list[NDArray[np.int64]] = []
    if prompts.points is not None and prompts.point_labels is not None:
        points.append(prompts.points)
        labels.append(prompts.point_labels)
    batch = len(prompts.masks if prompts.masks is not None else points[0] if points else _some(prompts.boxes))
    if prompts.boxes is not None:
        points.append(prompts.boxes.reshape(-1, 2, 2))
        labels.append(np.tile(np.array([TOP_LEFT, BOTTOM_RIGHT], np.int64), (batch, 1)))
    elif points:
        points.append(np.zeros((batch, 1, 2), np.float32))
        labels.append(np.full((batch, 1), PADDING, np.int64))
    empty = np.zeros((batch, 0, 2), np.float32)
    no_mask = np.zeros((batch, 1, LOGITS_SIZE, LOGITS_SIZE), np.float32)
    return {
        "points": np.concatenate(points, axis=1).astype(np.float32) if points else empty,
        "labels": np.concatenate(labels, axis=1) if labels else np.zeros((batch, 0), np.int64),
        "mask": no_mask if prompts.masks is None else prompts.masks,
        "has_mask": np.array([prompts.masks is not None], np.float32),
    }


def _some(boxes: Floats | None) -> Floats:
    """Boxes that `Prompts` has made sure of."""
    if boxes is None:
        raise RuntimeError("prompts without boxes, points and masks")
    return boxes
