"""Tables: unrounded data for a CSV, formatted cells for markdown, and how numbers are written."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from typing import Any

from reports.statistics import Ratio, Samples, Spread

#: What an empty cell shows.
NOTHING = "-"
SPEEDUP = "speed-up [95 % CI]"
UNPAIRED = "u"
#: How a cell of a column of numbers begins: not as `3DBox_CT_0566` or `16x404x488` does.
_NUMBER = re.compile(r"[-+<]?\d+(\.\d+)?(x(?!\d)|,|\s|$)")


@dataclass(frozen=True)
class Table:
    """One table.

    Attributes:
        name: file stem of its CSV.
        title: its heading.
        shown: formatted rows for markdown; column names carry units.
        data: unrounded rows for the CSV, SI units in the names; not necessarily row by row those of `shown`.
        notes: sentences below it.
        merged: columns that stay empty where all of them are as in the row above.
    """

    name: str
    title: str
    shown: Sequence[Mapping[str, str]]
    data: Sequence[Mapping[str, object]]
    notes: tuple[str, ...] = ()
    merged: tuple[str, ...] = ()

    def to_markdown(self) -> str:
        """The rows as a pipe table that is aligned in raw form too, then the notes as a list."""
        notes = "".join(f"\n- {note}" for note in self.notes)
        return markdown_table(self.shown, self.merged) + (f"\n{notes}" if notes else "")


def markdown_table(rows: Sequence[Mapping[str, str]], merged: tuple[str, ...] = ()) -> str:
    """Rows as a pipe table: columns of numbers aligned right. For the rest see `shown_columns`."""
    columns = [_pipe_column(*column) for column in shown_columns(rows, merged).items()]
    return "\n".join(f"|{'|'.join(line)}|" for line in zip(*columns, strict=True))


def _pipe_column(heading: str, cells: Sequence[str]) -> list[str]:
    """Heading, rule and cells of one width."""
    texts = [_escape(heading), *map(_escape, cells)]
    width = max(map(len, texts))
    if is_numeric(cells):
        rule, padded = "-" * (width + 1) + ":", [f" {text:>{width}} " for text in texts]
    else:
        rule, padded = ":" + "-" * (width + 1), [f" {text:<{width}} " for text in texts]
    return [padded[0], rule, *padded[1:]]


def shown_columns(rows: Sequence[Mapping[str, str]], merged: tuple[str, ...] = ()) -> dict[str, list[str]]:
    """Cells by column: columns without any content left out, `merged` ones empty where they repeat the row above."""
    names = dict.fromkeys(name for row in rows for name in row)
    every = {name: [row.get(name, NOTHING) for row in rows] for name in names}
    columns = {name: cells for name, cells in every.items() if not {*cells} <= {"", NOTHING}}
    together = [name for name in merged if name in columns]
    keys = [*zip(*(columns[name] for name in together), strict=True)]
    for place in range(1, len(keys)):
        if keys[place] == keys[place - 1]:
            for name in together:
                columns[name][place] = ""
    return columns


def csv_text(rows: Sequence[Mapping[str, object]]) -> str:
    """Rows as CSV: the columns of all of them; what is missing or NaN is empty."""
    text = io.StringIO()
    names = dict.fromkeys(name for row in rows for name in row)
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    writer.writerows([_csv_value(row.get(name)) for name in names] for row in rows)
    return text.getvalue()


def _csv_value(value: object) -> object:
    return None if isinstance(value, float) and math.isnan(value) else value


def flatten(row: object) -> dict[str, object]:
    """Fields of a dataclass as columns; nested ones get their field's name in front, raw samples stay out."""
    kind: Any = type(row)
    if not _field_names(kind):
        raise TypeError(f"found {kind.__name__}; expected a dataclass")
    columns: dict[str, object] = {}
    for name in _field_names(kind):
        value: Any = getattr(row, name)
        inner_kind: Any = type(value)
        if isinstance(value, Samples):
            continue
        if _field_names(inner_kind):
            for inner_name, inner in flatten(value).items():
                columns[f"{name}_{inner_name}"] = inner
        else:
            columns[name] = "x".join(map(str, value)) if isinstance(value, tuple) else value
    return columns


@cache
def _field_names(kind: Any) -> tuple[str, ...]:
    """Of a dataclass; of anything else none."""
    return tuple(field.name for field in fields(kind)) if is_dataclass(kind) else ()


def significant(value: float, digits: int = 3) -> str:
    """`value` to so many significant digits, never in scientific notation; whole digits are all kept.

    >>> significant(0.98), significant(451.23), significant(1959.4), significant(math.nan)
    ('0.980', '451', '1959', '-')
    """
    if not math.isfinite(value):
        return NOTHING
    rounded = float(f"{value:.{digits}g}")
    decimals = digits - 1 - math.floor(math.log10(abs(rounded))) if rounded else 0
    return f"{value:.{max(decimals, 0)}f}"


def whole(value: float) -> str:
    """A count: `value` without decimals."""
    return f"{value:.0f}" if math.isfinite(value) else NOTHING


def milliseconds(seconds: float) -> str:
    """Seconds, written in ms."""
    return significant(seconds * 1e3)


def spread_ms(spread: Spread) -> str:
    """`451 [440, 462]`: median and quartiles of seconds, written in ms."""
    return spread_cell(spread, lambda seconds: seconds * 1e3)


def spread_cell(spread: Spread, unit: Callable[[float], float]) -> str:
    """Median and quartiles brought to another unit, the lower one first: a rate falls where seconds rise."""
    if not spread.n:
        return NOTHING
    low, high = sorted((unit(spread.q1), unit(spread.q3)))
    return f"{significant(unit(spread.median))} [{significant(low)}, {significant(high)}]"


def counts(numbers: Iterable[int]) -> str:
    """`20`, or `10 to 20`."""
    found = sorted(set(numbers))
    return str(found[0]) if len(found) == 1 else f"{found[0]} to {found[-1]}"


def speedup_cell(ratio: Ratio, *, is_baseline: bool) -> str:
    """`2.31x [2.25, 2.38]`; too few samples for an interval give their number instead, unpaired ones a mark."""
    if is_baseline:
        return "1.00x (baseline)"
    if not math.isfinite(ratio.value):
        return NOTHING
    interval = (
        f"[{significant(ratio.low)}, {significant(ratio.high)}]" if math.isfinite(ratio.low) else f"(n={ratio.n})"
    )
    return f"{significant(ratio.value)}x {interval}" + ("" if ratio.paired else f" {UNPAIRED}")


def times_cell(ratio: Ratio) -> str:
    """`2.31x`, with a mark if it is of different runs."""
    return f"{significant(ratio.value)}x" + ("" if ratio.paired else f" {UNPAIRED}")


def ratio_cell(ratio: Ratio) -> str:
    """`1.02x [0.99, 1.05]`; without an interval where there are too few samples."""
    interval = f" [{significant(ratio.low)}, {significant(ratio.high)}]" if math.isfinite(ratio.low) else ""
    return f"{significant(ratio.value)}x{interval}"


@cache
def _escape(cell: str) -> str:
    """A cell that cannot end its column or its row."""
    return " ".join(cell.split()).replace("|", "\\|")


def is_numeric(cells: Sequence[str]) -> bool:
    """Whether all cells that are filled begin with a number."""
    filled = [cell for cell in cells if cell not in (NOTHING, "")]
    return bool(filled) and all(_NUMBER.match(cell) for cell in filled)
