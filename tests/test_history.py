"""The history: what several runs measured, run by run."""

from __future__ import annotations

import math
from typing import Any

import pytest
from record_book import REPVIT, TINYVIT, Book, candidate, protocol

from reports.load import load_records
from reports.machine import machine_reports
from reports.tables import Table

STEADY = [1.0, 1.01, 0.99, 1.0, 1.02, 0.98]


def history_of(book: Book) -> Table | None:
    (report,) = machine_reports(load_records([book.path]))
    return next((table for table in report.tables if table.name == "history"), None)


def parts(book: Book, run: str, factor: float, who: dict[str, Any] = REPVIT, **fields: Any) -> None:
    git = {"commit": run * 12, "dirty": False}
    book.parts(who, [factor * seconds for seconds in STEADY], run_id=run, git=git, **fields)


def test_runs_are_set_side_by_side_even_those_that_were_replaced(book: Book) -> None:
    parts(book, "b", 1.0, time_utc="2026-02-01T00:00:00.000+00:00")
    parts(book, "a", 2.0, time_utc="2026-01-01T00:00:00.000+00:00")
    parts(book, "c", 1.5, candidate("repvit", backend_version="3"), time_utc="2026-03-01T00:00:00.000+00:00")
    parts(book, "c", 1.0, TINYVIT)
    table = history_of(book)
    assert table is not None
    assert [row["date (UTC)"] for row in table.shown] == ["2026-01-01", "2026-02-01", "2026-03-01"]
    assert [row["commit"] for row in table.shown] == [f"`{run * 12}`" for run in "abc"]
    assert [row["runtime"] for row in table.shown] == ["2", "2", "3"]
    assert [row["over_before_value"] for row in table.data] == pytest.approx([math.nan, 0.5, 1.5], nan_ok=True)
    assert {row["what"] for row in table.shown} == {"repvit (reparam, torch fp32, 2 threads)"}


def test_a_run_has_its_own_number_of_samples(book: Book) -> None:
    book.parts(REPVIT, list(STEADY), run_id="a")
    book.parts(REPVIT, STEADY * 2, run_id="b")
    table = history_of(book)
    assert table is not None
    assert [row["latency_s_n"] for row in table.data] == [6, 12]
    assert [row["run_id"] for row in table.data] == ["a", "b"]


def test_cases_have_a_history_by_protocol_warm_passes_only(book: Book) -> None:
    for run, seconds in (("a", 10.0), ("b", 12.0)):
        for index in range(2):
            book.one_pass(REPVIT, seconds, protocol("cached"), index=index, run_id=run)
        book.one_pass(REPVIT, 99.0, protocol("cached"), temperature="cold", run_id=run)
    book.one_pass(REPVIT, 10.0, protocol("batched"), run_id="a")
    table = history_of(book)
    assert table is not None
    assert [(row["n"], row["over the run before [95 % CI]"]) for row in table.shown] == [("2", "-"), ("2", "1.20x")]
    assert "cached" in table.shown[0]["what"]


def test_a_record_in_two_files_is_one_run(book: Book) -> None:
    parts(book, "a", 1.0)
    book.path.write_text(book.path.read_text() * 2)
    assert history_of(book) is None


def test_weights_of_one_encoder_have_a_history_each(book: Book) -> None:
    of_weights = [candidate("repvit", weights={"name": "w", "sha256": letter * 64}) for letter in "ab"]
    for run, factors in (("a", (1.0, 4.0)), ("b", (2.0, 4.0))):
        for who, factor in zip(of_weights, factors, strict=True):
            parts(book, run, factor, who)
    table = history_of(book)
    assert table is not None
    ratios = [row["over_before_value"] for row in table.data]
    assert ratios == pytest.approx([math.nan, 2.0, math.nan, 1.0], nan_ok=True)
    assert [row["what"].split()[-1][:2] for row in table.shown] == ["aa", "aa", "bb", "bb"]
