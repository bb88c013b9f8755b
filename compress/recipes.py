"""What `bench` compares, encoders and candidates' folders, as recipes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from bench.candidate import Recipe
from compress.card import is_made_of, read_card
from compress.deploy import recipe_of
from zoo import backends
from zoo.errors import InputError
from zoo.registry import encoder_spec, list_encoders


def encoder_names(encoders: Sequence[str]) -> list[str]:
    """Of the encoders that are asked for, each once; `all` is every one that is registered.

    Raises:
        InputError: there is no such encoder.
    """
    names = list(dict.fromkeys(name for item in encoders for name in (list_encoders() if item == "all" else [item])))
    for name in names:
        encoder_spec(name)
    return names


def weights_by_encoder(weights: Sequence[str], names: Sequence[str]) -> dict[str, list[str]]:
    """The values of --weights by the encoder that they are for, which is empty for random ones of all.

    Args:
        weights: `[NAME=]WEIGHTS` each.
        names: of the encoders that are compared.

    Raises:
        InputError: weights without a name, and not one encoder; or random ones of all, where each has others.
    """
    chosen: dict[str, list[str]] = {}
    for name, path in dict.fromkeys(_split_weights(item, names) for item in weights):
        chosen.setdefault(name, []).append(path)
    if "" in chosen and names and all(name in chosen for name in names):
        expected = f"{names[0]}={chosen[''][0]}, to compare the two"
        raise InputError("--weights", f"{chosen[''][0]} that no encoder takes, as each has its own", expected)
    return chosen


def encoder_recipes(
    names: Sequence[str],
    weights: Mapping[str, Sequence[str]],
    variant: str,
    runtimes: list[tuple[str, str]],
    threads: int,
) -> list[Recipe]:
    """One recipe for each encoder, each weights of it, and each runtime."""
    shipped: Sequence[str | None] = [None]
    return [
        Recipe(name, path, variant, backend, precision, threads)
        for name in names
        for path in weights.get(name) or weights.get("") or shipped
        for backend, precision in runtimes
    ]


def _split_weights(item: str, names: Sequence[str]) -> tuple[str, str]:
    """(NAME, weights) of NAME=PATH, or the only encoder's, or ("", random:SEED) for all."""
    is_file = Path(item).is_file()  # whose path may have any sign
    if (not item or item.endswith("=")) and not is_file:
        raise InputError("--weights", f"{item!r}, which names none", "[NAME=] and a checkpoint, card or random:SEED")
    name, separator, path = item.partition("=")
    if separator and not is_file:
        return name, path
    if item.partition(":")[0] == "random" and not is_file:
        return "", item
    if len(names) != 1:
        raise InputError(
            "--weights", f"{item!r} and {len(names)} encoders", "NAME=PATH, so that it is clear whose it is"
        )
    return names[0], item


def candidate_recipes(
    folders: Sequence[tuple[Path, str | None]],
    weights: Mapping[str, Sequence[str]],
    encoders: Sequence[str],
    threads: int,
    *,
    sweep: bool,
) -> list[Recipe]:
    """Recipes of candidates, in their own precision or another.

    Args:
        folders: and the precision of each, None for its own.
        weights: by the encoder that they are for. A candidate takes those that its graph was made of, and else what its
            card names.
        encoders: that are compared, too, and take the other weights.
        threads: that one operator may use.
        sweep: every precision that fits, where none is named.

    Raises:
        InputError: no candidate, or weights that neither an encoder nor a candidate takes.
    """
    recipes: list[Recipe] = []
    taken = set(encoders)
    for folder, precision in folders:
        card = read_card(folder)
        given = next((path for path in weights.get(card.encoder, ()) if is_made_of(folder, card, path)), None)
        if given:
            taken.add(card.encoder)
        recipe = recipe_of(folder, given, threads=threads, precision=precision)
        alike = backends.alike_here(recipe.backend, recipe.precision) if sweep and not precision else [recipe.precision]
        recipes += [replace(recipe, precision=one) for one in alike]
    if unused := sorted(name for name in weights if name and name not in taken):
        expected = f"one of: {', '.join(encoders)}" if encoders else "those that the candidate was made of"
        raise InputError("--weights", f"weights for {', '.join(unused)} that nothing takes", expected)
    return recipes
