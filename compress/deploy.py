"""A candidate's folder in its runtime, as fast as can be: without torch where the folder holds all graphs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import click

from bench.candidate import Recipe
from bench.machine import lacks_vnni
from compress.card import CandidateCard, checked_graph, is_made_of, is_of_file, read_card, weights_of
from zoo.backends import Backend, is_quantised, open_graphs
from zoo.backends.graphs import GraphFolder
from zoo.cores import usable_cores
from zoo.errors import InputError

#: For threads: as many as there are cores where the runtime is opened.
ALL_CORES = 0


def recipe_of(
    folder: Path,
    weights: str | None = None,
    backend: str | None = None,
    threads: int = 2,
    precision: str | None = None,
) -> Recipe:
    """The recipe of a candidate that `export` or `quantize` wrote.

    Args:
        folder: with the card and the graph.
        weights: checkpoint of the decoder; by default the one that the card names.
        backend: runtime; by default the card's.
        threads: that one operator may use.
        precision: that the runtime offers for such a graph; by default the card's.

    Raises:
        InputError: no card, or not one of this format; a precision of int8 for a graph in float, or the other way; a
            file of other weights.
    """
    card = read_card(folder)
    if precision is not None and is_quantised(precision) != is_quantised(card.precision):
        expected = "int8 or int8+bf16" if is_quantised(card.precision) else "fp32, bf16 or fp16"
        raise InputError(folder, f"precision {precision} for a graph in {card.precision}", expected)
    if weights is not None and Path(weights).is_file() and not is_of_file(card, Path(weights)):
        raise InputError(
            weights, "other weights than the candidate was made of", f"those, or an export anew to {folder}"
        )
    name = f"{card.variant}-{card.file_sha256[:8]}"
    decoder = weights_of(folder, card) if weights is None else weights
    return Recipe(
        card.encoder,
        decoder,
        name,
        backend or card.backend,
        precision or card.precision,
        threads,
        folder=str(folder),
        calibrated_with=tuple(card.quantisation.get("modalities", ())),
        doubts=tuple(f"{folder}: {doubt}" for doubt in _doubts(card)),
    )


def _doubts(card: CandidateCard) -> Iterator[str]:
    """What speaks against using a candidate, or using it here."""
    if card.quantisation.get("gate", {}).get("holds") is False:
        yield f"its card says: {card.quantisation.get('verdict', 'the gate does not hold')}"
    if is_quantised(card.precision) and not card.quantisation.get("reduced_range") and lacks_vnni():
        yield "weights of 8 bits, whose sums may saturate on this CPU, which lacks VNNI: `quantize` it on this machine"


def open_backend(recipe: Recipe) -> Backend:
    """The runtime that a recipe describes, ready to segment; of an encoder that cannot be folded as trained.

    Raises:
        InputError: as `compress.build.build_candidate`.
    """
    if recipe.folder:
        folder = Path(recipe.folder)
        card = read_card(folder)
        files = GraphFolder(folder, card.spec)
        if files.is_whole and is_made_of(folder, card, recipe.weights):
            checked_graph(folder, card)
            return open_graphs(recipe.backend, files, recipe.precision, recipe.threads)
    try:
        from compress.build import build_as_can_be
    except ImportError as error:
        if not recipe.folder:
            raise
        found = f"graphs of another version or of other weights, and nothing to make them with ({error})"
        raise InputError(recipe.folder, found, "graphs that `export` of this version wrote, or torch") from error

    return build_as_can_be(recipe, partial(click.echo, err=True)).backend


@dataclass(frozen=True)
class OpenBackend:
    """Opens a recipe's runtime; equal where recipes are, and can be sent to another process.

    Attributes:
        recipe: of the candidate; with `ALL_CORES` for threads all of the machine that it is opened on.
    """

    recipe: Recipe

    def __call__(self) -> Backend:
        """As `open_backend`."""
        threads = self.recipe.threads or usable_cores()
        return open_backend(replace(self.recipe, threads=threads))
