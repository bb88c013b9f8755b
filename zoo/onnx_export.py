"""The graphs that a runtime needs of a model, as modules to export, and their export to ONNX.

A graph's inputs and outputs are named after what they are; `B` boxes or prompts, `P` points and `N` positions are
dynamic.
"""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import Dim

from zoo.backends.graphs import GraphName
from zoo.cache import cached_file
from zoo.errors import InputError
from zoo.fovea import CELLS, fovea_of
from zoo.registry import EMBEDDING_CHANNELS, EMBEDDING_SIZE
from zoo.sam.fast_decoder import FastDecoder, positions_first
from zoo.sam.foveated_decoder import FoveatedDecoder
from zoo.sam.model import Sam
from zoo.transforms import LOW_RES_PX

#: Of the ONNX operators that the graphs are made of.
OPSET = 20
#: Characters of the exporter's message, which can go on for pages.
MOST_OF_AN_ERROR = 300


@dataclass(frozen=True)
class Graph:
    """A module and what it takes.

    Attributes:
        name: `encoder`: image to embedding. `boxes`: embedding and boxes to one mask a box, by the fast path.
            `windows`: the same, of which only the pixels of some positions of the embedding are read, which it takes by
            position (1, 4096, 256). `masks`: as `windows`, of boxes that each have a mask beside them. `fovea`,
            `fovea_masks`: these two with a fovea.
            `prompts`: embedding, points (boxes are two points of labels 2 and 3) and masks to all four masks a prompt.
        module: in eval mode.
        examples: inputs by name.
        dynamic: dimensions by input's name that may have any size.
        outputs: names.
    """

    name: GraphName
    module: nn.Module
    examples: dict[str, Tensor]
    dynamic: dict[str, dict[int, Any]]
    outputs: tuple[str, ...]


class WindowDecoder(nn.Module):
    """The fast path's masks at some positions of the embedding."""

    def __init__(self, sam: Sam) -> None:
        super().__init__()
        self.decoder = FastDecoder(sam)

    def forward(
        self, embedding: Tensor, boxes: Tensor, positions: Tensor, masks: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """As `FastDecoder.at_positions`."""
        return self.decoder.at_positions(embedding, boxes, positions, masks)


class PromptDecoder(nn.Module):
    """Prompt encoder and mask decoder behind tensors alone: what a prompt lacks is said by labels and a switch."""

    def __init__(self, sam: Sam) -> None:
        super().__init__()
        self.prompt_encoder, self.mask_decoder = sam.prompt_encoder, sam.mask_decoder

    def forward(
        self, embedding: Tensor, points: Tensor, labels: Tensor, mask: Tensor, has_mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """All masks of B prompts on one image.

        Args:
            embedding: (1, 256, 64, 64).
            points: (B, P, 2) as (x, y) in the prompt frame; none beside a mask alone.
            labels: int64 (B, P): 1 foreground, 0 background, -1 padding, 2 and 3 a box's corners.
            mask: logits (B, 1, 256, 256), not looked at where `has_mask` is 0.
            has_mask: float32 (1,), 1 or 0.

        Returns:
            Logits (B, 4, 256, 256), the first for an unambiguous prompt, and predicted IoU (B, 4).
        """
        sparse = self.prompt_encoder.embed_labelled_points(points, labels)
        dense = has_mask * self.prompt_encoder.mask_downscaling(mask)
        dense = dense + (1 - has_mask) * self.prompt_encoder.no_mask_embed.weight[:, :, None, None]
        return self.mask_decoder.all_masks(embedding, self.prompt_encoder.get_dense_pe(), sparse, dense)


def graph_of(sam: Sam, name: GraphName) -> Graph:
    """One of the graphs of a model."""
    size, frame = sam.spec.image_size, sam.spec.prompt_frame
    embedding = torch.zeros(1, EMBEDDING_CHANNELS, EMBEDDING_SIZE, EMBEDDING_SIZE)
    if name == "encoder":
        return Graph(name, sam.image_encoder, {"image": torch.zeros(1, 3, size, size)}, {"image": {}}, ("embedding",))
    boxes = torch.tensor([[0.2, 0.3, 0.6, 0.7], [0.1, 0.1, 0.9, 0.5], [0.4, 0.2, 0.5, 0.4]]) * frame
    if name == "boxes":
        return Graph(
            name,
            FastDecoder(sam).eval(),
            {"embedding": embedding, "boxes": boxes},
            {"embedding": {}, "boxes": {0: Dim("B")}},
            ("logits", "iou"),
        )
    batch, points = Dim("B"), Dim("P")
    masks = torch.zeros(3, 1, LOW_RES_PX, LOW_RES_PX)
    if name != "prompts":
        beside: dict[str, Tensor] = {"masks": masks} if name in ("masks", "fovea_masks") else {}
        foveated = name in ("fovea", "fovea_masks")
        places, sizes = _fovea_examples() if foveated else _position_examples()
        return Graph(
            name,
            (FoveatedDecoder(FastDecoder(sam)) if foveated else WindowDecoder(sam)).eval(),
            {"embedding": positions_first(embedding), "boxes": boxes, **places, **beside},
            {"embedding": {}, "boxes": {0: batch}, **sizes, **{key: {0: batch} for key in beside}},
            ("pixels", "iou"),
        )
    examples = {
        "embedding": embedding,
        "points": boxes.reshape(3, 2, 2).repeat(1, 2, 1),
        "labels": torch.tensor([[1, 0, 2, 3]]).repeat(3, 1),
        "mask": masks,
        "has_mask": torch.zeros(1),
    }
    dynamic = {"embedding": {}, "points": {0: batch, 1: points}, "labels": {0: batch, 1: points}, "mask": {0: batch}}
    return Graph(name, PromptDecoder(sam).eval(), examples, {**dynamic, "has_mask": {}}, ("logits", "iou"))


def _position_examples() -> tuple[dict[str, Tensor], dict[str, dict[int, Any]]]:
    """Examples and dynamic dimensions of what tells `windows` and `masks` where they are asked."""
    return {"positions": torch.arange(1000) * 12}, {"positions": {0: Dim("N")}}


def _fovea_examples() -> tuple[dict[str, Tensor], dict[str, dict[int, Any]]]:
    """Examples and dynamic dimensions of what tells `fovea` and `fovea_masks` what to see, for three boxes."""
    windows = np.array([[10, 20, 30, 40], [5, 5, 15, 10], [0, 50, 40, 64]])
    examples = {name: torch.from_numpy(array) for name, array in vars(fovea_of(windows)).items()}
    batch, seen = Dim("B"), Dim("seen")
    return examples, {"seen": {0: batch, 1: seen}, "counts": {0: batch, 1: seen + CELLS}, "wanted": {0: Dim("N")}}


def onnx_file(sam: Sam, name: GraphName) -> Path:
    """ONNX file of one of a model's graphs, exported once for these weights."""
    # Under a caller's autocast the graph would be one of casts, and be kept as that of float32.
    with torch.autocast("cpu", enabled=False):
        graph, spec = graph_of(sam, name), sam.spec
        # Constants of the graph that no weight of the module tells.
        shapes = {key: tuple(example.shape) for key, example in graph.examples.items()}
        facts = (OPSET, spec.image_size, spec.prompt_frame, shapes)
        return cached_file(f"{name}.onnx", graph.module, lambda path: write_onnx(graph, path), *facts)


def write_onnx(graph: Graph, path: Path) -> None:
    """Exports a graph to one ONNX file by torch's dynamo exporter.

    Raises:
        InputError: it has an operator that ONNX lacks, or depends on values in a way that no graph can.
    """
    try:
        with torch.no_grad(), _quiet():
            program = torch.onnx.export(
                graph.module,
                tuple(graph.examples.values()),
                input_names=list(graph.examples),
                output_names=list(graph.outputs),
                opset_version=OPSET,
                dynamic_shapes=tuple(graph.dynamic[name] for name in graph.examples),
                dynamo=True,
                external_data=False,
                verbose=False,
            )
    except torch.onnx.errors.OnnxExporterError as error:
        found = f"what cannot be exported ({' '.join(str(error.__cause__ or error).split())[:MOST_OF_AN_ERROR]})"
        expected = f"operators that ONNX opset {OPSET} has; the model itself runs with --backend torch or compile"
        raise InputError(f"graph {graph.name}", found, expected) from error
    if program is None:
        raise RuntimeError(f"torch.onnx.export gave no program for the graph {graph.name}")
    program.save(path, external_data=False)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporter says of itself on the way: what it cannot do, it raises."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
