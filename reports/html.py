"""The report as one HTML page that needs nothing beside it: sortable tables, and figures inside."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from reports.pictures import Picture
from reports.tables import Table, is_numeric, shown_columns

TEMPLATE = "page.html.jinja"


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        title: its heading.
        sentences: below the heading.
        pictures: figures, in files of the report's folder.
        tables: below the figures.
    """

    title: str
    sentences: Sequence[str]
    pictures: Sequence[Picture]
    tables: Sequence[Table]


def html_page(title: str, sentences: Sequence[str], sections: Sequence[Section], folder: Path) -> str:
    """The whole page.

    Args:
        title: its heading.
        sentences: how to read it.
        sections: in order.
        folder: that holds the figures' files.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "code": mark_code,
        "embed": lambda name: embed(folder / name),
        "columns": _columns,
        "body": _body,
        "anchor": lambda text: re.sub(r"\W+", "-", text.lower()).strip("-"),
    }
    return environment.get_template(TEMPLATE).render(title=title, sentences=sentences, sections=sections)


@cache
def mark_code(text: str) -> Markup:
    """Text with what stands in backticks as code, everything else escaped.

    >>> mark_code("run `a<b` & see")
    Markup('run <code>a&lt;b</code> &amp; see')
    """
    if "`" not in text and "\\" not in text:
        return escape(text)
    parts = re.split(r"`([^`]*)`", text.replace("\\*", "*"))
    marked = [Markup("<code>{}</code>").format(part) if index % 2 else escape(part) for index, part in enumerate(parts)]
    return Markup("").join(marked)


def embed(path: Path) -> str:
    """A PNG as a `data:` address."""
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"


def _columns(table: Table) -> list[tuple[str, bool, list[str]]]:
    """Of each column its heading, whether it holds numbers, and its cells."""
    return [(name, is_numeric(cells), cells) for name, cells in shown_columns(table.shown).items()]


def _body(columns: Sequence[tuple[str, bool, Sequence[str]]]) -> Markup:
    """Rows of cells. A table may have tens of thousands, over which the template would take as long as all the rest."""
    marked = [
        [f'<td class="number">{mark_code(cell)}</td>' if is_number else f"<td>{mark_code(cell)}</td>" for cell in cells]
        for _, is_number, cells in columns
    ]
    return Markup("\n".join(f"<tr>{''.join(row)}</tr>" for row in zip(*marked, strict=True)))
