"""Folders that are written to: within that of the input, and such as nothing can be written to."""

from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pytest
from box_backend import BoxBackend
from click.testing import CliRunner
from PIL import Image
from test_dicom import stored_voxels, write_dicom

import bench.score
import compress.deploy
import zoo.data.prepare_run
import zoo.segment
from cli import main
from zoo.data.cases import find_cases
from zoo.data.prepare import Preparation
from zoo.errors import InputError
from zoo.files import check_folder

SEGMENT = ("segment", "--encoder", "repvit", "--weights", "random:0", "--jobs", "1")


@pytest.fixture(autouse=True)
def _no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compress.deploy, "open_backend", lambda _: BoxBackend(shrink_px=0))


def write_pair(folder: Path) -> None:
    """A picture of 20 x 20 pixels with a labelled square."""
    labels = np.zeros((20, 20), np.uint8)
    labels[4:12, 4:12] = 1
    Image.fromarray(labels * 99).save(folder / "x.png")
    Image.fromarray(labels).save(folder / "x_seg.png")


@pytest.mark.parametrize("command", [
    (*SEGMENT, "-i", "x.png"),
    ("prepare", "-i", "x.png", "--min-pixels", "0", "--workers", "1"),
    ("score", "-s", "x_seg.png", "-g", "x.png", "--workers", "1"),
])  # fmt: skip
def test_a_folder_that_cannot_be_written_is_named_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    write_pair(tmp_path)
    monkeypatch.chdir(tmp_path)

    def work(*_: object, **__: object) -> None:
        raise AssertionError("work was begun")

    for place, name in ((zoo.segment, "read_scan"), (zoo.data.prepare_run, "prepare_one"), (bench.score, "score_pair")):
        monkeypatch.setattr(place, name, work)
    result = CliRunner().invoke(main, [*command, "-o", "x.png/out"])
    assert "x.png/out: found no room or no right to write" in " ".join(result.output.split())
    assert "a folder that can be written" in result.output
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)


def test_a_folder_is_made_and_left_empty(tmp_path: Path) -> None:
    check_folder(tmp_path / "a" / "b")
    check_folder(tmp_path / "a" / "b")
    assert not list((tmp_path / "a" / "b").iterdir())


@pytest.mark.parametrize("suffix", [".npz", ".png"])
def test_a_disk_that_fills_up_is_told_of_the_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    write_pair(tmp_path)
    prompted = zoo.segment.load_prompted(find_cases(str(tmp_path))[0], Preparation())

    def full(self: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(InputError, match=rf"out{suffix}: found no room or no right to write .*No space left"):
        zoo.segment.write_segmentation(np.ones((20, 20), np.uint16), prompted, tmp_path / f"out{suffix}")


def test_nothing_is_written_into_a_dicom_series(tmp_path: Path) -> None:
    """Its slices would be taken for masks that `segment` made, and its own masks for the labels of a series."""
    folder = write_dicom(tmp_path / "one", stored_voxels())
    result = CliRunner().invoke(main, ["segment", "-i", str(folder), "--box", "2,3,1,8,9,2", "-o", str(folder)])
    assert result.exit_code == 1
    assert "the folder of the input one; expected another folder" in " ".join(result.output.split())


@pytest.mark.parametrize("out", ["links", "store"])
def test_nothing_is_written_beside_an_input_that_is_a_link(tmp_path: Path, out: str) -> None:
    """It would be taken for its own mask, or be replaced by that."""
    for name in ("links", "store"):
        (tmp_path / name).mkdir()
    Image.fromarray(np.zeros((20, 20), np.uint8)).save(tmp_path / "store" / "1f.png")
    (tmp_path / "links" / "x.png").symlink_to(tmp_path / "store" / "1f.png")
    words = [*SEGMENT, "-i", str(tmp_path / "links" / "x.png"), "--box", "2,3,8,9", "-o", str(tmp_path / out)]
    for more in ((), ("--overwrite",)):
        result = CliRunner().invoke(main, [*words, *more])
        assert result.exit_code == 1
        assert "the folder of the input x.png; expected another folder" in " ".join(result.output.split())
    assert (tmp_path / "links" / "x.png").is_symlink()


def test_what_gets_no_dicom_segmentation_is_told(tmp_path: Path) -> None:
    write_pair(tmp_path)
    folder = write_dicom(tmp_path / "series", stored_voxels())
    (tmp_path / "boxes.json").write_text('{"x": [[2, 3, 8, 9]], "series": [[2, 3, 1, 8, 9, 2]]}')
    boxes = ("--boxes", str(tmp_path / "boxes.json"), "--dicom-seg")
    both = CliRunner().invoke(main, [*SEGMENT, "-i", str(tmp_path), "-o", str(tmp_path / "out"), *boxes])
    assert both.exit_code == 0, both.output
    assert "--dicom-seg: none of x; it needs a DICOM series, a folder of slices" in both.output
    assert (tmp_path / "out" / "series.seg.dcm").exists()
    alone = CliRunner().invoke(main, [*SEGMENT, "-i", str(folder), "-o", str(tmp_path / "alone"), *boxes])
    assert "none of" not in alone.output


def test_what_was_prepared_is_no_input_of_the_next_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Unless its folder is named, or is one that a glob names the files of."""
    (tmp_path / "in").mkdir()
    write_pair(tmp_path / "in")
    for kind in ("npz", "npy"):
        words = ["prepare", "-i", str(tmp_path / "in"), "-o", str(tmp_path / "in" / "made" / kind), "--to", kind]
        for _ in range(2):
            made = CliRunner().invoke(main, [*words, "--min-pixels", "0", "--workers", "1"])
            assert made.exit_code == 0, made.output
            assert "1 of 1 prepared" in made.output
    assert [source.case_id for source in find_cases(str(tmp_path / "in"))] == ["x"]
    (npz,) = (tmp_path / "in" / "made" / "npz").glob("*.npz")
    for spec in (npz.parent, npz.parent / "*"):
        assert [source.npz for source in find_cases(str(spec))] == [npz]
    with pytest.raises(InputError, match="made: found no case"):
        find_cases(str(tmp_path / "in" / "made"))
    told = f"what `prepare` wrote is passed over: {npz.parent.parent / 'npy'}, {npz.parent}; name it itself for that"
    assert told in caplog.text


def test_scans_in_a_folder_of_masks_are_told_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Masks and pictures that `segment` made there are not, nor anything where the folder is named."""
    write_pair(tmp_path)
    out = tmp_path / "p1"
    words = [*SEGMENT, "-i", str(tmp_path / "x.png"), "-o", str(out), "--overlay"]
    assert CliRunner().invoke(main, words).exit_code == 0
    assert [source.case_id for source in find_cases(str(tmp_path))] == ["x"]
    assert "passed over" not in caplog.text
    (out / "visit").mkdir()
    strangers = (out / "later.png", out / "visit" / "y.png")
    for path in strangers:
        Image.fromarray(np.zeros((20, 20), np.uint8)).save(path)
    assert [source.case_id for source in find_cases(str(tmp_path))] == ["x"]
    told = f"scans where `segment` wrote are passed over: {strangers[0]}, {strangers[1]}; name them"
    assert told in caplog.text
    caplog.clear()
    assert strangers[0] in [source.image_path for source in find_cases(str(out))]
    assert "passed over" not in caplog.text
