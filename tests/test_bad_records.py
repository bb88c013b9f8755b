"""Records that were damaged or written by hand: reports leave out what they cannot read, and never break."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from record_book import FLOOR, REPVIT, SKIN, Book, candidate, protocol
from test_peak import peak

from reports.compare import compare
from reports.render import render_report

GARBAGE: tuple[Any, ...] = (None, "x", -1, 0, 1e308, float("nan"), [None], {"a": []})


@pytest.fixture
def book(tmp_path: Path) -> Book:
    """One record of each form."""
    book, who = Book(tmp_path / "records.jsonl"), candidate("repvit", trained=True)
    peak(book)
    book.cost(who)
    book.parts(who, [1.0, 1.1])
    book.one_pass(REPVIT, 10.0, protocol("cached"))
    book.scores(FLOOR, [0.5, 0.6])
    book.scores(who, [0.9, None])
    told = {"type": "InputError", "message": "broken"}
    book.add("error", who, {"kind": "latency", "temperature": "cold"}, case=SKIN, error=told)
    return book


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths to everything inside a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, inner in items:
        yield (*path, name)
        yield from places(inner, (*path, name))


def damaged(record: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The record with each of its parts in turn replaced by each garbage, or missing."""
    for *parents, name in places(record):
        for garbage in (*GARBAGE, KeyError):
            copied = copy.deepcopy(record)
            inner = copied
            for parent in parents:
                inner = inner[parent]
            if garbage is KeyError:
                del inner[name]
            else:
                inner[name] = garbage
            yield copied


def test_a_report_survives_any_one_damage(book: Book, tmp_path: Path) -> None:
    """Each damaged record alone beside the whole ones would take minutes: they are reported together, by kind."""
    whole = [json.loads(line) for line in book.path.read_text().splitlines()]
    for number, record in enumerate(whole):
        lines = list(damaged(record))
        for copied in (line for line in lines if isinstance(line.get("key"), str)):
            copied["key"] += str(len(copied)) + str(id(copied))
        path = tmp_path / f"damaged{number}.jsonl"
        path.write_text("\n".join(map(json.dumps, [*whole, *lines])) + "\n")
        assert len(lines) > 100
        text = render_report([path], tmp_path / "report", figures=number == 0)
        assert "repvit" in text


def test_lines_that_are_no_records_are_counted(book: Book) -> None:
    with book.path.open("ab") as file:
        file.write(b'\xff\xfe\n[1, 2]\n17\nnull\n{"schema": 2}\n{"schema": "new"}\n{"schema": 0, "candidate": {}}\n')
    assert "7 lines are no records" in render_report([book.path])


def test_a_name_of_a_file_that_is_no_text_stops_no_report(book: Book, tmp_path: Path) -> None:
    book.scores(candidate("repvit", trained=True), [0.8], {**SKIN, "case_id": "caf\udce9", "sha256": "other"})
    render_report([book.path], tmp_path / "report")
    assert "| caf? " in (tmp_path / "report" / "report.md").read_text(encoding="utf-8")


def test_nan_is_no_sample_and_no_score(book: Book) -> None:
    who = candidate("repvit", trained=True)
    lines = [json.loads(line) for line in book.path.read_text().splitlines()]
    parts = next(line for line in lines if line["kind"] == "latency" and line["case"] is None)
    scores = next(line for line in lines if line["kind"] == "accuracy" and line["candidate"] == who)
    parts["measurements"]["encode_s"] = [float("nan"), 2.0, float("inf")]
    scores["measurements"]["dsc"] = [float("nan"), 0.7]
    book.path.write_text("\n".join(map(json.dumps, lines)))
    encoders, accuracy = (book.csv(name, formats=["csv"], figures=False) for name in ("encoders", "accuracy"))
    assert encoders["encode_s_median"].tolist() == [2.0]
    assert encoders["encode_s_n"].tolist() == [1]
    assert accuracy["dsc_mean"].tolist() == pytest.approx([0.55, 0.7])
    assert accuracy["dsc_n"].tolist() == [2, 1]


def test_damaged_records_are_compared_where_they_can_be(book: Book, tmp_path: Path) -> None:
    worse = tmp_path / "worse.jsonl"
    worse.write_text(book.path.read_text() + '{"kind": "latency", "measurements": {"encode_')
    assert compare([book.path], [worse]).latencies
