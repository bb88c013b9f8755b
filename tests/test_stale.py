"""The README's tables and the committed report are those of the committed records."""

from __future__ import annotations

from pathlib import Path

from reports.render import readme_block, render_report

ROOT = Path(__file__).parents[1]
RECORDS = sorted((ROOT / "reports" / "results").glob("*.jsonl"))
COMMAND = "make results"


def test_readme_is_fresh() -> None:
    block = (ROOT / "README.md").read_text().partition("<!-- generated")[2].partition("\n")[2].partition("<!-- end")[0]
    assert block.strip() == readme_block(RECORDS).strip(), f"run: {COMMAND}"


def test_report_is_fresh() -> None:
    """Without its pictures' lines, which only a report with a folder has."""
    committed = (ROOT / "reports" / "results" / "report.md").read_text()
    text = "\n".join(line for line in committed.split("\n") if not line.startswith("<picture>"))
    assert " ".join(text.split()) == " ".join(render_report(RECORDS).split()), f"run: {COMMAND}"
