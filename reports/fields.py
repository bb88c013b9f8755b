"""Values of records, which others may have written: what is of another type counts as not said."""

from __future__ import annotations

from typing import Any


def integer(value: object) -> int:
    """A whole number, or 0."""
    return value if isinstance(value, int) else 0


def listed(value: object) -> list[Any]:
    """A list, or an empty one."""
    return value if isinstance(value, list) else []


def mapped(value: object) -> dict[str, Any]:
    """An object's fields, or none."""
    return value if isinstance(value, dict) else {}
