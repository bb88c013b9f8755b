"""`segment` that goes on: behind a case that fails, and beside masks of another image or of a killed run."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from box_backend import BoxBackend
from click.testing import CliRunner, Result
from PIL import Image

import compress.deploy
from bench.candidate import Recipe
from cli import main
from zoo.data.scan import read_scan
from zoo.files import append_json


@pytest.fixture(autouse=True)
def _masks_that_fill_their_boxes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The model in the runtime is none: what is tested is what is done again."""
    monkeypatch.setattr(compress.deploy, "open_backend", lambda _: BoxBackend(shrink_px=0))


def run(image: Path, *arguments: object) -> Result:
    words = ["segment", "--encoder", "repvit", "--weights", "random:0", "--jobs", "1", "-i", str(image)]
    return CliRunner().invoke(main, [*words, "-o", str(image.parent / "out"), *map(str, arguments)])


def write_image(folder: Path, side: int = 40, grey: int = 9) -> Path:
    """An image with the mask of one object."""
    labels = np.zeros((side, side), np.uint8)
    labels[5:20, 5:20] = 1
    Image.fromarray(np.full((side, side), grey, np.uint8)).save(folder / "p1.png")
    Image.fromarray(labels).save(folder / "p1_mask.png")
    return folder / "p1.png"


def interrupted_at_its_line(path: Path, line: dict[str, object]) -> None:
    """Of `append_json`: Ctrl-C in the moment before a mask's line is written."""
    if "settings" in line:
        raise KeyboardInterrupt
    append_json(path, line)


def assert_told(result: Result, what: str) -> None:
    """That nothing was done, and why."""
    assert result.exit_code == 1
    assert what in " ".join(result.output.split())


def test_an_image_that_was_touched_keeps_its_masks_and_one_that_was_replaced_does_not(tmp_path: Path) -> None:
    image = write_image(tmp_path)
    assert run(image).exit_code == 0
    os.utime(image, ns=(1, 1))
    assert "1 of 1 were in" in run(image).output
    write_image(tmp_path, side=60)
    assert_told(run(image), f"found masks of what {image} or its labels were before they changed")
    assert run(image, "--overwrite").exit_code == 0
    assert np.asarray(Image.open(tmp_path / "out" / "p1.png")).shape == (60, 60)
    assert "1 of 1 were in" in run(image).output


def test_a_box_that_was_corrected_in_its_file_is_told_of_and_those_of_other_cases_are_not(tmp_path: Path) -> None:
    image, boxes = write_image(tmp_path), tmp_path / "boxes.json"
    boxes.write_text('{"p1": [[5, 5, 19, 19]]}')
    assert run(image, "--boxes", boxes).exit_code == 0
    boxes.write_text('{"p1": [[5, 5, 19, 19]], "p2": [[1, 1, 2, 2]]}')
    assert "1 of 1 were in" in run(image, "--boxes", boxes).output
    boxes.write_text('{"p1": [[5, 5, 30, 30]], "p2": [[1, 1, 2, 2]]}')
    assert_told(run(image, "--boxes", boxes), "found masks made by other settings")


def test_masks_of_labels_that_have_changed_are_told_of(tmp_path: Path) -> None:
    image = write_image(tmp_path)
    assert run(image).exit_code == 0
    Image.fromarray(np.ones((40, 40), np.uint8)).save(tmp_path / "p1_mask.png")
    assert run(image).exit_code == 1


def test_masks_of_other_weights_of_the_same_name_are_told_of(tmp_path: Path) -> None:
    image, weights = write_image(tmp_path), tmp_path / "mine.safetensors"
    weights.write_bytes(b"these")
    assert run(image, "--weights", weights).exit_code == 0
    assert "1 of 1 were in" in run(image, "--weights", weights).output
    weights.write_bytes(b"those")
    assert_told(run(image, "--weights", weights), "found masks made by other settings")


def test_a_cluster_uses_the_cores_of_its_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And none of the machine's that asks for it, which may be a small one."""
    threads: list[int] = []

    def note_threads(recipe: Recipe) -> BoxBackend:
        threads.append(recipe.threads)
        return BoxBackend(shrink_px=0)

    monkeypatch.setattr(compress.deploy, "open_backend", note_threads)
    monkeypatch.setattr(compress.deploy, "usable_cores", lambda: 48)
    monkeypatch.setattr("zoo.segment_run.segment_all", lambda run, *_: bool(run.open_backend()) - 1)
    cluster = ("--executor", "dask", "--scheduler", "tcp://10.0.0.1:8786")
    for more in ((), ("--threads", "3")):
        words = ["segment", "--encoder", "repvit", "--weights", "random:0", "-i", str(write_image(tmp_path)), *cluster]
        done = CliRunner().invoke(main, [*words, "-o", str(tmp_path / "out"), *more])
        assert done.exit_code == 0, done.output
    assert threads == [48, 3]


def test_a_mask_whose_line_was_never_written_is_made_again(tmp_path: Path) -> None:
    image = write_image(tmp_path)
    assert run(image).exit_code == 0
    (tmp_path / "out" / "segment.jsonl").write_text("")
    (tmp_path / "out" / "p1.png").write_bytes(b"of other settings")
    result = run(image)
    assert result.exit_code == 0
    assert "1 of 1 segmented" in result.output
    assert np.asarray(Image.open(tmp_path / "out" / "p1.png")).shape == (40, 40)


def test_a_mask_that_a_killed_run_of_other_settings_left_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its line is not written yet; the one before it is of a mask that is no more."""
    image = write_image(tmp_path)
    assert run(image, "--box", "5,5,19,19").exit_code == 0
    first = (tmp_path / "out" / "p1.png").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr("zoo.segment_run.append_json", interrupted_at_its_line)
        assert run(image, "--box", "5,5,30,30", "--overwrite").exit_code == 130
    assert (tmp_path / "out" / "p1.png").read_bytes() != first
    assert "1 of 1 segmented" in run(image, "--box", "5,5,19,19").output
    assert (tmp_path / "out" / "p1.png").read_bytes() == first


def test_what_lies_beside_a_mask_that_is_new_is_left_alone(tmp_path: Path) -> None:
    image, picture = write_image(tmp_path), tmp_path / "out" / "overlays" / "p1.png"
    picture.parent.mkdir(parents=True)
    picture.write_bytes(b"somebody's")
    assert run(image).exit_code == 0
    assert picture.read_bytes() == b"somebody's"


def test_pictures_of_masks_that_were_replaced_are_gone(tmp_path: Path) -> None:
    image = write_image(tmp_path)
    assert run(image, "--overlay").exit_code == 0
    assert (tmp_path / "out" / "overlays" / "p1.png").exists()
    assert run(image, "--box", "5,5,30,30", "--overwrite").exit_code == 0
    assert not (tmp_path / "out" / "overlays" / "p1.png").exists()


def test_pictures_that_are_asked_for_later_are_drawn(tmp_path: Path) -> None:
    image, picture = write_image(tmp_path), tmp_path / "out" / "overlays" / "p1.png"
    assert run(image).exit_code == 0
    assert "1 of 1 segmented" in run(image, "--overlay").output
    assert picture.exists()
    assert "1 of 1 were in" in run(image, "--overlay").output
    assert "1 of 1 were in" in run(image).output
    assert "1 of 1 segmented" in run(image, "--overwrite").output
    assert not picture.exists(), "it may be of another mask"


def test_a_run_that_is_killed_before_its_first_line_leaves_a_mask_that_is_known_as_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = write_image(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("zoo.segment_run.append_json", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert run(image).exit_code == 130
    assert (tmp_path / "out" / "p1.png").exists()
    assert "1 of 1 segmented" in run(image).output


def test_an_error_that_nobody_thought_of_loses_its_case_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = write_image(tmp_path)
    image.rename(tmp_path / "a.png")
    write_image(tmp_path)
    monkeypatch.setattr("zoo.segment.read_scan", lambda path: {"a.png": read_scan}[path.name](path))
    result = run(image, "-i", tmp_path / "a.png", "--box", "5,5,20,20")
    assert result.exit_code == 1
    assert "p1_mask.png: KeyError('p1.png')" in " ".join(result.output.split())
    assert "1 of 2 segmented" in result.output
