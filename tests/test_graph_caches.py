"""What is kept of graphs is that of today's code, and of these very files."""

from __future__ import annotations

import errno
import importlib.util
import os
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from conftest import ENCODER
from fill import smooth_image
from torch import nn

from bench.candidate import Candidate
from compress import export
from compress.quantize_run import Options, quantise_candidate
from zoo import cache, onnx_export
from zoo.backends.graphs import GRAPHS, openvino_runtime
from zoo.backends.graphs.openvino_runtime import load_compiled
from zoo.data.cases import find_cases
from zoo.errors import InputError
from zoo.onnx_export import Graph, onnx_file, write_onnx
from zoo.registry import create_sam
from zoo.sam.model import Sam

PLUGIN = """
from torch import nn

SCALE = 1.0

class Base(nn.Module):
    def forward(self, x):
        return SCALE * x

class Scaled(Base):
    pass
"""


def imported(path: Path, code: str, monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    """A module of the file's class, imported as plugins are."""
    path.write_text(code)
    spec = importlib.util.spec_from_file_location("a_plugin", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "a_plugin", module)
    # Bytecode is known by its source's time in whole seconds, which two versions of a test share.
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    spec.loader.exec_module(module)
    return nn.Sequential(module.Scaled())


def test_files_are_made_once_for_what_they_are_made_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cache.FOLDER_VARIABLE, str(tmp_path))
    made: list[Path] = []

    def make(path: Path) -> None:
        made.append(path)
        path.touch()

    module = nn.Linear(2, 2)
    first = cache.cached_file("encoder.onnx", module, make, 20)
    assert cache.cached_file("encoder.onnx", module, make, 20) == first
    assert len(made) == 1
    of_other_weights = cache.cached_file("encoder.onnx", nn.Linear(2, 2), make, 20)
    of_another_fact = cache.cached_file("encoder.onnx", module, make, 21)
    assert len({first, of_other_weights, of_another_fact}) == 3
    files = {first, of_other_weights, of_another_fact}
    assert set(tmp_path.iterdir()) == files | {Path(f"{path}.sha256") for path in files}, "no part is left"


@pytest.mark.parametrize("damage", [b"", b"whole", b"\xff" * 9, None])
@pytest.mark.parametrize("kept", ["", ".sha256"])
def test_a_damaged_file_is_made_anew(
    damage: bytes | None, kept: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(cache.FOLDER_VARIABLE, str(tmp_path))
    module = nn.Linear(2, 2)

    def make(path: Path) -> None:
        path.write_bytes(b"the whole")

    path = cache.cached_file("encoder.onnx", module, make)
    damaged = Path(f"{path}{kept}")
    if damage is None:
        damaged.unlink()
    else:
        damaged.write_bytes(damage)
    assert cache.cached_file("encoder.onnx", module, make).read_bytes() == b"the whole"
    assert cache.cached_file("encoder.onnx", module, Path.unlink) == path, "it is intact again"


def test_equal_weights_for_another_size_have_graphs_of_their_own(
    sam: Sam, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Size and prompt frame are constants of the graphs, which no weight and no layer tells."""
    monkeypatch.setenv(cache.FOLDER_VARIABLE, str(tmp_path))
    monkeypatch.setattr(onnx_export, "write_onnx", lambda graph, path: path.touch())
    larger = create_sam("timm:mobilenetv4_conv_small@128")
    for name in GRAPHS:
        assert onnx_file(sam, name) == onnx_file(create_sam(ENCODER), name) != onnx_file(larger, name)


def test_a_file_is_made_anew_for_other_code_of_a_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cache.FOLDER_VARIABLE, str(tmp_path / "cache"))
    plugin = tmp_path / "plugin.py"
    first = cache.cached_file("encoder.onnx", imported(plugin, PLUGIN, monkeypatch), Path.touch)
    assert cache.cached_file("encoder.onnx", imported(plugin, PLUGIN, monkeypatch), Path.touch) == first
    other = imported(plugin, PLUGIN.replace("1.0", "2.0"), monkeypatch)
    assert cache.cached_file("encoder.onnx", other, Path.touch) != first


@pytest.mark.parametrize("package", cache.PACKAGES)
def test_a_file_is_made_anew_by_another_release(package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cache.FOLDER_VARIABLE, str(tmp_path))
    module, versions = nn.Linear(2, 2), cache._versions()
    first = cache.cached_file("encoder.onnx", module, Path.touch)
    monkeypatch.setattr(cache, "_versions", lambda: versions | {package: "0.0"})
    assert package in versions
    assert cache.cached_file("encoder.onnx", module, Path.touch) != first


def graph_that_multiplies(path: Path, factor: float) -> Path:
    layer = nn.Conv2d(3, 3, 1)
    nn.init.constant_(layer.weight, factor)
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    example = {"image": torch.from_numpy(smooth_image(64))}
    write_onnx(Graph("encoder", layer.eval(), example, {"image": {}}, ("embedding",)), path)
    return path


def test_openvino_tells_graphs_of_one_path_size_and_time_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cache.FOLDER_VARIABLE, str(tmp_path / "cache"))
    image, live = smooth_image(64), tmp_path / "live.onnx"
    sizes = set()
    for factor in (1.0, 3.0):
        shutil.copyfile(graph_that_multiplies(tmp_path / "made.onnx", factor), live)
        os.utime(live, (1_600_000_000,) * 2)
        sizes.add(live.stat().st_size)
        found = load_compiled(live, "fp32", 2)({"image": image})[0]
        np.testing.assert_allclose(found[:, 0], factor * image.sum(1), rtol=1e-4)
    assert len(sizes) == 1


def test_openvino_does_without_a_cache_that_it_cannot_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It does not say that a disk is full, but misses what it has written, as if the graph were at fault."""
    core = openvino_runtime._core()

    def compile_model(path: str, device: str, settings: dict[str, Any]) -> object:
        if settings["CACHE_DIR"]:
            raise RuntimeError("Check 'std::filesystem::exists(blob)' failed")
        return core.compile_model(path, device, settings)

    monkeypatch.setenv(cache.FOLDER_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(openvino_runtime, "_core", lambda: SimpleNamespace(compile_model=compile_model))
    path, image = graph_that_multiplies(tmp_path / "graph.onnx", 2.0), smooth_image(64)
    np.testing.assert_allclose(load_compiled(path, "fp32", 1)({"image": image})[0][:, 0], 2 * image.sum(1), rtol=1e-4)
    assert "OpenVINO cannot use it" in caplog.text


def test_quantize_refuses_a_float_graph_that_is_not_the_models(
    candidate: Candidate, graphs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = onnx.load(graphs / "encoder.onnx")
    for tensor in model.graph.initializer:
        if len(tensor.dims) == 4:
            values = 2 * onnx.numpy_helper.to_array(tensor)
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    onnx.save(model, tmp_path / "stale.onnx")
    monkeypatch.setattr(export, "onnx_file", lambda sam, name: tmp_path / "stale.onnx")
    with pytest.raises(InputError, match=r"stale\.onnx: found graphs that differ from the model"):
        quantise_candidate(candidate, tmp_path / "int8", find_cases("phantom:rgb2d"), Options(), lambda step: None)


def test_a_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv(cache.FOLDER_VARIABLE, str(tmp_path / "file"))
    with pytest.raises(InputError, match=r"no right to write .* REPMEDSAM_CACHE may name another"):
        cache.cached_file("encoder.onnx", nn.Linear(2, 2), Path.touch)
    with pytest.raises(InputError, match=r"file.openvino: .* REPMEDSAM_CACHE may name another"):
        cache.cached_folder("openvino")


@pytest.mark.parametrize("home", ["a read-only one", "none"])
def test_without_a_home_to_write_to_graphs_are_kept_for_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: str, caplog: pytest.LogCaptureFixture
) -> None:
    """As in a container, whose user may be a mere number."""
    (tmp_path / "file").touch()

    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setenv(cache.FOLDER_VARIABLE, "")
    monkeypatch.setenv(cache.TEMPORARY_VARIABLE, "")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", no_home if home == "none" else lambda: tmp_path / "file")
    module = nn.Linear(2, 2)
    path = cache.cached_file("encoder.onnx", module, Path.touch)
    assert path.is_file()
    assert path == cache.cached_file("encoder.onnx", module, Path.touch)
    assert cache.cached_folder("openvino").parent == path.parent
    assert os.environ[cache.TEMPORARY_VARIABLE] == str(path.parent), "processes that this one starts use it, too"
    (told,) = [record.message for record in caplog.records]
    assert "unless REPMEDSAM_CACHE names a folder" in told


def test_a_filled_cache_that_cannot_be_written_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cache.FOLDER_VARIABLE, "")
    monkeypatch.setenv(cache.TEMPORARY_VARIABLE, "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    module = nn.Linear(2, 2)
    path = cache.cached_file("encoder.onnx", module, Path.touch)

    def refuse(folder: Path) -> None:
        raise InputError(folder, "no right to write", "another")

    monkeypatch.setattr(cache, "check_folder", refuse)
    assert cache.cached_folder("openvino").parent != path.parent
    assert cache.cached_file("encoder.onnx", module, Path.touch) == path
    other = cache.cached_file("boxes.onnx", module, Path.touch)
    assert other == cache.cached_file("boxes.onnx", module, Path.touch)
    assert other.parent != path.parent


def test_a_full_cache_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setenv(cache.FOLDER_VARIABLE, str(tmp_path))
    with pytest.raises(InputError, match=r"encoder-\w+.onnx: found no room .*; REPMEDSAM_CACHE may name another"):
        cache.cached_file("encoder.onnx", nn.Linear(2, 2), full)
