"""Ledgers: what was made of the same files in the same way is not made again, and nothing else is taken for it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from zoo.files import append_json
from zoo.ledger import Difference, Ledger, fingerprint


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    """A scan that a line of a ledger tells of."""
    scan = tmp_path / "a.png"
    scan.write_bytes(b"one")
    line = {"case_id": "a", "source": str(scan), "settings": "fast", "made_of": fingerprint([scan])}
    append_json(tmp_path / "ledger.jsonl", line)
    return scan


def difference(scan: Path, case_id: str = "a", settings: str = "fast") -> Difference | None:
    ledger = Ledger(scan.parent / "ledger.jsonl")
    return ledger.difference(case_id, str(scan), settings, lambda: [scan])


def test_a_file_that_is_touched_or_copied_is_the_same(scan: Path) -> None:
    assert difference(scan) is None
    os.utime(scan, ns=(1, 1))
    assert difference(scan) is None
    shutil.copy(scan, scan.with_suffix(".copy"))
    scan.with_suffix(".copy").replace(scan)
    assert difference(scan) is None


def test_content_of_the_same_size_is_another(scan: Path) -> None:
    scan.write_bytes(b"two")
    assert difference(scan) == "files"


def test_a_file_that_is_gone_is_no_longer_the_same(scan: Path) -> None:
    scan.unlink()
    assert difference(scan) == "files"


def test_settings_sources_and_cases_are_told_apart(scan: Path) -> None:
    assert difference(scan, settings="slow") == "settings"
    assert difference(scan, case_id="b") == "untold"
    other = scan.with_name("b.png")
    other.write_bytes(b"one")
    assert difference(other) == "source"


def test_of_several_lines_the_last_one_counts_and_a_torn_one_does_not(scan: Path) -> None:
    ledger = scan.parent / "ledger.jsonl"
    append_json(ledger, {"case_id": "a", "source": "elsewhere"})
    with ledger.open("a") as stream:
        stream.write('{"case_id": "a", "sou')
    assert difference(scan) == "source"
    assert [line["source"] for line in Ledger(ledger).lines] == [str(scan), "elsewhere"]


def test_a_line_without_a_fingerprint_is_believed_where_all_else_agrees(scan: Path) -> None:
    append_json(scan.parent / "ledger.jsonl", {"case_id": "a", "source": str(scan), "settings": "fast"})
    scan.write_bytes(b"two")
    assert difference(scan) is None
    assert difference(scan, settings="slow") == "settings"


@pytest.mark.parametrize("line", ['{"case_id": ["a"]}', "[]", '{"settings": 1}', '{"case_id": "a", "made_of": 3}'])
def test_lines_of_others_do_no_harm(scan: Path, line: str) -> None:
    with (scan.parent / "ledger.jsonl").open("a") as stream:
        stream.write(line + "\n")
    assert difference(scan) in (None, "source")
