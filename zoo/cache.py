"""A folder for what is expensive to make and can be made again: exported graphs, compiled models."""

from __future__ import annotations

import atexit
import hashlib
import os
import shutil
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING

from zoo.errors import InputError
from zoo.files import check_folder, sha256_of, whole_file, writing
from zoo.notes import note
from zoo.packages import installed_versions

if TYPE_CHECKING:
    from torch import nn

#: Folder of the cache, instead of the user's own.
FOLDER_VARIABLE = "REPMEDSAM_CACHE"
#: Set where another one is used for the time being.
TEMPORARY_VARIABLE = "REPMEDSAM_TEMPORARY_CACHE"
EXPECTED = f"a folder with space left; {FOLDER_VARIABLE} may name another"
#: Whose releases change graphs: they hold layers, or export them.
PACKAGES = ("torch", "timm", "onnx", "onnxscript")


def cache_folder() -> Path:
    """`$REPMEDSAM_CACHE`, or `rep-medsam` in the user's cache folder; a temporary one for a user without a home."""
    if folder := os.environ.get(FOLDER_VARIABLE):
        return Path(folder)
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rep-medsam"
    except RuntimeError as error:
        return _temporary_folder(error)


def _to_write_to() -> Path:
    """The cache's folder, or a temporary one where the user's own cannot be written: a container's may be read-only."""
    if named := os.environ.get(FOLDER_VARIABLE) or os.environ.get(TEMPORARY_VARIABLE):
        return Path(named)
    folder = cache_folder()
    try:
        check_folder(folder)
    except InputError as error:
        return _temporary_folder(error)
    return folder


def _temporary_folder(reason: Exception) -> Path:
    """Of this process and those that it starts from then on, removed at its end.

    Raises:
        InputError: there is no place for one.
    """
    if folder := os.environ.get(TEMPORARY_VARIABLE):
        return Path(folder)
    note(f"{reason}; graphs are made anew for this run, unless {FOLDER_VARIABLE} names a folder")
    with writing(Path(FOLDER_VARIABLE), expected=EXPECTED):
        folder = mkdtemp(prefix="rep-medsam.")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.environ[TEMPORARY_VARIABLE] = folder
    return Path(folder)


def cached_folder(name: str) -> Path:
    """A folder of the cache for what a runtime keeps of its own; made if it is not there.

    Raises:
        InputError: the cache cannot be written.
    """
    path = _to_write_to() / name
    with writing(path, expected=EXPECTED):
        path.mkdir(parents=True, exist_ok=True)
    return path


def cached_file(name: str, module: nn.Module, make: Callable[[Path], None], *facts: object) -> Path:
    """The file that `make` writes for `module`, made once for its weights, structure, code and `facts`.

    Its sha256 is kept beside it; a damaged file is made anew.

    Args:
        name: what the file is called; its suffix stays.
        module: what it is made of.
        make: writes the file to the path it is given.
        facts: whatever else the file depends on.

    Raises:
        InputError: the cache cannot be written.
    """
    digest = hashlib.sha256(f"{_versions()} {_zoo_digest()} {_class_digests(module)} {facts} {module!r}".encode())
    for key, value in sorted(module.state_dict().items()):
        digest.update(key.encode())
        digest.update(value.detach().contiguous().numpy().tobytes())
    path = cache_folder() / f"{Path(name).stem}-{digest.hexdigest()[:20]}{Path(name).suffix}"
    if not _is_intact(path):
        path = _to_write_to() / path.name
    if not _is_intact(path):
        with whole_file(path, expected=EXPECTED) as part:
            make(part)
            made_sha256 = sha256_of(part)
        with whole_file(_sha256_file(path), expected=EXPECTED) as part:
            part.write_text(made_sha256, encoding="ascii")
    return path


def _sha256_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _is_intact(path: Path) -> bool:
    """Whether a file is there and has the hash that it was made with."""
    try:
        return _sha256_file(path).read_bytes() == sha256_of(path).encode()
    except OSError:  # or its folder may not be looked into
        return False


@cache
def _versions() -> dict[str, str]:
    return installed_versions(PACKAGES)


@cache
def _zoo_digest() -> str:
    """Of the zoo's sources: graphs of older code are not taken for today's."""
    digest = hashlib.sha256()
    for source in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()


def _class_digests(module: nn.Module) -> list[str]:
    """Of the files that the classes of all modules within `module` are written in, which may be a plugin's."""
    classes = {cls for part in module.modules() for cls in type(part).__mro__}
    files = {getattr(sys.modules.get(cls.__module__), "__file__", None) for cls in classes}
    return sorted(sha256_of(Path(file)) for file in files if file and Path(file).is_file())
