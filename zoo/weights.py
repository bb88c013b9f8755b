"""Weights: reading checkpoints of every published layout safely, and loading them strictly."""

from __future__ import annotations

import hashlib
import pickle
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from zoo.errors import InputError

#: Keys under which training scripts nest the model's state dict.
WRAPPERS = ("model", "state_dict", "model_state_dict")
#: Prefixes that DataParallel and torch.compile put before every key.
PREFIXES = ("module.", "_orig_mod.")


@dataclass(frozen=True)
class WeightsId:
    """Which weights a model holds.

    Attributes:
        name: the checkpoint's file name, or `random:SEED`.
        sha256: of the file, or of the random state dict's keys and values.
        trained: whether they come from a checkpoint; random weights have no accuracy to speak of.
    """

    name: str
    sha256: str
    trained: bool


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draws torch's CPU random numbers from `seed`, and leaves the caller's generator as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def random_seed_of(weights: str | Path | None) -> int | None:
    """SEED where `weights` is `random:SEED` or None (seed 0); None where it names a checkpoint.

    Raises:
        InputError: `random:` without a whole number.
    """
    if weights is None:
        return 0
    kind, _, seed = str(weights).partition(":")
    if kind != "random":
        return None
    if not (seed or "0").isdigit():
        raise InputError("weights", f"{weights!r}", "random:SEED with a whole number")
    return int(seed or "0")


def identify(module: nn.Module, seed: int) -> WeightsId:
    """Identity of randomly initialised weights."""
    digest = hashlib.sha256()
    for key, value in sorted(module.state_dict().items()):
        digest.update(key.encode())
        digest.update(value.numpy().tobytes())
    return WeightsId(f"random:{seed}", digest.hexdigest(), trained=False)


def load_weights(module: nn.Module, path: Path) -> WeightsId:
    """Loads the checkpoint at `path` into `module` strictly.

    Raises:
        InputError: unreadable file, or keys or shapes that do not fit; nothing is loaded then.
    """
    state = read_state_dict(path)
    expected = module.state_dict()
    if problems := describe_mismatch(expected, state):
        raise InputError(path, problems, f"the {len(expected)} tensors of {type(module).__name__}")
    module.load_state_dict(state, strict=True)
    return WeightsId(path.name, sha256_of(path), trained=True)


def sha256_of(path: Path) -> str:
    """Hex sha256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The flat state dict of a `.safetensors`, `.pth` or `.pt` file, unwrapped; no code in the file is run.

    Raises:
        InputError: missing, empty, truncated, not a checkpoint, pickled objects, or NaN weights.
    """
    if not path.is_file():
        raise InputError(path, "no such file", "a checkpoint (.pth, .pt or .safetensors) or random:SEED")
    try:
        with warnings.catch_warnings():
            # torch warns of foreign pickle protocols before it refuses them; the error below says it better.
            warnings.simplefilter("ignore")
            raw = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(
            path,
            "pickled objects or no checkpoint at all",
            "a state dict of tensors; save one with torch.save(model.state_dict(), FILE)",
        ) from error
    except (SafetensorError, EOFError, RuntimeError, ValueError, OSError, zipfile.BadZipFile) as error:
        reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise InputError(path, f"an unreadable file ({reason})", "a whole checkpoint; fetch it again") from error
    return _unwrap(path, raw)


def _unwrap(path: Path, raw: object) -> dict[str, Tensor]:
    """Takes the state dict out of the wrappers that training scripts put around it."""
    while isinstance(raw, Mapping) and (inner := next((w for w in WRAPPERS if isinstance(raw.get(w), Mapping)), None)):
        raw = raw[inner]
    if not isinstance(raw, Mapping) or not raw or not all(isinstance(v, Tensor) for v in raw.values()):
        raise InputError(path, f"{type(raw).__name__} without a state dict", "a dict of tensors")
    state = {_strip(key): value for key, value in raw.items()}
    if bad := [key for key, value in state.items() if value.is_floating_point() and not value.isfinite().all()]:
        raise InputError(path, f"NaN or infinite values in {bad[0]} and {len(bad) - 1} more", "finite weights")
    return state


def _strip(key: str) -> str:
    for prefix in PREFIXES:
        key = key.removeprefix(prefix)
    return key


def describe_mismatch(expected: Mapping[str, Tensor], found: Mapping[str, Tensor], most: int = 4) -> str:
    """What keeps `found` from loading as `expected`, in one line of at most `most` keys a kind; empty if nothing."""
    missing = sorted(expected.keys() - found.keys())
    unknown = sorted(found.keys() - expected.keys())
    shapes = [
        f"{key} {tuple(found[key].shape)} instead of {tuple(expected[key].shape)}"
        for key in sorted(expected.keys() & found.keys())
        if found[key].shape != expected[key].shape
    ]
    kinds = (("missing", missing), ("unknown", unknown), ("of another shape", shapes))
    return "; ".join(
        f"{len(keys)} {kind}: {', '.join(keys[:most])}{', ...' if len(keys) > most else ''}"
        for kind, keys in kinds
        if keys
    )
