"""Encoders in files outside the package: found by every command, and told of where they cannot be imported."""

from __future__ import annotations

import os
import sys
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import pytest
from click.testing import CliRunner

from cli import main
from zoo import plugins, registry
from zoo.backends import list_backends
from zoo.errors import InputError
from zoo.plugins import GROUP, VARIABLE, load_plugins
from zoo.weights.detect import fitting, nearest

PAGE = Path(__file__).parents[1] / "docs" / "encoder.md"


@pytest.fixture(autouse=True)
def _as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """What plugins register is gone afterwards."""
    registry.list_encoders()
    monkeypatch.setattr(registry, "_REGISTRY", dict(registry._REGISTRY))
    load_plugins.cache_clear()
    registry._import_encoders.cache_clear()


TWICE = {
    "encoder 'repvit'": "from dataclasses import replace\nfrom zoo.encoders.timm_backbone import SPEC\n"
    "from zoo.registry import register_encoder\nregister_encoder(replace(SPEC, name='repvit'))(None)",
    "family 'timm'": "from zoo.registry import register_family\nregister_family('timm')(None)",
    "backend 'torch'": "from zoo.backends import register_backend\nregister_backend('torch', ())(None)",
}


@pytest.mark.parametrize("what", TWICE)
def test_a_plugin_replaces_nothing(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    list_backends()
    (tmp_path / "mine.py").write_text(TWICE[what], encoding="utf-8")
    monkeypatch.setenv(VARIABLE, str(tmp_path / "mine.py"))
    load_plugins.cache_clear()
    with pytest.raises(InputError, match=f"mine.py, which cannot be imported .*{what} is registered twice"):
        load_plugins()


BROKEN = """
from dataclasses import replace
from zoo.encoders.timm_backbone import SPEC
from zoo.registry import register_encoder

@register_encoder(replace(SPEC, name="broken"))
def broken(spec):
    return undefined
"""


def test_an_encoder_that_cannot_be_built_breaks_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "mine.py").write_text(BROKEN, encoding="utf-8")
    monkeypatch.setenv(VARIABLE, str(tmp_path / "mine.py"))
    state = registry.create_sam("light_repvit_m0_9", "random:0").state_dict()
    assert "light_repvit_m0_9" in [fit.encoder for fit in fitting(state)]
    assert nearest(state).encoder != "broken"
    assert "encoder broken is not looked for: it cannot be built (NameError: name 'undefined'" in caplog.text


OF_ANOTHER_SHAPE = """
from dataclasses import replace
from torch import nn
from zoo.encoders.timm_backbone import SPEC
from zoo.registry import register_encoder

@register_encoder(replace(SPEC, name="mine", image_size=64))
def mine(spec):
    return nn.Conv2d(3, 256, 2, stride=2)
"""


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("mine", r"encoder mine: found \(1, 256, 32, 32\); expected \(1, 256, 64, 64\)"),
        ("mine@128", None),
        ("timm:efficientformer_l1", r"encoder timm:efficientformer_l1: found no embedding of an image of 256 px \(.*"),
    ],
)
def test_an_encoder_of_another_shape_is_refused(
    name: str, told: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text(OF_ANOTHER_SHAPE, encoding="utf-8")
    monkeypatch.setenv(VARIABLE, str(tmp_path / "mine.py"))
    if told is None:
        registry.create_sam(name)
        return
    with pytest.raises(InputError, match=told):
        registry.create_sam(name)


def plugin(folder: Path, name: str = "mine") -> Path:
    """The encoder of the documentation, in a file of somebody else's."""
    code = PAGE.read_text(encoding="utf-8").split("```python")[1].split("\n", 1)[1].split("```")[0]
    path = folder / f"{name}.py"
    path.write_text(code, encoding="utf-8")
    return path


def test_a_file_that_the_variable_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(plugin(tmp_path)))
    assert "plain" in registry.list_encoders()
    assert registry.create_encoder("plain") is not None
    assert "plain" in CliRunner().invoke(main, ["list"]).output


def test_files_of_one_name_are_two_plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [tmp_path / folder / "mine.py" for folder in ("one", "two")]
    for path in paths:
        path.parent.mkdir()
        path.write_text(f"PLACE = {path.parent.name!r}", encoding="utf-8")
    monkeypatch.setenv(VARIABLE, os.pathsep.join(map(str, paths)))
    load_plugins()
    found = [module for name, module in sys.modules.items() if name.startswith("repmedsam_plugin_mine_")]
    assert {getattr(module, "PLACE", None) for module in found} >= {"one", "two"}


def test_an_entry_point_of_an_installed_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plugin(tmp_path, "somebodys_package")
    monkeypatch.syspath_prepend(tmp_path)
    points = EntryPoints([EntryPoint("anything", "somebodys_package", GROUP)])
    monkeypatch.setattr(plugins, "entry_points", lambda group: points.select(group=group))
    assert "plain" in registry.list_encoders()


def test_a_plugin_that_cannot_be_imported_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text("import nothing_of_that_name")
    for name in (str(broken), str(tmp_path / "missing.py"), "no_such_module"):
        monkeypatch.setenv(VARIABLE, os.pathsep.join(["", name]))
        load_plugins.cache_clear()
        with pytest.raises(InputError, match=f"{VARIABLE}: found .*{Path(name).stem}.*, which cannot be imported"):
            load_plugins()
