"""Files that are written whole."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from zoo.errors import InputError
from zoo.files import whole_file


@pytest.mark.parametrize(("mask", "rights"), [(0o022, 0o644), (0o027, 0o640)])
@pytest.mark.parametrize(
    "write",
    [
        lambda part: part.write_text("text"),
        lambda part: save_file({"weight": torch.zeros(2)}, part),
        lambda part: torch.save({}, part),
    ],
    ids=["text", "safetensors", "torch"],
)
def test_rights_are_those_of_any_new_file(
    tmp_path: Path, mask: int, rights: int, write: Callable[[Path], object]
) -> None:
    path = tmp_path / "file"
    before = os.umask(mask)
    try:
        with whole_file(path) as part:
            write(part)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == rights


def test_rights_that_are_right_are_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On some shared folders every file is another user's, who alone may change them."""

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(Path, "chmod", refuse)
    with whole_file(tmp_path / "file") as part:
        part.write_text("text")
    assert (tmp_path / "file").read_text() == "text"


def test_what_cannot_be_written_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("before")
    with pytest.raises(InputError, match=r"file: found no room .*No space left.*; expected a folder"), whole_file(path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert [one.name for one in tmp_path.iterdir()] == ["file"]
    assert path.read_text() == "before"


def test_a_name_may_be_as_long_as_a_file_system_takes(tmp_path: Path) -> None:
    path = tmp_path / ("a" * 251 + ".npz")
    with whole_file(path) as part:
        part.write_text("text")
    assert path.exists()
