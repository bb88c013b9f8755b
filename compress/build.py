"""From a recipe to a candidate that can be measured or used."""

from __future__ import annotations

from bench.candidate import Candidate, Recipe
from compress.reparam import reparameterise
from zoo.backends import create_backend
from zoo.errors import unknown_name
from zoo.registry import create_sam

#: `train`: the graph as trained. `reparam`: BatchNorms and parallel branches folded.
VARIANTS = ("train", "reparam")


def build_candidate(recipe: Recipe) -> Candidate:
    """Makes the candidate that a recipe describes.

    Raises:
        InputError: an unknown name, or weights that do not fit.
    """
    if recipe.variant not in VARIANTS:
        raise unknown_name("variant", recipe.variant, VARIANTS)
    sam = create_sam(recipe.encoder, recipe.weights)
    if sam.weights is None:
        raise RuntimeError("create_sam left the weights without an identity")
    if recipe.variant == "reparam":
        sam.image_encoder = reparameterise(sam.image_encoder)
    backend = create_backend(recipe.backend, sam, recipe.precision, recipe.threads)
    return Candidate(recipe, sam.weights, sam, backend)
