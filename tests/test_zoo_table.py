"""The zoo table and the table of runtimes, from records whose figures a person can check."""

from __future__ import annotations

from pathlib import Path

import pytest
from record_book import Book, candidate, protocol, readme_of

from reports.cases import MAX_ROWS, main_rows
from reports.load import load_records
from reports.machine import machine_reports
from reports.tables import markdown_table
from reports.zoo import RUNTIME_COLUMNS, short_runtime_rows, short_zoo_rows

TORCH = candidate("repvit")
OPENVINO = candidate("repvit", backend="openvino")
INT8 = candidate("repvit", backend="openvino", precision="int8", variant="int8-minmax-0a1b2c3d")
TINYVIT = candidate("tinyvit")


@pytest.fixture
def book(tmp_path: Path) -> Book:
    """RepViT in three runtimes, TinyViT in one, all in one run; only RepViT's licence is known."""
    book = Book(tmp_path / "records.jsonl")
    facts = {"title": "Rep-MedSAM", "licence": "none, non-commercial", "weights_from": "example.org"}
    cost = {"encoder_params": 6_500_000, "encoder_gmacs": 31.1, "encoder_gmacs_second_counter": 31.1, "input_px": 256}
    book.add("cost", TORCH, {**cost, **facts})
    book.cost(TINYVIT)
    for who, encode_s in ((TORCH, 0.6), (OPENVINO, 0.4), (INT8, 0.2), (TINYVIT, 1.5)):
        book.parts(who, [encode_s] * 8)
    return book


def test_zoo(book: Book) -> None:
    (report,) = machine_reports(load_records([book.path]))
    (row,) = short_zoo_rows(report.encoders)
    assert row == {
        "encoder": "repvit",
        "model": "Rep-MedSAM",
        "input (px)": "256",
        "params (M)": "6.50",
        "GMACs": "31.1",
        "torch fp32 (ms)": "600",
        "fastest (ms)": "200 (openvino int8)",
        "weights": "example.org",
        "licence": "none, non-commercial",
    }


def test_what_was_timed_in_a_run_of_its_own_is_not_called_the_fastest(book: Book) -> None:
    """The same graph with other weights, and another one, both timed when the machine was quick."""
    weights = {"name": "other.pth", "sha256": "f" * 64, "trained": True}
    book.parts({**TORCH, "weights": weights}, [0.1] * 8, run_id="quick")
    book.parts({**INT8, "variant": "int8-mse-4d5e6f7a"}, [0.05] * 8, run_id="quick")
    (report,) = machine_reports(load_records([book.path]))
    (row,) = short_zoo_rows(report.encoders)
    assert (row["torch fp32 (ms)"], row["fastest (ms)"]) == ("600", "200 (openvino int8)")
    rows = short_runtime_rows(report.encoders)
    assert [(row["variant"], row["runtime"], row["encoder (ms)"]) for row in rows] == [
        ("reparam", "torch", "600"),
        ("reparam", "openvino", "400"),
        ("int8-minmax-0a1b2c3d", "openvino", "200"),
        ("int8-mse-4d5e6f7a", "openvino", "50.0"),
    ]


def test_runtimes_are_compared_with_the_same_encoder_in_torch(book: Book) -> None:
    (report,) = machine_reports(load_records([book.path]))
    rows = short_runtime_rows(report.encoders)
    assert [(row["encoder"], row["runtime"], row["precision"]) for row in rows] == [
        ("repvit", "torch", "fp32"),
        ("repvit", "openvino", "fp32"),
        ("repvit", "openvino", "int8"),
    ]
    named = [line.split("|")[1].strip() for line in markdown_table(rows, RUNTIME_COLUMNS).splitlines()[2:]]
    assert named == ["repvit", "", ""], "once is enough"
    assert [row["speed-up"].split()[0] for row in rows] == ["1.00x", "1.50x", "3.00x"]


def test_readme_shows_both_and_the_report_lists_them(book: Book, tmp_path: Path) -> None:
    block = readme_of([book.path])
    assert "200 (openvino int8)" in block
    assert "3.00x" in block
    text = book.report(tmp_path / "report")
    assert "### The zoo" in text
    assert "### Runtimes and precisions" in text


def test_records_without_a_licence_have_the_short_table(tmp_path: Path) -> None:
    book = Book(tmp_path / "records.jsonl")
    book.cost(TINYVIT)
    book.parts(TINYVIT, [1.5] * 8)
    block = readme_of([book.path])
    assert "tinyvit" in block
    assert "licence" not in block


def test_a_case_with_many_rows_is_shown_by_its_main_ones(tmp_path: Path) -> None:
    """The baseline, and each candidate under its fastest protocol; the report has them all."""
    book = Book(tmp_path / "records.jsonl")
    for number in range(5):
        who = candidate("tinyvit" if number == 0 else f"encoder{number}")
        for name, total_s in (("per_object", 60), ("cached", 20), ("batched", 10)):
            book.one_pass(who, total_s / (1 + number), protocol(name))
    (report,) = machine_reports(load_records([book.path]))
    shown = main_rows(report.cases)
    assert len(report.cases) == 15
    assert [(row.candidate.encoder, row.protocol_name) for row in shown] == [
        ("tinyvit", "per_object"),
        ("tinyvit", "batched"),
        *((f"encoder{number}", "batched") for number in (1, 2, 3, 4)),
    ]
    assert main_rows(report.cases[:MAX_ROWS]) == report.cases[:MAX_ROWS]


def test_a_main_row_was_timed_beside_the_baseline_if_any_was(tmp_path: Path) -> None:
    """As the headline's is, which says that this table tells which it was: drift between runs is no speed."""
    book = Book(tmp_path / "records.jsonl")
    for number in range(MAX_ROWS):
        book.one_pass(
            candidate("tinyvit" if number == 0 else f"encoder{number}"), 10.0 - number / 2, protocol("batched")
        )
    book.one_pass(candidate("encoder1"), 1.0, protocol("cached"), run_id="run2")
    (report,) = machine_reports(load_records([book.path]))
    (row,) = [row for row in main_rows(report.cases) if row.candidate.encoder == "encoder1"]
    assert row.protocol_name == "batched"
