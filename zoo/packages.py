"""Installed packages, asked for by name, whatever else is half installed."""

from __future__ import annotations

import contextlib
import importlib.metadata
from collections.abc import Iterable


def installed_versions(names: Iterable[str]) -> dict[str, str]:
    """Versions of those of the packages that are installed, in the order of their names."""
    found = {}
    for name in names:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found
