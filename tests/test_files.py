"""Files that are written whole."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

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
