"""The README's tables and the committed report are those of the committed records."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from PIL import Image

from reports.load import load_records
from reports.machine import MachineReport, machine_reports
from reports.plots import DRAWINGS
from reports.plots.style import fingerprint
from reports.render import readme_block, render_report

ROOT = Path(__file__).parents[1]
RECORDS = sorted((ROOT / "reports" / "results").glob("*.jsonl"))
COMMAND = "make results"


@pytest.mark.parametrize("page", ["README.md", "docs/results.md"])
def test_tables_are_fresh(page: str) -> None:
    block = (ROOT / page).read_text().partition("<!-- generated")[2].partition("-->")[2].partition("<!-- end")[0]
    assert block.strip() == readme_block(RECORDS).strip(), f"run: {COMMAND}"


def test_report_is_fresh() -> None:
    """Without its pictures' lines, which only a report with a folder has."""
    committed = (ROOT / "reports" / "results" / "report.md").read_text()
    text = "\n".join(line for line in committed.split("\n") if not line.startswith("<picture>"))
    assert " ".join(text.split()) == " ".join(render_report(RECORDS).split()), f"run: {COMMAND}"


@pytest.mark.parametrize(("name", "draw"), [(name, draw) for name, _, draw in DRAWINGS])
def test_pictures_are_fresh(name: str, draw: Callable[[MachineReport], Figure | None]) -> None:
    reports = machine_reports(load_records(RECORDS))
    for report in reports:
        figure, suffix = draw(report), f"_{report.machine}" if len(reports) > 1 else ""
        for theme in ("", "_dark"):
            path = ROOT / "reports" / "results" / f"{name}{suffix}{theme}.png"
            assert path.exists() == (figure is not None), f"run: {COMMAND}"
            if figure is not None:
                with Image.open(path) as picture:
                    assert picture.info["fingerprint"] == fingerprint(figure), f"run: {COMMAND}"


def test_the_command_renews_them_all() -> None:
    target = (ROOT / "Makefile").read_text().partition("\nresults:")[2].partition("\n\n")[0]
    assert all(part in target for part in ("report reports/results -o reports/results", "README.md", "docs/results.md"))
