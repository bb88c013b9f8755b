"""Encoders and backends that live outside this package: in files that a variable names, or in installed packages."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import sys
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path

from zoo.errors import InputError

#: Python files or modules, parted as in PATH.
VARIABLE = "REPMEDSAM_PLUGINS"
#: Of entry points, each of which names a module.
GROUP = "repmedsam.plugins"


@cache
def load_plugins() -> None:
    """Imports every plugin, once; what it registers is there like the package's own.

    Worker processes inherit the variable, and find the same.

    Raises:
        InputError: one that cannot be imported.
    """
    for point in entry_points(group=GROUP):
        _load(point.value, GROUP)
    for name in filter(None, os.environ.get(VARIABLE, "").split(os.pathsep)):
        _load(name, VARIABLE)


def _load(name: str, where: str) -> None:
    try:
        if name.endswith(".py"):
            _import_file(Path(name))
        else:
            importlib.import_module(name)
    except Exception as error:
        found = f"{name}, which cannot be imported ({type(error).__name__}: {error})"
        raise InputError(where, found, "a Python file or module that registers encoders or backends") from error


def _import_file(path: Path) -> None:
    """Imports a file under a name of its own, which its classes can be pickled by."""
    place = path.absolute()
    name = f"repmedsam_plugin_{path.stem}_{hashlib.sha256(os.fsencode(place)).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, place)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
