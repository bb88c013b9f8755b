"""Tables: unrounded data for a CSV, formatted cells for markdown, and how numbers are written."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from typing import Any

import pandas as pd

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
    """Rows as a pipe table: columns of numbers aligned right. For the rest see `shown_frame`."""
    frame = shown_frame(rows, merged).map(_escape)
    align = ["right" if is_numeric(frame[name].tolist()) else "left" for name in frame]
    return str(frame.to_markdown(index=False, tablefmt="pipe", disable_numparse=True, colalign=align))


def shown_frame(rows: Sequence[Mapping[str, str]], merged: tuple[str, ...] = ()) -> pd.DataFrame:
    """Cells as text: columns without any content left out, `merged` ones empty where they repeat the row above."""
    frame = pd.DataFrame([dict(row) for row in rows]).fillna(NOTHING)
    frame = frame.loc[:, ~frame.isin(["", NOTHING]).all()]
    repeated = [name for name in merged if name in frame]
    if repeated:
        above = frame[repeated].eq(frame[repeated].shift()).all(axis=1)
        frame.loc[above, repeated] = ""
    return frame


def flatten(row: object) -> dict[str, object]:
    """Fields of a dataclass as columns; nested ones get their field's name in front, raw samples stay out."""
    if not is_dataclass(row):
        raise TypeError(f"found {type(row).__name__}; expected a dataclass")
    columns: dict[str, object] = {}
    kind: Any = type(row)
    for name in _field_names(kind):
        value: Any = getattr(row, name)
        if isinstance(value, Samples):
            continue
        if is_dataclass(value):
            columns |= {f"{name}_{inner_name}": inner for inner_name, inner in flatten(value).items()}
        else:
            columns[name] = "x".join(map(str, value)) if isinstance(value, tuple) else value
    return columns


@cache
def _field_names(kind: Any) -> tuple[str, ...]:
    return tuple(field.name for field in fields(kind))


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
