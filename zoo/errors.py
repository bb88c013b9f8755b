"""The one error type for input that a user can mend."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path

#: An error lists no more known names than this.
MOST_NAMES = 40


class InputError(ValueError):
    """Input that cannot be used, told in one line: where, what was found, what was expected.

    Attributes:
        where: file (and key) or option at fault.
        found: what was there.
        expected: what would have been right.
    """

    def __init__(self, where: str | Path, found: str, expected: str) -> None:
        self.where, self.found, self.expected = str(where), found, expected
        super().__init__(f"{where}: found {found}; expected {expected}")

    def __reduce__(self) -> tuple[type[InputError], tuple[str, str, str]]:
        return type(self), (self.where, self.found, self.expected)


def unknown_name(kind: str, name: str, known: Iterable[str]) -> InputError:
    """Error for an unknown `name` of some `kind` that suggests the nearest known ones."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    return InputError(kind, f"unknown name {name!r}", f"{hint}one of: {first_of(known, MOST_NAMES)}")


def first_of(things: Iterable[object], most: int, separator: str = ", ") -> str:
    """`a, b and 3 more`: things in a row, of many the first.

    >>> first_of("abcde", 2)
    'a, b and 3 more'
    """
    named = [str(thing) for thing in things]
    more = f" and {len(named) - most} more" if len(named) > most else ""
    return separator.join(named[:most]) + more
