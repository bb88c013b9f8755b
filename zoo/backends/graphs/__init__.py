"""Runtimes of exported graphs: which graphs there are, where they come from, and prompts as their inputs.

A runtime is one file of this folder. Nothing here imports torch, so that a folder of graphs is segmented with at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from zoo.backends import Floats, Prompts, Windows
from zoo.errors import InputError
from zoo.fovea import fovea_of
from zoo.layout import by_position, channels_first, channels_last
from zoo.registry import EMBEDDING_SIZE, EncoderSpec
from zoo.transforms import LOW_RES_PX
from zoo.windows import logits_of, positions_in

if TYPE_CHECKING:
    from zoo.sam.model import Sam

#: Names of a model's graphs, which `zoo.onnx_export` makes.
GraphName = Literal["encoder", "boxes", "windows", "masks", "fovea", "fovea_masks", "prompts"]
GRAPHS: tuple[GraphName, ...] = get_args(GraphName)
#: The graph that takes masks beside the boxes of another.
BESIDE_MASKS: Mapping[GraphName, GraphName] = {"windows": "masks", "fovea": "fovea_masks"}
#: Runs a loaded graph: inputs by name to outputs in order, as arrays that its next call may write again.
Run = Callable[[Mapping[str, NDArray[Any]]], list[Floats]]
#: Labels of the points that a box's corners are.
TOP_LEFT, BOTTOM_RIGHT, PADDING = 2, 3, -1


class GraphFiles(Protocol):
    """The ONNX files of a model."""

    @property
    def spec(self) -> EncoderSpec:
        """What surrounds the encoder."""
        ...

    @property
    def weights(self) -> str:
        """As in `Backend`."""
        ...

    def path(self, name: GraphName) -> Path:
        """The file of one graph."""
        ...


@dataclass(frozen=True)
class GraphFolder:
    """Graphs that lie in a folder.

    Attributes:
        folder: with `encoder.onnx` and the like, one of each of `GRAPHS`.
        spec: of the encoder.
    """

    folder: Path
    spec: EncoderSpec

    @property
    def weights(self) -> str:
        """As in `Backend`."""
        return str(self.folder)

    @property
    def is_whole(self) -> bool:
        """Whether all graphs are there."""
        return all((self.folder / f"{name}.onnx").is_file() for name in GRAPHS)

    def path(self, name: GraphName) -> Path:
        """The file of one graph.

        Raises:
            InputError: it is missing.
        """
        path = self.folder / f"{name}.onnx"
        if not path.is_file():
            raise InputError(path, "no such file", "the graphs that `export` writes")
        return path


@dataclass(frozen=True)
class ExportedOnDemand:
    """Graphs of a model in torch, each exported when it is first asked for.

    Attributes:
        sam: the model.
        encoder_graph: ONNX file that takes the encoder's place.
    """

    sam: Sam
    encoder_graph: Path | None = None

    @property
    def spec(self) -> EncoderSpec:
        """What surrounds the encoder."""
        return self.sam.spec

    @property
    def weights(self) -> str:
        """As in `Backend`."""
        return self.sam.weights_name

    def path(self, name: GraphName) -> Path:
        """The file of one graph, in the cache folder."""
        from zoo.onnx_export import onnx_file

        return self.encoder_graph if name == "encoder" and self.encoder_graph else onnx_file(self.sam, name)


class GraphBackend:
    """`Backend` over a model's graphs; each is loaded when it is first asked for.

    Args:
        files: of the graphs.
        precision: as in `Backend`.
        threads: as in `Backend`.
        version: of the runtime.
        load: loads an ONNX file.
    """

    name: str

    def __init__(
        self, files: GraphFiles, precision: str, threads: int, version: str, load: Callable[[Path], Run]
    ) -> None:
        self.version, self.precision, self.threads = version, precision, threads
        self.spec, self.weights = files.spec, files.weights
        cv2.setNumThreads(threads)

        @cache
        def run(name: GraphName) -> Run:
            return load(files.path(name))

        self._graph = run

    def encode(self, images: Floats) -> Floats:
        """As `Backend.encode`, channels last in memory; a graph takes one image at a time."""
        encoder = self._graph("encoder")
        embeddings = [channels_last(encoder({"image": image[None]})[0]) for image in images]
        return embeddings[0] if len(embeddings) == 1 else np.concatenate(embeddings)

    def decode(self, embedding: Floats, prompts: Prompts, multimask: bool = False) -> tuple[Floats, Floats]:
        """As `Backend.decode`."""
        logits, iou = self._graph("prompts")({"embedding": channels_first(embedding), **prompt_inputs(prompts)})
        wanted = slice(1, None) if multimask else slice(0, 1)
        return logits[:, wanted].copy(), iou[:, wanted].copy()

    def decode_boxes(
        self, embedding: Floats, boxes: Floats, windows: Windows | None = None, masks: Floats | None = None
    ) -> tuple[Floats, Floats]:
        """As `Backend.decode_boxes`."""
        if windows is None and masks is None:
            logits, iou = self._graph("boxes")({"embedding": channels_first(embedding), "boxes": boxes})
            return logits.copy(), iou.copy()
        positions = np.arange(len(boxes) * EMBEDDING_SIZE**2) if windows is None else positions_in(windows)
        return self._read_off("windows", embedding, boxes, masks, positions, {"positions": positions})

    def decode_foveated(
        self, embedding: Floats, boxes: Floats, windows: Windows, masks: Floats | None = None
    ) -> tuple[Floats, Floats]:
        """As `Backend.decode_foveated`."""
        return self._read_off("fovea", embedding, boxes, masks, positions_in(windows), vars(fovea_of(windows)))

    def _read_off(
        self,
        name: GraphName,
        embedding: Floats,
        boxes: Floats,
        masks: Floats | None,
        positions: NDArray[np.int64],
        where: Mapping[str, NDArray[Any]],
    ) -> tuple[Floats, Floats]:
        """Masks at some positions, by a graph that is told `where` these are, or the one that takes masks, too."""
        inputs = {"embedding": by_position(embedding), "boxes": boxes, **where}
        if masks is not None:
            name, inputs["masks"] = BESIDE_MASKS[name], masks
        pixels, iou = self._graph(name)(inputs)
        return logits_of(pixels, positions, len(boxes)), iou.copy()


def refusal(path: Path, runtime: str, error: Exception) -> InputError:
    """What to raise of a graph that a runtime, named with its version, does not take."""
    found = f"a graph that it refuses ({' '.join(str(error).split())})"
    return InputError(path, found, f"a graph that {runtime} runs; a newer one may, or another --backend")


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
    no_mask = np.zeros((batch, 1, LOW_RES_PX, LOW_RES_PX), np.float32)
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
