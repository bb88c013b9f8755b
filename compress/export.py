"""Exporting a model as ONNX graphs that stock ONNX Runtime runs, checked against the model."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from bench.candidate import Candidate
from bench.machine import package_versions
from compress.card import GRAPH_FILE, CandidateCard, path_from, withdraw_card, write_card
from zoo.backends import Backend, Floats, Prompts
from zoo.backends.graphs import GRAPHS, GraphName, Run, prompt_inputs
from zoo.backends.graphs.onnx_runtime import load_session
from zoo.errors import InputError
from zoo.files import check_folder, sha256_of, whole_file
from zoo.fovea import fovea_of
from zoo.layout import by_position
from zoo.onnx_export import OPSET, onnx_file
from zoo.registry import EMBEDDING_SIZE, EncoderSpec
from zoo.sam.model import Sam
from zoo.transforms import MASK_LOGIT
from zoo.windows import logits_of, positions_in

#: ‖a-b‖/‖b‖ that an exported float graph may differ by.
TOLERANCE = 1e-4


def relative_error(found: NDArray[Any], expected: NDArray[Any]) -> float:
    """‖a-b‖/‖b‖ in float64."""
    reference = expected.astype(np.float64)
    return float(np.linalg.norm(found - reference) / np.linalg.norm(reference))


def cosine(found: NDArray[Any], expected: NDArray[Any]) -> float:
    """Cosine of the angle between two arrays as vectors."""
    a, b = found.astype(np.float64).ravel(), expected.astype(np.float64).ravel()
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def export_candidate(candidate: Candidate, folder: Path, images: Sequence[Floats]) -> CandidateCard:
    """Writes `encoder.onnx` and the other graphs of `GRAPHS`, and the card `candidate.json`.

    Args:
        candidate: in torch; its graph (as trained or folded) is what is exported.
        folder: made if it is not there.
        images: normalised inputs (1, 3, S, S) to check with, beside random ones.

    Raises:
        InputError: the graphs do not compute what the model does; no room or no right to write.
    """
    graphs = export_graphs(candidate.sam)
    check_folder(folder)
    checks = check_graphs(candidate, graphs, images)
    # Only now: what the folder holds may be a good candidate.
    withdraw_card(folder)
    copy_graphs(graphs, folder)
    card = describe(candidate, folder, candidate.recipe.variant, "onnxruntime", "fp32", checks)
    write_card(card, folder)
    return card


def export_graphs(sam: Sam) -> dict[GraphName, Path]:
    """The float graphs of a model, exported to the cache unless it holds them.

    Raises:
        InputError: a graph that cannot be exported; no room or no right to write.
    """
    return {name: onnx_file(sam, name) for name in GRAPHS}


def copy_graphs(graphs: Mapping[GraphName, Path], folder: Path) -> None:
    """Copies graphs into `folder`, under their names; it is made if it is not there.

    Raises:
        InputError: no room or no right to write.
    """
    for name, source in graphs.items():
        with whole_file(folder / f"{name}.onnx") as part:
            shutil.copyfile(source, part)


def describe(
    candidate: Candidate,
    folder: Path,
    variant: str,
    backend: str,
    precision: str,
    checks: Mapping[str, float],
    quantisation: Mapping[str, Any] | None = None,
) -> CandidateCard:
    """The card of the graphs in `folder`."""
    graph = onnx.load(folder / GRAPH_FILE, load_external_data=False).graph
    return CandidateCard(
        encoder=candidate.recipe.encoder,
        weights=path_from(folder, candidate.recipe.weights),
        weights_sha256=candidate.weights.sha256,
        variant=variant,
        backend=backend,
        precision=precision,
        file_sha256=sha256_of(folder / GRAPH_FILE),
        decoder_sha256={name: sha256_of(folder / f"{name}.onnx") for name in GRAPHS if name != "encoder"},
        spec=candidate.sam.spec,
        opset=OPSET,
        inputs={value.name: _shape(value) for value in graph.input},
        outputs={value.name: _shape(value) for value in graph.output},
        versions=package_versions(),
        checks=dict(checks),
        quantisation=dict(quantisation or {}),
    )


def _shape(value: onnx.ValueInfoProto) -> list[int | str]:
    return [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]


def check_graphs(candidate: Candidate, graphs: Mapping[GraphName, Path], images: Sequence[Floats]) -> dict[str, float]:
    """Largest relative error of each graph, on random and on real images, against torch.

    Raises:
        InputError: one is above `TOLERANCE`.
    """
    backend, spec = candidate.backend, candidate.sam.spec
    run: dict[GraphName, Run] = {
        name: load_session(path, backend.threads) for name, path in graphs.items() if name != "encoder"
    }
    errors = check_encoder(candidate, graphs["encoder"], images)
    embedding = backend.encode(_random_image(spec))
    boxes = np.array([[0.2, 0.3, 0.6, 0.7], [0.1, 0.1, 0.9, 0.5]], np.float32) * spec.prompt_frame
    for count in (1, 2):
        prompts = Prompts(boxes=boxes[:count])
        expected, _ = backend.decode(embedding, prompts)
        fast = run["boxes"]({"embedding": embedding, "boxes": boxes[:count]})[0]
        plain = run["prompts"]({"embedding": embedding, **prompt_inputs(prompts)})[0][:, :1]
        errors[f"boxes_{count}"] = relative_error(fast, expected)
        errors[f"prompts_{count}"] = relative_error(plain, expected)
        masks = np.where(expected > 0, np.float32(MASK_LOGIT), np.float32(-MASK_LOGIT))
        beside, _ = backend.decode(embedding, Prompts(boxes=boxes[:count], masks=masks))
        everywhere = np.arange(count * EMBEDDING_SIZE**2)
        inputs: dict[str, NDArray[Any]] = {
            "embedding": by_position(embedding),
            "boxes": boxes[:count],
            "positions": everywhere,
        }
        pixels = run["windows"](inputs)[0]
        errors[f"windows_{count}"] = relative_error(logits_of(pixels, everywhere, count), expected)
        pixels = run["masks"](inputs | {"masks": masks})[0]
        errors[f"masks_{count}"] = relative_error(logits_of(pixels, everywhere, count), beside)
        errors |= _check_fovea(backend, run, embedding, boxes[:count], masks)
    _check(errors, graphs["encoder"].parent)
    return errors


def _check_fovea(
    backend: Backend, run: Mapping[GraphName, Run], embedding: Floats, boxes: Floats, masks: Floats
) -> dict[str, float]:
    """Relative errors of the graphs with a fovea, around windows of which one is at a corner."""
    windows = np.array([[12, 20, 40, 44], [50, 0, EMBEDDING_SIZE, 9]])[: len(boxes)]
    inputs = {"embedding": by_position(embedding), "boxes": boxes, **vars(fovea_of(windows))}

    def error(pixels: Floats, beside: Floats | None) -> float:
        expected, _ = backend.decode_foveated(embedding, boxes, windows, beside)
        return relative_error(logits_of(pixels, positions_in(windows), len(boxes)), expected)

    return {
        f"fovea_{len(boxes)}": error(run["fovea"](inputs)[0], None),
        f"fovea_masks_{len(boxes)}": error(run["fovea_masks"](inputs | {"masks": masks})[0], masks),
    }


def check_encoder(candidate: Candidate, graph: Path, images: Sequence[Floats]) -> dict[str, float]:
    """Largest relative error of an encoder's float graph, on a random and on real images, against torch.

    Raises:
        InputError: one is above `TOLERANCE`.
    """
    backend = candidate.backend
    run = load_session(graph, backend.threads)
    errors: dict[str, float] = {}
    for kind, chosen in (("random", [_random_image(candidate.sam.spec)]), ("real", images)):
        pairs = [(run({"image": image})[0], backend.encode(image)) for image in chosen]
        errors |= {f"encoder_{kind}": float(np.max([relative_error(*pair) for pair in pairs]))} if pairs else {}
    _check(errors, graph)
    return errors


def _random_image(spec: EncoderSpec) -> Floats:
    return np.random.default_rng(0).random((1, 3, spec.image_size, spec.image_size), np.float32)


def _check(errors: Mapping[str, float], where: Path) -> None:
    if bad := {name: error for name, error in errors.items() if not error <= TOLERANCE}:
        raise InputError(where, f"graphs that differ from the model: {bad}", f"relative errors <= {TOLERANCE}")
