"""`score`: what its notes say beside the tables."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from test_score import write_npz

from cli import main


def notes(tmp_path: Path, *arguments: str) -> list[str]:
    """What a score of `s` against `g` tells that is no table."""
    words = ["score", "-s", str(tmp_path / "s"), "-g", str(tmp_path / "g"), "--workers", "1", *arguments]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 0, result.output
    paragraphs = [part.strip() for part in result.output.split("\n\n")]
    return [part for part in paragraphs if not part.startswith("|") and not part.endswith(":")]


def write_square(folder: Path, name: str, *labels: int) -> None:
    """Squares of some labels side by side."""
    found = np.zeros((20, 40), np.uint16)
    for number, label in enumerate(labels):
        found[4:12, 10 * number : 10 * number + 8] = label
    write_npz(folder, name, segs=found, spacing=np.array([2.0, 2.0, 2.0]))


@pytest.mark.parametrize("rules", ["plain", "cvpr24"])
def test_maps_without_a_label_in_common_are_told_of(tmp_path: Path, rules: str) -> None:
    for name, segmented, expected in (("a", (1, 3), (255,)), ("b", (7,), (2,)), ("c", (1, 3), (3,)), ("d", (), (1,))):
        write_square(tmp_path / "s", name, *segmented)
        write_square(tmp_path / "g", name, *expected)
    told = "No label in common with the reference, so all scores are 0: a (1, 3 for 255), b (7 for 2)."
    assert told in notes(tmp_path, "--rules", rules)


def test_of_many_maps_without_a_label_in_common_some_are_named(tmp_path: Path) -> None:
    for number in range(8):
        write_square(tmp_path / "s", f"case{number}", 1)
        write_square(tmp_path / "g", f"case{number}", 2)
    (told,) = [note for note in notes(tmp_path) if note.startswith("No label in common")]
    assert told.endswith("case4 (1 for 2) and 3 more.")


def test_cases_without_a_label_are_told_of(tmp_path: Path) -> None:
    """The challenge's rules look at the labels of the reference alone, plain ones at both maps'."""
    for name, segmented, expected in (("a", (1,), (1,)), ("b", (), ()), ("c", (2,), ())):
        write_square(tmp_path / "s", name, *segmented)
        write_square(tmp_path / "g", name, *expected)
    assert "Cases without labels, in no mean (1): b." in notes(tmp_path)
    assert "Cases without labels, in no mean (2): b, c." in notes(tmp_path, "--rules", "cvpr24")
