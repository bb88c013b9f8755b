"""Writing files that are either whole or not there, and telling them apart."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import secrets
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import portalocker

from zoo.errors import InputError

#: What can be written to.
WRITTEN = "a folder with space left"
#: Names of the files that `whole_file` writes to.
_PART = re.compile(r"\.[0-9a-f]{12}\.part")


@contextmanager
def writing(path: Path, failures: tuple[type[Exception], ...] = (OSError,), expected: str = WRITTEN) -> Iterator[None]:
    """Tells in one line of a file that cannot be written.

    Args:
        path: of the file.
        failures: that say so.
        expected: what would do.

    Raises:
        InputError: no room or no right to write.
    """
    try:
        yield
    except failures as error:
        raise InputError(path, f"no room or no right to write ({error})", expected) from error


@contextmanager
def whole_file(
    path: Path, failures: tuple[type[Exception], ...] = (OSError,), expected: str = WRITTEN
) -> Iterator[Path]:
    """A path to write to, which takes the place of `path` when the block ends well and is removed when it does not.

    The rights are those of any new file, whoever writes it: safetensors would let nobody but its owner read it.

    Args:
        path: of the file; its folder is made if it is not there.
        failures: as in `writing`.
        expected: likewise.

    Raises:
        InputError: no room or no right to write.
    """
    # A name that nobody can foresee: a link that lies in wait would be written through.
    part = path.with_name(f".{secrets.token_hex(6)}.part")
    with writing(path, failures, expected):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            part.touch(exist_ok=False)
            rights = stat.S_IMODE(part.stat().st_mode)
            yield part
            # Only then: on some shared folders a file is another user's from the beginning.
            if stat.S_IMODE(part.stat().st_mode) != rights:
                part.chmod(rights)
            part.replace(path)
        finally:
            with contextlib.suppress(FileNotFoundError):
                part.unlink()


def remove_parts(folder: Path) -> None:
    """Removes what `whole_file` has left in a folder where it was killed; nobody else may be writing there.

    Raises:
        InputError: no right to remove it.
    """
    with writing(folder):
        for path in folder.iterdir():
            if _PART.fullmatch(path.name):
                path.unlink()


def append_json(path: Path, record: Mapping[str, Any]) -> None:
    """Appends one line to `path` and syncs it: after a crash a record is there whole, or absent.

    The line goes out in one `write` to a file opened for appending and locked against other writers. Where an earlier
    crash tore the last line, the new record starts on a line of its own.

    Raises:
        ValueError: a number is NaN or infinite (JSON has no such number).
        InputError: no room for all of it, no right, or no lock; the file is as it was.
    """
    line = json.dumps(record, allow_nan=False, separators=(",", ":")) + "\n"
    with writing(path, (OSError, portalocker.LockException)):
        path.parent.mkdir(parents=True, exist_ok=True)
        _append(path, line)


def _append(path: Path, line: str) -> None:
    with portalocker.Lock(path, "a+b", buffering=0, flags=portalocker.LOCK_EX) as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(size - 1, 0))
        torn = file.read(1) not in (b"", b"\n")
        whole = (("\n" if torn else "") + line).encode()
        if file.write(whole) != len(whole):
            # Where there is room for a part, that is written, without an error.
            file.truncate(size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        os.fsync(file.fileno())


def read_json(path: Path) -> Iterator[dict[str, Any]]:
    """Records of a JSON-lines file, none where it is missing; a line that a kill has torn is passed over."""
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        with contextlib.suppress(ValueError):
            if isinstance(record := json.loads(line), dict):
                yield record


def files_below(root: Path) -> list[Path]:
    """A file by itself, or those of a folder and its subfolders, linked ones too, but for hidden folders; sorted.

    A folder that several links lead to is looked into once.
    """
    if not root.is_dir():
        return [root] if root.exists() else []
    found, seen = [], {_identity(root)}
    for folder, below, names in os.walk(root, followlinks=True):
        # Links last, so that a folder's own path is taken where both are met.
        inner = sorted((Path(folder, name) for name in below if not name.startswith(".")), key=_links_last)
        below.clear()
        for path in inner:
            if (identity := _identity(path)) not in seen:
                seen.add(identity)
                below.append(path.name)
        found += [Path(folder, name) for name in names]
    return sorted(found)


def _links_last(path: Path) -> tuple[bool, Path]:
    return path.is_symlink(), path


def _identity(folder: Path) -> tuple[int, int]:
    known = folder.stat()
    return known.st_dev, known.st_ino


def sha256_of(path: Path) -> str:
    """Hex sha256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def check_writable(path: Path) -> None:
    """Makes the folder of `path` and, where there is none, the file, so that it is known before anything is computed.

    Raises:
        InputError: nothing can be appended.
    """
    with writing(path, expected="a file that can be appended to"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.open("ab").close()


def check_folder(folder: Path) -> None:
    """Makes a folder and, for a moment, a file in it, so that it is known before anything is computed.

    Raises:
        InputError: nothing can be written into it.
    """
    with writing(folder, expected="a folder that can be written"):
        folder.mkdir(parents=True, exist_ok=True)
        TemporaryFile(dir=folder).close()
