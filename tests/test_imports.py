"""Imports run one way, as CONTRIBUTING.md says: each package may use only what lies below it."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ALLOWED = {
    "zoo": {"zoo"},
    "ckpts": {"ckpts"},
    "bench": {"bench", "zoo"},
    "compress": {"compress", "bench", "zoo"},
    "reports": {"reports", "bench.record", "zoo.errors", "zoo.files"},
}
OURS = (*ALLOWED, "cli")


def imported(path: Path) -> set[str]:
    """Names of our own modules that a file imports, wherever in the file."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add(node.module or "")
    return {name for name in names if name.partition(".")[0] in OURS}


@pytest.mark.parametrize("package", ALLOWED)
def test_imports_run_one_way(package: str) -> None:
    for path in (ROOT / package).rglob("*.py"):
        for name in imported(path):
            allowed = any(name == a or name.startswith(f"{a}.") for a in ALLOWED[package])
            assert allowed, f"{path.relative_to(ROOT)} imports {name}"


@pytest.mark.parametrize(
    "module", ["cli", "reports.render", "bench.record", "zoo.errors", "zoo.segment", "compress.deploy", "bench.score"]
)
def test_imports_without_torch(module: str) -> None:
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
