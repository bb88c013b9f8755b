"""How long reports of 10,000 records take, with every table and figure they have data for."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from subprocess import run
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture
from record_book import CT_0860, FLOOR, REPVIT, Book, candidate, protocol
from test_peak import peak

from reports.plots import DRAWINGS
from reports.render import FORMATS

pytestmark = pytest.mark.bench

ROOT = Path(__file__).resolve().parents[1]
RUNTIMES = (("torch", "fp32"), ("onnxruntime", "int8"), ("openvino", "bf16"), ("openvino", "int8"))
ENCODERS, CASES, PASSES = 10, 50, 4


def many_cases(book: Book) -> Iterator[dict[str, Any]]:
    """One candidate on 1,667 volumes, six passes of each."""
    book.one_pass(REPVIT, 10.0, protocol("cached"))
    (one_pass,) = map(json.loads, book.path.read_text().splitlines())
    for number in range(10_000):
        case = {**CT_0860, "case_id": f"case{number // 6}", "sha256": str(number // 6)}
        yield one_pass | {"case": case, "measurements": one_pass["measurements"] | {"pass_index": number % 6}}


def many_candidates(book: Book) -> Iterator[dict[str, Any]]:
    """Ten encoders in four runtimes on fifty volumes, four passes of each: something for every figure."""
    peak(book)
    book.cost(REPVIT)
    book.parts(REPVIT, [1 + 0.01 * number for number in range(20)])
    book.scores(REPVIT, [0.5, 0.7, 0.8], CT_0860, protocol=protocol("cached"))
    book.one_pass(REPVIT, 10.0, protocol("cached"))
    peak_record, cost, parts, scores, one_pass = map(json.loads, book.path.read_text().splitlines())
    cases = [
        {**CT_0860, "case_id": f"case{n}", "sha256": str(n), "objects": 1 + n % 6, "shape": [40 + 4 * n, 64, 64]}
        for n in range(CASES)
    ]
    yield peak_record
    yield from (scores | {"candidate": FLOOR, "case": case, "protocol": None} for case in cases)
    for number in range(ENCODERS * len(RUNTIMES)):
        backend, precision = RUNTIMES[number % len(RUNTIMES)]
        name = f"encoder{number // len(RUNTIMES)}"
        who = {"candidate": candidate(name, trained=True, backend=backend, precision=precision)}
        yield cost | who | {"measurements": cost["measurements"] | {"encoder_gmacs": 1.1**number}}
        yield parts | who | {"measurements": _scaled(parts["measurements"], ("encode_s",), 0.01 * 1.1**number)}
        for place, case in enumerate(cases):
            of_case = who | {"case": case}
            yield scores | of_case | {"measurements": _scaled(scores["measurements"], ("dsc",), 1 + 0.005 * number)}
            for index in range(PASSES):
                seconds = _scaled(one_pass["measurements"], ("total_s",), (1 + 0.1 * place) * 1.05 ** (number + index))
                yield one_pass | of_case | {"measurements": seconds | {"pass_index": index}}


def _scaled(measurements: dict[str, Any], keys: Sequence[str], factor: float) -> dict[str, Any]:
    def scale(value: Any) -> Any:
        return [each * factor for each in value] if isinstance(value, list) else value * factor

    return measurements | {key: scale(measurements[key]) for key in keys}


@pytest.mark.benchmark(group="report of 10,000 records, the whole command")
@pytest.mark.parametrize("figures", ["--no-figures", "--figures"])
@pytest.mark.parametrize(("records", "drawn"), [(many_cases, 1), (many_candidates, len(DRAWINGS))])
def test_report(benchmark: BenchmarkFixture, tmp_path: Path, records: Any, drawn: int, figures: str) -> None:
    book = Book(tmp_path / "records.jsonl")
    lines = [json.dumps(record | {"key": str(number)}) for number, record in enumerate(records(book))]
    assert 10_000 <= len(lines) < 10_200
    book.path.write_text("\n".join(lines) + "\n")
    out = tmp_path / "report"
    command = [sys.executable, str(ROOT / "cli.py"), "report", str(book.path), "-o", str(out), figures]
    benchmark.pedantic(run, (command,), {"check": True, "capture_output": True}, rounds=5, warmup_rounds=1)
    written = [path.suffix for path in out.iterdir()]
    assert {*written} - {".png"} == {".md", ".html", ".csv", ".tex"}
    assert len({*written} - {".png"}) == len(FORMATS)
    assert written.count(".png") == 2 * drawn * (figures == "--figures")
