"""Tables as CSV and LaTeX: each that a report shows has both; LaTeX has its rows whole and its characters escaped."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest
from record_book import FLOOR, REPVIT, TINYVIT, Book, candidate, protocol
from test_peak import peak

from reports.latex import escape, latex_table
from reports.load import load_records
from reports.machine import machine_reports
from reports.render import TABLES, render_report
from reports.tables import Table


@pytest.fixture
def book(tmp_path: Path) -> Book:
    """Something for every table."""
    book = Book(tmp_path / "records.jsonl")
    peak(book)
    for who in (REPVIT, TINYVIT, candidate("repvit", backend="openvino")):
        book.cost(who)
        book.parts(who, [1.0, 1.1])
        book.one_pass(who, 10.0, protocol("cached"))
    trained = candidate("repvit", trained=True)
    book.scores(FLOOR, [0.5, 0.6])
    book.scores(trained, [0.9, 0.8])
    book.add("error", trained, {}, error={"type": "InputError", "message": "100 % of {a}_b^c ~ #1 & $x \\ y"})
    return book


def test_every_table_is_there_as_csv_and_latex(book: Book) -> None:
    out = book.path.parent / "report"
    render_report([book.path], out, figures=False)
    (report,) = machine_reports(load_records([book.path]))
    names = {table.name for table in report.tables}
    assert names <= {*TABLES}
    assert names >= {"runtimes", "encoders", "cases_3d", "stages_3d", "accuracy", "peak", "shares", "errors", "runs"}
    assert names < {path.stem for path in out.glob("*.csv")} == {path.stem for path in out.glob("*.tex")}
    stages = pd.read_csv(out / "stages_3d.csv")
    assert stages["encode_s"].tolist() == [5.0] * 3
    assert stages["encoded_slices"].tolist() == [246.0] * 3


def test_latex_rows_are_whole(book: Book) -> None:
    (report,) = machine_reports(load_records([book.path]))
    for table in report.tables:
        text = latex_table(table)
        (layout,) = re.findall(r"\\begin\{tabular\}\{([lr]+)\}", text)
        rows = [line for line in text.splitlines() if line.endswith(r" \\")]
        assert len(rows) == 1 + len(table.shown)
        assert {len(re.split(r"(?<!\\)&", row)) for row in rows} == {len(layout)}
        assert text.count("{") - text.count(r"\{") == text.count("}") - text.count(r"\}")


def test_characters_that_latex_minds_are_escaped(book: Book) -> None:
    assert escape(r"100 % of {a}_b^c ~ #1 & $x") == (
        r"100 \% of \{a\}\_b\textasciicircum{}c \textasciitilde{} \#1 \& \$x"
    )
    assert escape("a\\b ± `c`") == r"a\textbackslash{}b $\pm$ c"


def test_columns_of_numbers_are_set_right_and_repeated_cells_left_out() -> None:
    rows = [{"case": "a", "s": "1.5 (3)"}, {"case": "a", "s": "2.5 (3)"}]
    text = latex_table(Table("t", "Title", rows, rows, ("A note.",), ("case",)))
    assert r"\begin{tabular}{lr}" in text
    assert "a & 1.5 (3) \\\\\n & 2.5 (3) \\\\" in text
    assert r"\label{tab:t}" in text
    assert "A note." in text


def test_dashes_stay_two_and_no_cell_is_an_option_of_the_rule_above() -> None:
    assert escape("--weights a---b") == "-{}-weights a-{}-{}-b"
    rows = [{"what": "[INFO] x", "n": "1"}, {"what": r"\* y", "n": "2"}]
    lines = latex_table(Table("t", "Title", rows, rows)).splitlines()
    assert r"{}[INFO] x & 1 \\" in lines
    assert r"{}* y & 2 \\" in lines


def test_tables_of_several_machines_are_told_apart(tmp_path: Path) -> None:
    book = Book(tmp_path / "records.jsonl")
    for machine in ("m1", "m2"):
        book.parts(REPVIT, [1.0], machine=machine)
    out = tmp_path / "report"
    render_report([book.path], out, formats=["latex"], figures=False)
    texts = [path.read_text() for path in out.glob("*.tex")]
    labels = [label for text in texts for label in re.findall(r"\\label\{(.*?)\}", text)]
    assert len(set(labels)) == len(labels) == len(texts)
    for name, machine in (("encoders", "m2"), ("encoders_m1", "m1")):
        assert f"Encoders, measured on Test CPU (avx2), 2 cores, 8 GiB ({machine})" in (out / f"{name}.tex").read_text()
