"""Clicks beside boxes: from files and the command line, through images, volumes and orientations, to the decoder."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from box_backend import BoxBackend
from click.testing import CliRunner, Result
from PIL import Image
from test_scans import AXES
from test_segment import write_volume
from test_volume import volume

import compress.deploy
from cli import main
from zoo.backends import Floats, Prompts, Windows
from zoo.data.boxes import read_boxes, read_clicks
from zoo.data.case import Case
from zoo.data.clicks import Click, check_clicks
from zoo.errors import InputError
from zoo.sam.image import segment_image
from zoo.sam.rule import PROTOCOLS, Protocol2D, Protocol3D
from zoo.sam.volume import segment_volume
from zoo.windows import CELL_PX, OUTSIDE


@dataclass
class ClickBackend(BoxBackend):
    """Masks that fill their boxes, but for a square of 5 pixels that each click adds or takes away."""

    shrink_px: int = 0
    clicks: list[list[float]] = field(default_factory=list)

    def decode(self, embedding: Floats, prompts: Prompts, multimask: bool = False) -> tuple[Floats, Floats]:
        logits, iou = super().decode(embedding, prompts, multimask)
        if prompts.points is not None and prompts.point_labels is not None:
            for row, points, labels in zip(logits, prompts.points, prompts.point_labels, strict=True):
                for (x, y), label in zip(points, labels, strict=True):
                    self.clicks.append([float(x), float(y), int(label)])
                    column, line = round(float(x)), round(float(y))
                    row[0, max(0, line - 2) : line + 3, max(0, column - 2) : column + 3] = 1 if label else -1
        return logits, iou

    def decode_boxes(
        self, embedding: Floats, boxes: Floats, windows: Windows | None = None, masks: Floats | None = None
    ) -> tuple[Floats, Floats]:
        """Nothing outside the windows, which may be anything."""
        logits, iou = super().decode_boxes(embedding, boxes, windows, masks)
        for row, (left, top, right, bottom) in zip(logits, () if windows is None else windows * CELL_PX, strict=False):
            inside = row[0, top:bottom, left:right].copy()
            row[:] = OUTSIDE
            row[0, top:bottom, left:right] = inside
        return logits, iou


def picture(boxes: list[list[int]], clicks: tuple[Click, ...], side: int = 256) -> Case:
    labels = np.arange(1, len(boxes) + 1, dtype=np.uint16)
    return Case("p", "US", np.zeros((side, side, 3), np.uint8), np.array(boxes), labels, (1.0, 1.0), clicks=clicks)


def test_clicks_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "b.json"
    objects = [{"box": [0, 0, 9, 9]}, {"box": [5, 5, 20, 20], "clicks": [[6, 7, 1], [8, 19, 0]]}]
    path.write_text(json.dumps({"x": objects, "y": [{"box": [1, 1, 2, 2], "clicks": [[1, 1, 1]]}]}))
    assert read_boxes(path, "x")[0].tolist() == [[0, 0, 9, 9], [5, 5, 20, 20]]
    assert read_clicks(path, "x") == (Click(1, (6, 7), True), Click(1, (8, 19), False))
    assert read_clicks(path, "y") == (Click(0, (1, 1), True),)
    (tmp_path / "b.csv").write_text("x0,y0,x1,y1\n0,0,9,9\n")
    assert read_clicks(tmp_path / "b.csv", "x") == ()


@pytest.mark.parametrize("click", [[1], [1, 2, 2], [1.5, 2, 1], [], [1, float("nan"), 1], ["x", 1, 1], 3, None])
def test_what_is_no_click_is_named(tmp_path: Path, click: object) -> None:
    path = tmp_path / "b.json"
    path.write_text(json.dumps([{"box": [0, 0, 9, 9], "clicks": [click]}]))
    with pytest.raises(InputError, match=r"b\.json: found (a click|boxes that cannot be read)"):
        read_clicks(path, "x")


def test_clicks_lie_in_their_boxes() -> None:
    boxes = np.array([[2, 3, 10, 12]])
    check_clicks("f", [Click(0, (2, 12), True), Click(0, (10, 3), False)], boxes)
    for beside in ((1, 5), (11, 5), (5, 2), (5, 13)):
        with pytest.raises(InputError, match=r"a click at .* expected a voxel in the object's box \[2, 3, 10, 12\]"):
            check_clicks("f", [Click(0, beside, True)], boxes)
    with pytest.raises(InputError, match="a click of 3 coordinates; expected 2, as boxes have"):
        check_clicks("f", [Click(0, (5, 5, 5), True)], boxes)


def test_an_image_is_decoded_with_the_clicks_of_each_object() -> None:
    clicks = (Click(1, (150, 160), False), Click(1, (130, 140), True), Click(0, (20, 20), False))
    backend = ClickBackend()
    masks = segment_image(picture([[10, 10, 40, 40], [100, 110, 200, 220], [50, 50, 60, 60]], clicks), backend)
    assert backend.clicks == [[20, 20, 0], [150, 160, 0], [130, 140, 1]]
    assert (masks[18:23, 18:23] == 0).all()
    assert masks[30, 30] == 1
    assert masks[160, 150] == 0
    assert masks[150, 150] == 2
    assert masks[55, 55] == 3, "objects without clicks are as they were"
    without = segment_image(picture([[10, 10, 40, 40], [100, 110, 200, 220], [50, 50, 60, 60]], ()), ClickBackend())
    assert sorted(np.unique(without)) == [0, 1, 2, 3]
    assert ((masks != without).sum(), (masks == 0)[masks != without].all()) == (50, True)


def test_a_click_is_seen_in_the_tile_of_its_object() -> None:
    """Of an image of 1024 px, an object of 60 px is looked at in a tile of 256 at full size."""
    backend = ClickBackend()
    case = picture([[600, 700, 659, 759]], (Click(0, (620, 730), False),), side=1024)
    masks = segment_image(case, backend, Protocol2D(box_margin_px=0))
    (x, y, _), (left, top, *_) = backend.clicks[0], backend.prompts[0]
    assert (x - left, y - top) == (20, 30)
    assert (masks[728:733, 618:623] == 0).all()
    assert (masks > 0).sum() == 60 * 60 - 25
    whole = ClickBackend()
    segment_image(case, whole, Protocol2D(zoom=False))
    assert whole.clicks == [[620 / 4, 730 / 4, 0]]


@pytest.mark.parametrize("within_box", [True, False])
def test_protocols_agree_on_clicks(within_box: bool) -> None:
    case = volume([[50, 60, 1, 90, 100, 6], [20, 20, 0, 40, 44, 7], [100, 100, 2, 130, 130, 4]])
    clicks = (Click(0, (70, 80, 3), False), Click(0, (70, 80, 6), True), Click(2, (100, 115, 2), False))
    case = replace(case, clicks=clicks)
    found = {}
    for name in PROTOCOLS:
        backend = ClickBackend()
        found[name] = segment_volume(case, backend, Protocol3D(name, within_box=within_box, propagate=False))
        assert sorted(backend.clicks) == [[70, 80, 0], [70, 80, 1], [100, 115, 0]], "each in its slice alone"
    np.testing.assert_array_equal(found["batched"], found["per_object"])
    np.testing.assert_array_equal(found["batched"], found["cached"])
    holes = {z for z in range(8) if found["batched"][z, 80, 70] == 0}
    assert holes == {0, 3, 7}, "the clicked slice, and those beyond the object"


def test_a_walk_goes_on_from_the_mask_that_a_click_has_changed() -> None:
    """An edge that is taken away in the middle slice is gone from the prompts of its neighbours."""
    case = volume([[50, 60, 0, 90, 63, 2]])
    plain, clicked = ClickBackend(), ClickBackend()
    segment_volume(case, plain, Protocol3D(starts=1, box_dilation_px=0))
    corrected = replace(case, clicks=(Click(0, (52, 62, 1), False),))
    segment_volume(corrected, clicked, Protocol3D(starts=1, box_dilation_px=0))
    assert plain.prompts == [[50, 60, 90, 63]] * 3
    assert clicked.prompts == [[50, 60, 90, 63], [55, 60, 90, 63], [55, 60, 90, 63]]


def test_clicks_go_with_the_objects_and_slices_that_are_kept() -> None:
    case = volume([[0, 0, 0, 9, 9, 3], [0, 0, 2, 99, 99, 7], [0, 0, 5, 50, 50, 6]])
    clicks = (Click(0, (1, 1, 3), True), Click(1, (2, 2, 5), False), Click(2, (3, 3, 6), True))
    case = replace(case, clicks=clicks)
    assert case.keep_objects(2).clicks == (Click(0, (2, 2, 5), False), Click(1, (3, 3, 6), True))
    assert case.cut_slices(4, 5).clicks == (Click(0, (2, 2, 1), False),)
    assert case.cut_slices(3, 6).clicks == (
        Click(0, (1, 1, 0), True),
        Click(1, (2, 2, 2), False),
        Click(2, (3, 3, 3), True),
    )


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> Result:
    monkeypatch.setattr(compress.deploy, "open_backend", lambda _: ClickBackend())
    words = ["segment", "--encoder", "repvit", "--weights", "random:0", "--jobs", "1", *map(str, arguments)]
    return CliRunner().invoke(main, words)


@pytest.mark.parametrize("codes", AXES)
def test_clicks_lie_where_the_file_has_them(tmp_path: Path, codes: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A square of five pixels in the frame of 256 is a voxel of 64 a side, and parts of its neighbours."""
    stored = write_volume(tmp_path, codes) > 0
    inside = np.argwhere(stored)
    low, high = inside.min(0), inside.max(0)
    voxel = low + 1
    given = [{"label": 4, "box": [*low.tolist(), *high.tolist()], "clicks": [[*voxel.tolist(), 0]]}]
    (tmp_path / "b.json").write_text(json.dumps(given))
    common = ("-i", tmp_path / "knee_mr.nii.gz", "--no-propagate", "--boxes", tmp_path / "b.json")
    result = run(monkeypatch, *common, "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output
    mask = np.asarray(nib.load(tmp_path / "out" / "knee_mr.nii.gz").dataobj) > 0  # type: ignore[attr-defined]
    (tmp_path / "b.json").write_text(json.dumps([{**given[0], "clicks": []}]))
    assert "masks made by other settings" in run(monkeypatch, *common, "-o", tmp_path / "out").output
    run(monkeypatch, *common, "-o", tmp_path / "out", "--overwrite")
    before = np.asarray(nib.load(tmp_path / "out" / "knee_mr.nii.gz").dataobj) > 0  # type: ignore[attr-defined]
    gone = np.argwhere(before & ~mask)
    assert voxel.tolist() in gone.tolist()
    assert (np.abs(gone - voxel) <= 1).all()


def test_clicks_of_the_command_line_go_to_the_smallest_box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(np.zeros((256, 256, 3), np.uint8)).save(tmp_path / "p.png")
    boxes = ("-i", tmp_path / "p.png", "--box", "0,0,255,255", "--box", "100,100,140,150")
    result = run(monkeypatch, *boxes, "--click", "110,120,0", "--click", "30,30,0", "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output
    mask = np.asarray(Image.open(tmp_path / "out" / "p.png"))
    assert mask[30, 30] == 0
    assert mask[120, 110] == 1, "of the large object, as the small one was told not to reach there"
    assert mask[140, 130] == 2
    again = run(monkeypatch, *boxes, "--click", "110,120,1", "-o", tmp_path / "out")
    assert "masks made by other settings" in again.output
    assert again.exit_code == 1


@pytest.mark.parametrize("click", ["300,20,1", "20,20", "20,20,20,1", "20,20,2", "x,1,1"])
def test_a_click_in_no_box_is_named(tmp_path: Path, click: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(tmp_path / "p.png")
    result = run(monkeypatch, "-i", tmp_path / "p.png", "--box", "0,0,40,40", "--click", click, "-o", tmp_path / "out")
    assert result.exit_code == 1
    assert f"--click: found {click}; expected whole numbers x,y,1 or x,y,z,1 in a --box" in result.output


def test_clicks_want_boxes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(tmp_path / "p.png")
    result = run(monkeypatch, "-i", tmp_path / "p.png", "--click", "1,1,1", "-o", tmp_path / "out")
    assert result.exit_code == 2
    assert "--click goes with --box" in result.output
