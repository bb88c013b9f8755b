"""The report of everything that records hold: markdown, one HTML page, CSV and LaTeX of each table, figures."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from fnmatch import fnmatch
from functools import cache
from itertools import repeat
from pathlib import Path

from reports.across import across_tables
from reports.cases import CASE_COLUMNS, compared_rows, shared_by, short_case_rows
from reports.encoders import short_encoder_rows
from reports.load import load_records
from reports.machine import MachineReport, machine_reports
from reports.pictures import CAPTIONS, Picture, draw
from reports.provenance import file_table, provenance, reading_notes
from reports.published import HEADING, quoted_tables
from reports.statistics import MIN_SAMPLES
from reports.tables import UNPAIRED, Table, csv_text, markdown_table
from reports.zoo import RUNTIME_COLUMNS, short_runtime_rows, short_zoo_rows
from zoo.errors import InputError
from zoo.files import whole_file

TITLE = "Benchmark report"
_MARKED = re.compile(
    r"(?P<begin><!-- generated(?: tables (?P<names>[a-z0-9_ ]+?))?(?: of (?P<files>[^\n]+?))? by:[^\n]*-->\n)"
    r".*?(?P<end><!-- end)",
    re.DOTALL,
)
#: Names of all tables that there may be, beside those of several files and of quoted figures, which are always there.
TABLES = (
    *("headline", "tradeoff", "zoo", "runtimes", "encoders", "cases_3d", "stages_3d", "cases_2d", "stages_2d"),
    *("accuracy", "accuracy_cases", "peak", "shares", "history", "errors", "weights", "runs", "machines"),
)
#: What a report's folder may hold beside its figures.
FORMATS = ("markdown", "html", "csv", "latex")
HOW_TO_READ = (
    "Latencies are medians; [IQR] are the quartiles. A speed-up is the baseline's median over the row's: above 1 is "
    "faster. Its interval is a 95 % bootstrap interval; where both were timed in the same rounds of one run the rounds "
    f"are resampled together, otherwise the ratio is marked {UNPAIRED} (unpaired: drift between runs is in it). Fewer "
    f"than {MIN_SAMPLES} samples carry no interval, and their number stands instead."
)


def render_report(
    record_paths: Sequence[Path],
    out_dir: Path | None = None,
    *,
    baseline: str | None = None,
    formats: Collection[str] = FORMATS,
    figures: bool = True,
    pool: Executor | None = None,
) -> str:
    """The report of records, as markdown: what was measured. Files also have what others published.

    Args:
        record_paths: JSON-lines files of records.
        out_dir: where to write the figures and what `formats` ask for, too: `report.md`, `report.html`, `TABLE.csv` and
            `TABLE.tex` for every table. What an earlier report left of these formats is removed.
        baseline: encoder that ratios are taken to; by default `tinyvit`, or the slowest where there is none.
        formats: some of `FORMATS`.
        figures: whether to draw them, which takes as long as all the rest.
        pool: draws them in another process meanwhile, see `reports.pictures.drawing_process`.

    Raises:
        ValueError: no records, a missing file, or a baseline of which there is no record.
    """
    loaded = load_records(record_paths)
    reports = machine_reports(loaded, baseline)
    sentences = [f"{len(loaded.records)} records.", *reading_notes(loaded), *_machines_note(reports), HOW_TO_READ]
    across, files, quoted = across_tables(reports), [file_table(loaded)], quoted_tables()
    drawn = _start_drawing(reports, out_dir if figures else None, pool)
    if out_dir is not None:
        _write_tables(out_dir, formats, reports, [*across, *files, *quoted])
    tables = [_table_parts(report.tables, "###") for report in reports]
    pictures = list(drawn)
    parts = [f"# {TITLE}", _bullets(sentences), *_table_parts(across, "##")]
    for report, its_pictures, its_tables in zip(reports, pictures, tables, strict=True):
        parts += [f"## {_heading(report)}", _bullets(provenance(report.records))]
        parts += [*(picture.to_markdown() for picture in its_pictures), *its_tables]
    text = "\n\n".join([*parts, *_table_parts(files, "##")]) + "\n"
    if out_dir is None:
        return text
    if figures:
        _remove_earlier_pictures(out_dir, pictures)
    if "markdown" in formats:
        _write(out_dir / "report.md", "\n\n".join([f"{text}\n## {HEADING}", *_table_parts(quoted, "###")]) + "\n")
    if "html" in formats:
        _write_html(out_dir, sentences, reports, pictures, across, files, quoted)
    return text


def readme_block(reports: Sequence[MachineReport]) -> str:
    """The tables that a README shows: volumes and runtimes of the machine measured on last, and the zoo of each.

    Of the volumes those that several encoders were timed on, where there are any.
    """
    last, *others = reports
    volumes = compared_rows([row for row in last.cases if row.case.is_volume])
    tables = [
        markdown_table(rows, merged)
        for rows, merged in (
            (short_case_rows(volumes), CASE_COLUMNS),
            (short_runtime_rows(last.encoders), RUNTIME_COLUMNS),
            (short_zoo_rows(last.encoders) or short_encoder_rows(last.encoders), ()),
        )
        if rows
    ]
    parts = [_measured_on(last), *tables]
    for report in others:
        if rows := short_zoo_rows(report.encoders):
            parts += [_measured_on(report, f"{_threads(report)} threads"), markdown_table(rows)]
    return "\n\n".join(parts) + "\n"


def _measured_on(report: MachineReport, settings: str = "") -> str:
    """By default with what all of its cases share."""
    settings = settings or shared_by(report.records).in_short() or f"{_threads(report)} threads"
    return f"Measured on {report.title}; {settings}; machine `{report.machine}`."


def _threads(report: MachineReport) -> str:
    return "/".join(str(n) for n in sorted({row.candidate.threads for row in report.encoders}))


def renew_page(path: Path, record_paths: Sequence[Path], *, baseline: str | None = None) -> None:
    """Renews what stands between the marks of a page; the rest stays.

    Between `<!-- generated by: ... -->` and `<!-- end -->` goes `readme_block`; between
    `<!-- generated tables measured_on accuracy weights by: ... -->` and `<!-- end -->` these tables of the machine
    measured on last, by the names of their CSV files, and `measured_on`, what that machine and the settings were.
    `of epyc-*.jsonl h200.jsonl by:` takes the records of these files alone.

    Raises:
        ValueError: as `render_report`, a page without marks, files that are not among the records, or a table that the
            records do not give.
    """
    text = path.read_text(encoding="utf-8")

    @cache
    def reports_of(files: str | None) -> list[MachineReport]:
        patterns = (files or "*").split()
        chosen = [own for own in record_paths if any(fnmatch(own.name, pattern) for pattern in patterns)]
        if files and not chosen:
            there = ", ".join(own.name for own in record_paths)
            raise InputError(path, f"no records of {files!r}", f"some of {there}")
        return machine_reports(load_records(chosen), baseline)

    def renewed(block: re.Match[str]) -> str:
        names = (block["names"] or "").split()
        reports = reports_of(block["files"])
        if not names:
            return f"{block['begin']}\n{readme_block(reports)}\n{block['end']}"
        tables = {"measured_on": lambda: _measured_on(reports[0])}
        tables |= {table.name: table.to_markdown for table in reports[0].tables}
        if unknown := [name for name in names if name not in tables]:
            raise InputError(path, f"table {unknown[0]!r}", f"some of {', '.join(tables)}")
        named = "\n\n".join(tables[name]() for name in names) + "\n"
        return f"{block['begin']}\n{named}\n{block['end']}"

    page, blocks = _MARKED.subn(renewed, text)
    if not blocks:
        raise InputError(path, "no marks", "lines that begin with <!-- generated and <!-- end")
    _write(path, page)


def _start_drawing(
    reports: Sequence[MachineReport], out_dir: Path | None, pool: Executor | None
) -> Iterable[list[Picture]]:
    """The figures of each machine, none without a folder. A pool draws from here on, while tables are written."""
    if out_dir is None:
        return repeat([], len(reports))
    out_dir.mkdir(parents=True, exist_ok=True)
    return draw(reports, [_suffix(report, reports) for report in reports], out_dir, pool)


def _remove_earlier_pictures(out_dir: Path, pictures: Sequence[Sequence[Picture]]) -> None:
    drawn = [picture for of_machine in pictures for picture in of_machine]
    _remove_earlier(out_dir, CAPTIONS, ".png", [picture.light for picture in drawn])
    _remove_earlier(out_dir, CAPTIONS, "_dark.png", [picture.dark for picture in drawn])


def _suffix(report: MachineReport, reports: Sequence[MachineReport]) -> str:
    """Of file names: none for the machine measured on last, which pages show; of another its id."""
    return "" if report is reports[0] else f"_{report.machine}"


def _machines_note(reports: Sequence[MachineReport]) -> list[str]:
    if len(reports) == 1:
        return []
    return [f"The records come from {len(reports)} machines. Each has its own tables; no ratio mixes machines."]


def _heading(report: MachineReport) -> str:
    return f"Measured on {report.title} (`{report.machine}`)"


def _bullets(sentences: Sequence[str]) -> str:
    return "\n".join(f"- {sentence}" for sentence in sentences)


def _table_parts(tables: Sequence[Table], level: str) -> list[str]:
    return [part for table in tables for part in (f"{level} {table.title}", table.to_markdown())]


def _write_html(
    out_dir: Path,
    sentences: Sequence[str],
    reports: Sequence[MachineReport],
    pictures: Sequence[Sequence[Picture]],
    across: Sequence[Table],
    files: Sequence[Table],
    quoted: Sequence[Table],
) -> None:
    from reports.html import Section, html_page

    sections = [Section("Machines", (), (), across)] if across else []
    for report, its_pictures in zip(reports, pictures, strict=True):
        sections.append(Section(_heading(report), provenance(report.records), its_pictures, report.tables))
    sections += [Section("Files", (), (), files), Section(HEADING, (), (), quoted)]
    _write(out_dir / "report.html", html_page(TITLE, sentences, sections, out_dir))


def _write_tables(
    out_dir: Path, formats: Collection[str], reports: Sequence[MachineReport], others: Sequence[Table]
) -> None:
    """A file a table, in the formats that are asked for."""
    out_dir.mkdir(parents=True, exist_ok=True)
    if "csv" in formats:
        _write_csv(out_dir, reports, others)
    if "latex" in formats:
        _write_latex(out_dir, reports, others)


def _write_csv(out_dir: Path, reports: Sequence[MachineReport], others: Sequence[Table]) -> None:
    """A CSV for each table: those of all machines in one file, with the machine's id in front."""
    data: dict[str, list[dict[str, object]]] = {}
    for report in reports:
        for table in report.tables:
            data.setdefault(table.name, []).extend({"machine": report.machine, **row} for row in table.data)
    for table in others:
        data[table.name] = [dict(row) for row in table.data]
    filled = {f"{name}.csv": rows for name, rows in data.items() if rows}
    for name, rows in filled.items():
        _write(out_dir / name, csv_text(rows))
    _remove_earlier(out_dir, TABLES, ".csv", filled)


def _write_latex(out_dir: Path, reports: Sequence[MachineReport], others: Sequence[Table]) -> None:
    """A file for each table that has rows; of several machines each caption names its own."""
    from reports.latex import latex_table

    tables = [_named(table, report, reports) for report in reports for table in report.tables] + [*others]
    shown = {f"{table.name}.tex": table for table in tables if table.shown}
    for name, table in shown.items():
        _write(out_dir / name, latex_table(table))
    _remove_earlier(out_dir, TABLES, ".tex", shown)


def _named(table: Table, report: MachineReport, reports: Sequence[MachineReport]) -> Table:
    if len(reports) == 1:
        return table
    title = f"{table.title}, measured on {report.title} ({report.machine})"
    return replace(table, name=f"{table.name}{_suffix(report, reports)}", title=title)


def _remove_earlier(out_dir: Path, names: Iterable[str], ending: str, written: Collection[str]) -> None:
    """Removes what a report of other records has left: it would pass for a part of this one."""
    known = re.compile(f"({'|'.join(names)})(_[0-9a-f]{{12}})?{re.escape(ending)}")
    for path in out_dir.iterdir():
        if known.fullmatch(path.name) and path.name not in written:
            path.unlink()


def _write(path: Path, text: str) -> None:
    with whole_file(path) as part:
        part.write_text(text, encoding="utf-8")
