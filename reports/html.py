"""The report as one HTML page that needs nothing beside it: sortable tables, and figures inside."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from reports.tables import Table, is_numeric, shown_frame

if TYPE_CHECKING:
    from reports.plots import Picture

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
        "cells": _cells,
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


def _cells(table: Table) -> tuple[list[tuple[str, bool]], list[list[str]]]:
    """Headings, each with whether its column holds numbers; and rows of cells."""
    frame = shown_frame(table.shown)
    return [(str(name), is_numeric(frame[name].tolist())) for name in frame], frame.to_numpy().tolist()
