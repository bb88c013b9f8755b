"""How long a report of 10,000 records takes, without its figures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from reports.render import FORMATS, render_report
from tests.test_reports import CT_0860, REPVIT, Book, protocol

pytestmark = pytest.mark.bench


@pytest.mark.benchmark(group="report of 10,000 records")
def test_report(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    book = Book(tmp_path / "records.jsonl")
    book.one_pass(REPVIT, 10.0, protocol("cached"))
    line = json.loads(book.path.read_text())
    with book.path.open("w") as file:
        for number in range(10_000):
            case = {**CT_0860, "case_id": f"case{number // 6}", "sha256": str(number // 6)}
            measurements = {**line["measurements"], "pass_index": number % 6}
            file.write(json.dumps({**line, "case": case, "measurements": measurements, "key": str(number)}) + "\n")
    text = benchmark.pedantic(render_report, ([book.path], tmp_path / "report"), {"figures": False}, rounds=3)
    assert "case1666" in text
    written = {path.suffix for path in (tmp_path / "report").iterdir()}
    assert written == {".md", ".html", ".csv", ".tex"}
    assert len(written) == len(FORMATS)
