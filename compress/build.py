"""From a recipe to a candidate that can be measured or used."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from bench.candidate import Candidate, Recipe
from compress.card import checked_graph, read_card
from compress.reparam import UnfoldableError, reparameterise
from zoo.backends import create_backend
from zoo.errors import InputError, unknown_name
from zoo.registry import create_encoder, create_sam, encoder_spec
from zoo.sam.model import Sam
from zoo.weights import MismatchError, load_card_or_file, read_checkpoint, seeded
from zoo.weights.cards import locate
from zoo.weights.detect import fitting

#: `train`: the graph as trained. `reparam`: BatchNorms and parallel branches folded.
VARIANTS = ("train", "reparam")


def build_candidate(recipe: Recipe) -> Candidate:
    """Makes the candidate that a recipe describes.

    Raises:
        UnfoldableError: `reparam` of an encoder that cannot be folded.
        InputError: an unknown name, or weights that do not fit.
    """
    if recipe.folder:
        return _exported(recipe, Path(recipe.folder))
    if recipe.variant not in VARIANTS:
        raise unknown_name("variant", recipe.variant, VARIANTS)
    sam = _sam(recipe)
    if sam.weights is None:
        raise RuntimeError("create_sam left the weights without an identity")
    backend = create_backend(recipe.backend, sam, recipe.precision, recipe.threads)
    return Candidate(recipe, sam.weights, sam, backend)


def build_as_can_be(recipe: Recipe, tell: Callable[[str], None]) -> Candidate:
    """As `build_candidate`, but as trained where the encoder cannot be folded: it computes the same, only slower.

    Args:
        recipe: of the candidate.
        tell: is told of it in a line.

    Raises:
        InputError: as `build_candidate`.
    """
    try:
        return build_candidate(recipe)
    except UnfoldableError as error:
        tell(f"{recipe.encoder} is used as trained, without folding: {error.found}, the first {error.where}")
        return build_candidate(replace(recipe, variant="train"))


def _exported(recipe: Recipe, folder: Path) -> Candidate:
    """A candidate whose encoder is a graph; its decoder comes from the weights that the graph was made of."""
    card = read_card(folder)
    graph = checked_graph(folder, card)
    try:
        sam = _sam(replace(recipe, encoder=card.encoder, variant="reparam"))
    except UnfoldableError:
        sam = _sam(replace(recipe, encoder=card.encoder, variant="train"))
    if sam.weights is None or sam.weights.sha256 != card.weights_sha256:
        found = f"weights {recipe.weights or 'by default'} with another sha256"
        raise InputError(folder, found, f"those that the graph was made of, sha256 {card.weights_sha256}")
    backend = create_backend(recipe.backend, sam, recipe.precision, recipe.threads, graph)
    return Candidate(recipe, sam.weights, sam, backend)


def _sam(recipe: Recipe) -> Sam:
    """The model with the encoder's graph that the recipe asks for; its weights may be those of that graph already."""
    try:
        sam = create_sam(recipe.encoder, recipe.weights)
    except MismatchError:
        if recipe.variant != "reparam":
            raise
        return _folded_sam(recipe)
    if recipe.variant == "reparam":
        sam.image_encoder = reparameterise(sam.image_encoder, sam.spec.image_size)
    return sam


def unfolded_sam(encoder: str, weights: str) -> Sam:
    """A model as it is trained.

    Args:
        encoder: as in `create_sam`.
        weights: as in `create_sam`.

    Raises:
        InputError: weights that were written after folding, or as `create_sam`.
    """
    try:
        return create_sam(encoder, weights)
    except MismatchError as error:
        state = read_checkpoint(locate(weights)[0]).state
        if not fitting(state, {"reparam": reparameterise}, [encoder]):
            raise
        expected = "weights as trained; quantize, bench and segment take folded ones"
        raise InputError(error.where, f"folded weights of {encoder}", expected) from error


def _folded_sam(recipe: Recipe) -> Sam:
    """A model whose checkpoint was written after folding.

    Raises:
        MismatchError: it does not fit the folded graph either; told of the graph as trained.
    """
    # Random weights that the checkpoint's will replace: published ones of a name's tag would have to be fetched.
    with seeded(0):
        folded = Sam(create_encoder(recipe.encoder, published=False), encoder_spec(recipe.encoder)).eval()
    folded.image_encoder = reparameterise(folded.image_encoder, folded.spec.image_size)
    try:
        folded.weights = load_card_or_file(folded, str(recipe.weights))
    except MismatchError:
        return create_sam(recipe.encoder, recipe.weights)
    return folded
