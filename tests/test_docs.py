"""The documentation: its examples are run, page by page, its commands parsed, and the site builds without a warning."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from click.testing import CliRunner

from cli import main
from zoo import backends, registry
from zoo.sam.rule import PUBLISHED_2D, PUBLISHED_3D, Protocol2D, Protocol3D

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").glob("*.md"))
#: A block of code; the comment before it says that it is slow, or that it cannot be run here, and why.
BLOCK = re.compile(r"(?:<!-- (not run|slow).*? -->\n)?```(sh|python)[^\n]*\n(.*?)```", re.DOTALL)
#: Pages whose examples build on what another page's code registers.
AFTER = {"quantise.md": "encoder.md"}


@dataclass(frozen=True)
class Block:
    """`mark` is empty, `slow` or `not run`."""

    mark: str
    language: str
    code: str

    @property
    def commands(self) -> list[list[str]]:
        """Arguments of each `repmedsam` in shell lines."""
        lines = self.code.replace("\\\n", " ").splitlines() if self.language == "sh" else []
        split = [shlex.split(line, comments=True) for line in lines]
        return [words[1:] for words in split if words and words[0] == "repmedsam"]


def blocks(page: Path) -> list[Block]:
    return [Block(*found.groups("")) for found in BLOCK.finditer(page.read_text(encoding="utf-8"))]


@pytest.fixture
def _registries(monkeypatch: pytest.MonkeyPatch) -> None:
    """What examples register is gone afterwards."""
    registry.list_encoders()
    backends.list_backends()
    monkeypatch.setattr(registry, "_REGISTRY", dict(registry._REGISTRY))
    monkeypatch.setattr(backends, "_BACKENDS", dict(backends._BACKENDS))


def run(page: Path, marks: set[str]) -> None:
    """The blocks with one of these marks, in order, in one namespace."""
    if page.name in AFTER:
        exec(next(block.code for block in blocks(page.with_name(AFTER[page.name])) if block.language == "python"), {})
    names: dict[str, Any] = {"__name__": f"example_{page.stem}"}
    for block in (block for block in blocks(page) if block.mark in marks):
        if block.language == "python":
            exec(compile(block.code, page.name, "exec"), names)
        for arguments in block.commands:
            result = CliRunner().invoke(main, arguments, catch_exceptions=False)
            assert result.exit_code == 0, f"{arguments}: {result.output}"


FAST = [page for page in PAGES if any(not block.mark for block in blocks(page))]
SLOW = [page for page in PAGES if any(block.mark == "slow" for block in blocks(page))]


@pytest.mark.usefixtures("_registries")
@pytest.mark.parametrize("page", FAST, ids=lambda page: page.stem)
def test_examples_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run(page, {""})


@pytest.mark.slow
@pytest.mark.usefixtures("_registries")
@pytest.mark.parametrize("page", SLOW, ids=lambda page: page.stem)
def test_slow_examples_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run(page, {"", "slow"})


def _all_commands() -> list[Any]:
    """Every `repmedsam` in the documentation and README, whether it is run or not."""
    pages = [*PAGES, ROOT / "README.md"]
    found = [(page.name, each) for page in pages for block in blocks(page) for each in block.commands]
    return [pytest.param(each, id=f"{page}: {' '.join(each)[:70]}") for page, each in found]


@pytest.mark.parametrize("arguments", _all_commands())
def test_commands_parse(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Options that were renamed are found, without the files that the examples name."""
    monkeypatch.setattr(click.Path, "convert", lambda self, value, param, ctx: value)
    command: click.Command | None = main
    while isinstance(command, click.Group):
        name, *arguments = arguments
        command = command.get_command(click.Context(command), name)
    assert command is not None, name
    command.make_context(name, arguments)


def test_the_workflow_uses_options_that_there_are() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "benchmarks.yml").read_text())
    steps = "\n".join(step.get("run", "") for step in workflow["jobs"]["compare"]["steps"])
    used = re.findall(r"cli\.py (bench|compare)([^|)]*)", steps)
    assert [name for name, _ in used] == ["bench", "compare"]
    for name, rest in used:
        command = main.get_command(click.Context(main), name)
        assert command is not None
        options = {each for parameter in command.params for each in (*parameter.opts, *parameter.secondary_opts)}
        assert set(re.findall(r"--[a-z-]+", rest)) <= options


def test_every_page_is_in_the_navigation() -> None:
    navigation = yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]
    assert sorted(file for entry in navigation for file in entry.values()) == [page.name for page in PAGES]


@pytest.mark.filterwarnings("ignore")
def test_the_site_builds_without_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    build = pytest.importorskip("mkdocs.commands.build", reason="found no mkdocs; it comes with the extra `docs`")
    config = pytest.importorskip("mkdocs.config").load_config(str(ROOT / "mkdocs.yml"), site_dir=str(tmp_path))
    build.build(config)
    assert not [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")]
    assert "Add an encoder" in (tmp_path / "index.html").read_text()


def test_the_published_rule_is_told_as_it_is() -> None:
    """The table of options in which it differs from the defaults."""
    table = (ROOT / "docs" / "concepts.md").read_text().split("| option | published | here | |\n|---|---|---|---|\n")[1]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.split("\n\n")[0].splitlines()]
    told = {name.strip("`-").replace("-", "_"): (published, here) for name, published, here, _ in rows}
    words = {True: "yes", False: "no", None: "if trained"}
    defaults = {**vars(Protocol3D()), **vars(Protocol2D())}
    published = {**PUBLISHED_3D, **PUBLISHED_2D}
    assert told == {
        name: tuple(words[one] if isinstance(one, bool | None) else f"{one:g}" if isinstance(one, float) else str(one)
                    for one in (value, defaults[name]))
        for name, value in published.items()
    }  # fmt: skip
