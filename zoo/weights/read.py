"""Reading a checkpoint of any published layout into a flat state dict. No code in the file is run."""

from __future__ import annotations

import json
import pickle
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from zoo.errors import InputError

#: Keys under which training scripts nest the model's state dict.
WRAPPERS = ("model", "state_dict", "model_state_dict")
#: Prefixes that DataParallel, torch.compile and Lightning put before every key.
PREFIXES = ("module.", "_orig_mod.", "model.")


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint's file holds.

    Attributes:
        state: the flat state dict, wrappers and prefixes removed.
        wrappers: what was around it, outermost first, such as `model` or `module.`.
        scalars: numbers and strings beside it, such as `epoch` and `loss`; of safetensors, the metadata.
        beside: names of everything else beside it, such as `optimizer`.
    """

    state: dict[str, Tensor]
    wrappers: tuple[str, ...] = ()
    scalars: dict[str, str] = field(default_factory=dict)
    beside: tuple[str, ...] = ()

    @property
    def takes_mask_prompts(self) -> bool:
        """Whether it says, as `train` and `convert` write it, that it was trained with masks as prompts."""
        try:
            return json.loads(self.scalars["spec"])["mask_prompts"] is True
        except (KeyError, TypeError, ValueError):
            return False


def read_checkpoint(path: Path) -> Checkpoint:
    """Reads a `.safetensors`, `.pth` or `.pt` file; another name is no hindrance, the content tells what it is.

    Raises:
        InputError: missing, empty, damaged, a web page, no checkpoint, pickled objects, keys that clash, tensors that
            are not dense, or NaN.
    """
    if not path.is_file():
        raise InputError(path, "no such file", "a checkpoint (.pth, .pt or .safetensors), a weight card or random:SEED")
    try:
        _refuse_other_files(path)
        checkpoint = _read_safetensors(path) if _is_safetensors(path) else _unwrap(path, _read_torch(path))
    except pickle.UnpicklingError as error:
        raise InputError(path, "pickled Python objects or no checkpoint at all", _SAFE_WAY) from error
    except InputError:
        raise
    except Exception as error:
        # Each damage is met in another place of torch, pickle, zipfile or safetensors.
        reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise InputError(path, f"an unreadable file ({reason})", "a whole checkpoint; fetch it again") from error
    if odd := next((key for key, value in checkpoint.state.items() if not _is_dense(value)), None):
        value = checkpoint.state[odd]
        found = f"{odd}, {value.dtype} {value.layout} on {value.device}"
        raise InputError(path, found, "dense tensors that the file holds, floats of 16 bits or more")
    if bad := [key for key, value in checkpoint.state.items() if _has_nan(value)]:
        raise InputError(path, f"NaN or infinite values in {bad[0]} and {len(bad) - 1} more", "finite weights")
    return checkpoint


_SAFE_WAY = (
    "a dict of tensors: unpickling a whole model would run code from the file; where it was made, "
    "save torch.save(model.state_dict(), FILE) and take that"
)


def _refuse_other_files(path: Path) -> None:
    """Tells apart what downloads leave behind where weights should be."""
    with path.open("rb") as stream:
        head = stream.read(512)
    if not head:
        raise InputError(path, "an empty file", "a checkpoint; fetch it again")
    if re.match(rb"\s*<[!?a-zA-Z]", head) or b"<html" in head.lower():
        raise InputError(path, "a web page (HTML)", "a checkpoint: the download needs a browser or a login")
    if head.startswith(b"version https://git-lfs"):
        raise InputError(path, "a Git LFS pointer", "the file itself: run `git lfs pull` where it was cloned")


def _is_safetensors(path: Path) -> bool:
    """Eight bytes of header length, then the header's JSON; older torch files are zips or begin with a pickle."""
    with path.open("rb") as stream:
        return path.suffix == ".safetensors" or stream.read(9)[8:9] == b"{"


def _read_safetensors(path: Path) -> Checkpoint:
    with safe_open(path, framework="pt") as stream:
        state = {key: stream.get_tensor(key) for key in stream.keys()}  # noqa: SIM118, no mapping
        metadata = dict(stream.metadata() or {})
    state, prefixes = _strip_prefixes(path, state)
    return Checkpoint(state, prefixes, metadata)


def _read_torch(path: Path) -> object:
    with warnings.catch_warnings():
        # torch warns of foreign pickle protocols before it refuses them; the error above says it better.
        warnings.simplefilter("ignore")
        return torch.load(path, "cpu", weights_only=True)


def _unwrap(path: Path, raw: object) -> Checkpoint:
    """Takes the state dict out of the wrappers that training scripts put around it."""
    wrappers: list[str] = []
    beside: dict[str, object] = {}
    while isinstance(raw, Mapping) and (inner := next((w for w in WRAPPERS if isinstance(raw.get(w), Mapping)), None)):
        wrappers.append(inner)
        beside |= {str(key): value for key, value in raw.items() if key != inner}
        raw = raw[inner]
    named = isinstance(raw, Mapping) and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in raw.items())
    if not isinstance(raw, Mapping) or not raw or not named:
        raise InputError(path, f"{type(raw).__name__} without a state dict", "a dict of tensors by name")
    state, prefixes = _strip_prefixes(path, raw)
    scalars = {key: str(value) for key, value in beside.items() if isinstance(value, str | int | float)}
    return Checkpoint(state, (*wrappers, *prefixes), scalars, tuple(sorted(beside.keys() - scalars.keys())))


def _strip_prefixes(path: Path, raw: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The state dict without the prefixes of wrapping modules, and which there were."""
    state: dict[str, Tensor] = {}
    found: list[str] = []
    for key, value in raw.items():
        name = key
        while prefix := next((p for p in PREFIXES if name.startswith(p)), None):
            name = name.removeprefix(prefix)
            if prefix not in found:
                found.append(prefix)
        if name in state:
            raise InputError(path, f"{name!r} twice, as {key!r} and without a prefix", "one tensor of each name")
        state[name] = value
    return state, tuple(found)


def _is_dense(value: Tensor) -> bool:
    plain = value.layout == torch.strided and value.device.type == "cpu" and not value.is_quantized
    return plain and not (value.is_floating_point() and value.itemsize < 2)


def _has_nan(value: Tensor) -> bool:
    return value.is_floating_point() and not bool(value.isfinite().all())
