"""Tables as LaTeX, for papers: `booktabs` rules, a caption, a label, notes below."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache

from reports.tables import Table, is_numeric, shown_columns

_SPECIAL = re.compile(r"[&%$#_{}~^\\±]")
_ESCAPED = {
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "\\": r"\textbackslash{}",
    "±": r"$\pm$",
}


def latex_table(table: Table) -> str:
    """A `table` environment; it needs `\\usepackage{booktabs}`."""
    columns = shown_columns(table.shown, table.merged)
    layout = "".join("r" if is_numeric(cells) else "l" for cells in columns.values())
    rows = [_row(columns), r"\midrule", *(_row(cells) for cells in zip(*columns.values(), strict=True))]
    lines = [
        r"\begin{table}",
        r"\centering\small",
        rf"\caption{{{escape(table.title)}}}",
        rf"\label{{tab:{table.name}}}",
        rf"\begin{{tabular}}{{{layout}}}",
        r"\toprule",
        *rows,
        r"\bottomrule",
        r"\end{tabular}",
        *(rf"\par\smallskip\footnotesize {escape(note)}" for note in table.notes),
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


@cache
def escape(text: str) -> str:
    r"""Text that LaTeX sets as it stands; marks of code are dropped.

    >>> escape("50 % of `per_object`")
    '50 \\% of per\\_object'
    """
    plain = text.replace("`", "").replace("\\*", "*")
    escaped = _SPECIAL.sub(lambda found: _ESCAPED.get(found[0], "\\" + found[0]), plain)
    return re.sub("-(?=-)", "-{}", escaped)


def _row(cells: Iterable[str]) -> str:
    """Cells of a row. Behind the end of another one `[` and `*` would be that end's options."""
    text = " & ".join(map(escape, cells))
    return ("{}" if text.startswith(("[", "*")) else "") + text + r" \\"
