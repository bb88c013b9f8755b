"""What a report writes: README blocks, cells and files."""

from __future__ import annotations

import io
import math
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from record_book import REPVIT, TINYVIT, Book, protocol, readme_of

from reports.render import render_report
from reports.tables import csv_text, is_numeric, markdown_table, shown_columns, significant

ROOT = Path(__file__).parent.parent


def test_readme_block_is_short(book: Book) -> None:
    book.cost(REPVIT)
    book.parts(TINYVIT, [2.0])
    book.parts(REPVIT, [1.0])
    book.one_pass(REPVIT, 10.0, protocol("cached"))
    text = readme_of([book.path])
    assert text.startswith("Measured on Test CPU (avx2), 2 cores, 8 GiB;")
    assert "2.00x (n=1)" in text
    assert "6.24 (2.66x)" in text
    assert max(len(line) for line in text.splitlines() if line.startswith("|")) <= 160


def test_readme_block_is_of_the_machine_measured_on_last(book: Book) -> None:
    book.parts(REPVIT, [1.0], machine="m1", time_utc="2026-01-02T00:00:00.000+00:00")
    book.parts(REPVIT, [1.0], machine="m2", time_utc="2026-01-03T00:00:00.000+00:00")
    text = readme_of([book.path])
    assert "machine `m2`" in text
    assert "m1" not in text


@pytest.mark.parametrize(
    ("value", "text"),
    [(451.23, "451"), (1959.4, "1959"), (0.98, "0.980"), (99.96, "100"), (1e-7, "0.000000100"), (0.0, "0")],
)
def test_three_significant_digits_without_exponents(value: float, text: str) -> None:
    assert significant(value) == text


def test_undefined_numbers_show_as_nothing() -> None:
    assert significant(math.nan) == "-"


def test_shapes_are_no_numbers() -> None:
    assert is_numeric(["2.31x [2.25, 2.38]", "1.00x (baseline)", "<0.001"])
    assert not is_numeric(["4x512x512"])


def test_a_report_leaves_no_table_of_an_earlier_one(book: Book) -> None:
    """Tables of its own names are removed, where these records do not give them; all else in the folder stays."""
    out = book.path.parent / "report"
    book.parts(REPVIT, [1.0])
    machine = "0123456789ab"
    book.add("error", REPVIT, {}, machine=machine, error={"type": "E", "message": "m"})
    book.parts(TINYVIT, [1.0], machine=machine, time_utc="2025-01-01T00:00:00.000+00:00")
    book.report(out)
    earlier = [out / name for name in ("errors.csv", f"encoders_{machine}.tex", f"encoders_{machine}.csv")]
    earlier[2].touch()
    own = [out / name for name in ("encoders_mine.csv", "notes.csv", "errors.txt")]
    for path in own:
        path.touch()
    assert earlier[0].exists()
    other = Book(book.path.parent / "other.jsonl")
    other.parts(REPVIT, [1.0])
    render_report([other.path], out, formats=["markdown"])
    assert earlier[0].exists(), "not asked for"
    render_report([other.path], out)
    assert not any(path.exists() for path in earlier)
    assert all(path.exists() for path in (*own, out / "encoders.csv", out / "encoders.tex"))


def test_markdown_aligns_numbers_right_and_drops_empty_columns() -> None:
    head, rule, *_ = markdown_table(
        [{"id": "3DBox", "s": "1.5 (3)", "none": "-"}, {"id": "x", "s": "-", "none": ""}]
    ).splitlines()
    assert [cell.strip() for cell in head.strip("|").split("|")] == ["id", "s"]
    assert [cell.endswith(":") for cell in rule.strip("|").split("|")] == [False, True]


def test_cells_that_repeat_the_row_above_stay_empty_together() -> None:
    rows = [{"a": a, "b": b, "n": n} for a, b, n in [("x", "1", "1"), ("x", "1", "1"), ("x", "2", "1"), ("y", "2", "")]]
    columns = shown_columns(rows, merged=("a", "b", "left out"))
    assert columns == {"a": ["x", "", "x", "y"], "b": ["1", "", "2", "2"], "n": ["1", "1", "1", ""]}


def test_rows_need_not_have_the_same_columns() -> None:
    assert shown_columns([{"a": "1"}, {"b": "2", "none": "-"}, {"none": ""}]) == {
        "a": ["1", "-", "-"],
        "b": ["-", "2", "-"],
    }


def test_csv_reads_back_as_it_was() -> None:
    rows: list[dict[str, object]] = [
        {"text": 'a "quoted", one', "float": 0.1 + 0.2, "count": 3, "flag": True, "gap": math.nan},
        {"text": "two\nlines", "float": 1e-9, "count": 4, "flag": False, "gap": 1.5, "late": None},
    ]
    read = pd.read_csv(io.StringIO(csv_text(rows)))
    pd.testing.assert_frame_equal(read, pd.DataFrame(rows), check_dtype=False)


def test_tables_wait_for_no_large_package() -> None:
    large = ("torch", "pandas", "matplotlib", "seaborn", "scipy.stats")
    code = (
        f"import sys, reports.render, reports.html, reports.latex; sys.exit(not sys.modules.keys().isdisjoint({large}))"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_figures_need_no_torch() -> None:
    code = "import sys, reports.plots; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
