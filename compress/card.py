"""The card beside an exported graph: whose it is, what it takes, how it was made and checked."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from zoo.errors import InputError
from zoo.files import sha256_of, whole_file, writing
from zoo.registry import EncoderSpec

CARD_FILE, GRAPH_FILE = "candidate.json", "encoder.onnx"
#: Counts changes of what graphs take or give: 2 has embeddings by position where the decoder reads off positions.
SCHEMA = 2


@dataclass(frozen=True)
class CandidateCard:
    """What `export` and `quantize` write beside the graphs.

    Attributes:
        encoder: name in the registry.
        weights: checkpoint, as its path is from the card's folder, weight card or `random:SEED` that the graph was made
            of.
        weights_sha256: of these.
        variant: `reparam`; `int8-METHOD`; or `int8-METHOD-16float`, where so many layers were left in float.
        backend: runtime that it was made for.
        precision: of the encoder.
        file_sha256: of the encoder's graph.
        spec: what surrounds the encoder.
        opset: of the graph.
        inputs: shape by name; a string is a dimension of any size.
        outputs: as `inputs`.
        versions: of the packages that made it.
        checks: figures of the comparison with the model it was made of.
        decoder_sha256: of the other graphs, by name.
        quantisation: how it was quantised and whether that was worth it; empty for float graphs.
        schema: of this card.
    """

    encoder: str
    weights: str | None
    weights_sha256: str
    variant: str
    backend: str
    precision: str
    file_sha256: str
    spec: EncoderSpec
    opset: int
    inputs: dict[str, list[int | str]]
    outputs: dict[str, list[int | str]]
    versions: dict[str, str]
    checks: dict[str, float]
    decoder_sha256: dict[str, str]
    quantisation: dict[str, Any] = field(default_factory=dict)
    schema: int = SCHEMA


def withdraw_card(folder: Path) -> None:
    """Makes a candidate's folder ready to be written: what it holds is no candidate before it has its card again.

    Raises:
        InputError: no room or no right to write.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / CARD_FILE).unlink(missing_ok=True)


def write_card(card: CandidateCard, folder: Path) -> None:
    """Writes the card into a candidate's folder.

    Raises:
        InputError: no room or no right to write.
    """
    with whole_file(folder / CARD_FILE) as part:
        part.write_text(json.dumps(asdict(card), indent=2) + "\n", encoding="utf-8")


def read_card(folder: Path) -> CandidateCard:
    """The card of a candidate's folder.

    Raises:
        InputError: no card there, or none that this version reads.
    """
    path = folder / CARD_FILE
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if (schema := found["schema"]) != SCHEMA:
            expected = f"schema {SCHEMA}, as `export` and `quantize` of this version write it: make it anew"
            raise InputError(path, f"a card of schema {schema}", expected)
        spec = EncoderSpec(**{**found["spec"], "reference_cost": None})
        card = CandidateCard(**{**found, "spec": spec})
        if not isinstance(card.decoder_sha256, dict) or not isinstance(card.quantisation, dict):
            raise TypeError("decoder_sha256 and quantisation are no objects")
    except FileNotFoundError as error:
        raise InputError(path, "no such file", "a folder that `export` or `quantize` wrote") from error
    except InputError:
        raise
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(path, f"no candidate's card ({error})", f"JSON of schema {SCHEMA}") from error
    return card


def path_from(folder: Path, weights: str | None) -> str | None:
    """Weights as a card in `folder` names them: of a file, the path from there, so that both are moved together."""
    if weights is None or not Path(weights).is_file():
        return weights
    try:
        return Path(os.path.relpath(Path(weights).resolve(), folder.resolve())).as_posix()
    except ValueError:
        # On another drive of Windows.
        return Path(weights).name


def weights_of(folder: Path, card: CandidateCard) -> str | None:
    """The checkpoint that a card in `folder` names, as seen from the working directory; other weights as they are."""
    if card.weights is None or not (folder / card.weights).is_file():
        return card.weights
    return str((folder / card.weights).resolve())


def is_made_of(folder: Path, card: CandidateCard, weights: str | None) -> bool:
    """Whether `weights` are those that the graphs in `folder` were made of, by their name or by a file's sha256."""
    if weights in (card.weights, weights_of(folder, card)):
        return True
    return weights is not None and Path(weights).is_file() and is_of_file(card, Path(weights))


def is_of_file(card: CandidateCard, weights: Path) -> bool:
    """Whether a checkpoint is, byte by byte, the one that a card tells of."""
    return sha256_of(weights) == card.weights_sha256


def checked_graph(folder: Path, card: CandidateCard) -> Path:
    """The encoder's graph of a candidate's folder.

    Raises:
        InputError: it is missing; it or another graph there is not the one that the card was written for.
    """
    path = folder / GRAPH_FILE
    if not path.is_file():
        raise InputError(path, "no such file", "the graph beside its card")
    decoder = {folder / f"{name}.onnx": expected for name, expected in card.decoder_sha256.items()}
    for graph, expected in {path: card.file_sha256, **decoder}.items():
        if graph.is_file() and (digest := sha256_of(graph)) != expected:
            raise InputError(graph, f"sha256 {digest}", f"{expected}, as its card says")
    return path
