"""`prepare`: what is kept, dropped, split and written, in parallel and resumably."""

from __future__ import annotations

import json
import os
from contextlib import AbstractContextManager
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from scipy import ndimage

from cli import main
from zoo.data.cases import find_cases
from zoo.data.dataset import open_source
from zoo.data.grid import Grid
from zoo.data.masks import Objects
from zoo.data.npz import load_challenge_npz, load_label_values
from zoo.data.prepare import Preparation, drop_small, jitter_boxes, prepare_case, prepare_labels, split_instances
from zoo.data.scan import Scan, read_scan
from zoo.errors import InputError
from zoo.files import append_json, read_json, whole_file

LABELS = hnp.arrays(np.uint16, (3, 7, 8), elements=st.integers(0, 3))


def scan(voxels: np.ndarray) -> Scan:
    depth, height, width = voxels.shape
    where = Grid(np.diag([-1.0, -1.0, 2.0, 1.0]), (width, height, depth))
    return Scan(Path("x.nii"), voxels, (2.0, 1.0, 1.0), "MR", where)


@given(LABELS, st.integers(0, 6))
def test_small_parts_are_dropped_and_others_are_not_touched(labels: np.ndarray, least: int) -> None:
    kept = drop_small(labels, least)
    for value in np.unique(labels[labels > 0]):
        parts, count = ndimage.label(labels == value, np.ones((3, 3, 3)))
        for number in range(1, count + 1):
            part = parts == number
            assert (kept[part] == (value if part.sum() >= least else 0)).all()
    assert not kept[labels == 0].any()


@given(LABELS)
def test_instances_are_the_connected_parts(labels: np.ndarray) -> None:
    instances = split_instances(labels)
    assert ((instances > 0) == (labels > 0)).all()
    expected = sum(ndimage.label(labels == value, np.ones((3, 3, 3)))[1] for value in np.unique(labels[labels > 0]))
    assert len(np.unique(instances[instances > 0])) == expected
    for number in range(1, expected + 1):
        part = instances == number
        assert len(np.unique(labels[part])) == 1
        assert ndimage.label(part, np.ones((3, 3, 3)))[1] == 1


def test_more_instances_than_a_label_map_can_hold() -> None:
    labels = np.zeros((600, 600), np.uint16)
    labels[::2, ::2] = 1
    with pytest.raises(InputError, match="more than 65535"):
        split_instances(labels)


def test_the_order_of_what_is_done_to_labels() -> None:
    labels = np.zeros((3, 10, 10), np.uint16)
    labels[0, :2, :2] = 1  # 4 voxels: kept in 3D by 8 of them, too few in slice 2
    labels[1, :2, :2] = 1
    labels[2, :1, :2] = 1
    labels[:, 8:, 8:] = 2
    labels[1, 5, 5] = 3
    kept = prepare_labels(labels, Preparation(remove_labels=(2,), min_voxels=5, min_pixels=3))
    assert np.unique(kept).tolist() == [0, 1]
    assert kept.any(axis=(1, 2)).tolist() == [True, True, False]


def test_only_labelled_slices_are_kept_where_they_are() -> None:
    labels = np.zeros((6, 8, 8), np.uint16)
    labels[2, 1:4, 1:4] = labels[4, 2:5, 2:5] = 5
    voxels = np.arange(6 * 64.0).reshape(6, 8, 8)
    case = prepare_case(scan(voxels), Objects(labels), Preparation(labelled_slices=True), "x")
    assert case.image.shape == (3, 8, 8)
    assert case.boxes.tolist() == [[1, 1, 0, 4, 4, 2]]
    assert case.affine is not None
    assert case.affine[2, 3] == 4.0  # two slices of 2 mm
    whole = prepare_case(scan(voxels), Objects(labels), Preparation(), "x")
    np.testing.assert_array_equal(case.image, whole.image[2:5])


def test_jitter_grows_boxes_within_the_slice_and_is_the_same_again() -> None:
    boxes = np.array([[0, 3, 1, 4, 7, 2], [2, 2, 0, 5, 5, 2]])
    preparation = Preparation(box_jitter_px=4, seed=1)
    grown = jitter_boxes(boxes, (3, 9, 8), preparation, "x")
    assert (grown[:, :2] <= boxes[:, :2]).all()
    assert (grown[:, :2] >= 0).all()
    assert (grown[:, 3:5] >= boxes[:, 3:5]).all()
    assert (grown[:, 3:5] <= [7, 8]).all()
    np.testing.assert_array_equal(grown[:, [2, 5]], boxes[:, [2, 5]])
    assert (grown != boxes).any()
    np.testing.assert_array_equal(grown, jitter_boxes(boxes, (3, 9, 8), preparation, "x"))
    assert (grown != jitter_boxes(boxes, (3, 9, 8), preparation, "y")).any()


def write_pair(folder: Path, name: str, seed: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    labels = np.zeros((20, 18, 6), np.uint8)
    labels[2:12, 2:12, 1:4] = 7
    labels[14:19, 13:17, 2:5] = 3
    affine = np.diag([1.0, 1.0, 2.0, 1.0])
    nib.save(nib.Nifti1Image(rng.integers(-1000, 1000, labels.shape).astype(np.int16), affine), folder / f"{name}.nii")
    nib.save(nib.Nifti1Image(labels, affine), folder / f"{name}_seg.nii")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["prepare", *map(str, arguments)])


SMALL = ("--min-voxels", 10, "--min-pixels", 4)


def report(out: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (out / "prepare.jsonl").read_text().splitlines()]


def test_a_folder_of_scans_to_the_challenges_npz(tmp_path: Path) -> None:
    write_pair(tmp_path / "in", "a")
    out = tmp_path / "out"
    result = run("-i", tmp_path / "in", "-o", out, *SMALL)
    assert result.exit_code == 0, result.output
    case = load_challenge_npz(out / "3DBox_CT_a.npz")
    original = find_cases(str(tmp_path / "in"))[0].load()
    np.testing.assert_array_equal(case.image, original.image)
    np.testing.assert_array_equal(case.boxes, original.boxes)
    assert case.object_labels.tolist() == [1, 2]
    assert case.labels is not None
    assert original.labels is not None
    np.testing.assert_array_equal(case.labels, np.array([0, 0, 0, 1, 0, 0, 0, 2])[original.labels])
    (line,) = report(out)
    assert line["labels"] == [3, 7]
    assert run("-i", out, "-o", tmp_path / "again", "--max-objects", 1).exit_code == 0
    assert load_label_values(tmp_path / "again" / "3DBox_CT_a.npz") == [7]
    with np.load(out / "3DBox_CT_a.npz") as arrays:
        assert arrays["label_values"].tolist() == [3, 7]
        np.testing.assert_array_equal(arrays["affine"], original.affine)
        assert arrays["spacing"].tolist() == [1.0, 1.0, 2.0]


def test_labels_that_are_left_out_as_too_small_are_told_of(tmp_path: Path) -> None:
    write_pair(tmp_path / "in", "a")
    result = run("-i", tmp_path / "in", "-o", tmp_path / "out", "--min-voxels", 100, "--min-pixels", 4)
    assert result.exit_code == 0, result.output
    assert "left out: 1 labels of which no part is as large as --min-voxels 100" in result.output
    assert report(tmp_path / "out")[-1]["left_out"] == [3]
    result = run("-i", tmp_path / "in", "-o", tmp_path / "all", "--min-voxels", 0, "--min-pixels", 0)
    assert "left out" not in result.output


def test_npy_to_train_with(tmp_path: Path) -> None:
    write_pair(tmp_path / "in", "a")
    assert run("-i", tmp_path / "in", "-o", tmp_path / "npz", *SMALL).exit_code == 0
    assert run("-i", tmp_path / "npz", "--to", "npy", "-o", tmp_path / "npy").exit_code == 0
    assert len(list((tmp_path / "npy" / "imgs").iterdir())) == 4
    drawn = open_source([str(tmp_path / "npy")], 64).image(0)
    assert drawn.image.shape == (18, 20, 3)
    assert set(np.unique(drawn.labels)) <= {0, 1, 2}


def test_slices_of_a_volume_that_could_not_be_written_whole_are_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No line tells of them, and they would be trained with."""
    write_pair(tmp_path / "in", "a")
    write_pair(tmp_path / "in", "b")
    of_a: list[Path] = []

    def full(path: Path) -> AbstractContextManager[Path]:
        of_a.extend([path] if path.name.startswith("a") else [])
        if of_a[3:] == [path]:
            raise InputError(path, "no room or no right to write", "a folder with space left")
        return whole_file(path)

    monkeypatch.setattr("zoo.data.prepare_run.whole_file", full)
    result = run("-i", tmp_path / "in", "--to", "npy", "-o", tmp_path / "npy", "--workers", 1, *SMALL)
    assert result.exit_code == 1
    assert f"{of_a[-1].name}: found no room" in " ".join(result.output.split())
    for folder in ("imgs", "gts"):
        assert {path.name[0] for path in (tmp_path / "npy" / folder).iterdir()} == {"b"}


def test_a_bad_file_is_told_of_and_the_others_are_prepared(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        write_pair(tmp_path / "in", name)
    (tmp_path / "in" / "b.nii").write_bytes(b"no scan")
    result = run("-i", tmp_path / "in", "-o", tmp_path / "out", "--workers", 2, *SMALL)
    assert result.exit_code == 1
    assert "b.nii" in result.output
    assert sorted(path.name for path in (tmp_path / "out").glob("*.npz")) == ["3DBox_CT_a.npz", "3DBox_CT_c.npz"]
    assert [line["case_id"] for line in report(tmp_path / "out") if line["error"]] == ["b"]


def test_an_error_that_nobody_thought_of_loses_its_case_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b"):
        write_pair(tmp_path / "in", name)
    monkeypatch.setattr("zoo.data.prepare.read_scan", lambda path: {"a.nii": read_scan}[path.name](path))
    result = run("-i", tmp_path / "in", "-o", tmp_path / "out", "--workers", 1, *SMALL)
    assert result.exit_code == 1
    assert "b.nii" in result.output
    assert "KeyError('b.nii')" in result.output
    assert [line["error"] is None for line in report(tmp_path / "out")] == [True, False]


def test_what_is_prepared_is_not_prepared_again_but_what_failed_is(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_pair(tmp_path / "in", name)
    good = (tmp_path / "in" / "b.nii").read_bytes()
    (tmp_path / "in" / "b.nii").write_bytes(b"no scan")
    out = tmp_path / "out"
    assert run("-i", tmp_path / "in", "-o", out, *SMALL).exit_code == 1
    first = (out / "3DBox_CT_a.npz").stat().st_mtime_ns
    (tmp_path / "in" / "b.nii").write_bytes(good)
    with (out / "prepare.jsonl").open("a") as stream:
        stream.write('{"case_id": "torn')
    assert run("-i", tmp_path / "in", "-o", out, *SMALL).exit_code == 0
    assert (out / "3DBox_CT_a.npz").stat().st_mtime_ns == first
    assert (out / "3DBox_CT_b.npz").exists()
    assert "b" in {told["case_id"] for told in read_json(out / "prepare.jsonl") if not told["error"]}, "not torn, too"
    assert run("-i", tmp_path / "in", "-o", out, *SMALL, "--window", "lung").exit_code == 0
    assert (out / "3DBox_CT_a.npz").stat().st_mtime_ns > first


def test_a_file_that_a_killed_run_of_other_options_left_is_prepared_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_pair(tmp_path / "in", "a")
    words = ["-i", tmp_path / "in", "-o", tmp_path / "out", *SMALL, "--workers", 1]
    assert run(*words).exit_code == 0
    first = load_challenge_npz(tmp_path / "out" / "3DBox_CT_a.npz").image
    killed = iter([None, KeyboardInterrupt])

    def append(path: Path, line: object) -> None:
        if (error := next(killed)) is not None:
            raise error
        append_json(path, line)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr("zoo.data.prepare_run.append_json", append)
        assert run(*words, "--window", "lung").exit_code == 130
    assert (load_challenge_npz(tmp_path / "out" / "3DBox_CT_a.npz").image != first).any()
    assert run(*words).exit_code == 0
    np.testing.assert_array_equal(load_challenge_npz(tmp_path / "out" / "3DBox_CT_a.npz").image, first)


def test_instances_do_not_say_what_label_they_were_of(tmp_path: Path) -> None:
    write_pair(tmp_path / "in", "a")
    assert run("-i", tmp_path / "in", "-o", tmp_path / "out", *SMALL, "--instances").exit_code == 0
    assert load_label_values(tmp_path / "out" / "3DBox_CT_a.npz") is None
    assert report(tmp_path / "out")[0]["labels"] == [1, 2]


def test_a_modality_may_be_written_in_any_case(tmp_path: Path) -> None:
    write_pair(tmp_path / "in", "a")
    result = run("-i", tmp_path / "in", "-o", tmp_path / "out", *SMALL, "--modality", "ct", "--window", "lung")
    assert result.exit_code == 0, result.output
    lung = load_challenge_npz(tmp_path / "out" / "3DBox_CT_a.npz").image
    stored = np.asarray(nib.load(tmp_path / "in" / "a.nii").dataobj)
    assert np.count_nonzero(lung == 255) == np.count_nonzero(stored >= 150)


def test_options_that_an_npz_cannot_follow_are_refused(tmp_path: Path) -> None:
    write_pair(tmp_path / "in", "a")
    assert run("-i", tmp_path / "in", "-o", tmp_path / "npz", *SMALL).exit_code == 0
    result = run("-i", tmp_path / "npz", "-o", tmp_path / "out", "--instances", "--min-voxels", "5")
    assert result.exit_code == 2
    assert "--instances, --min-voxels: " in " ".join(result.output.split())
    assert run("-i", tmp_path / "npz", "-o", tmp_path / "out").exit_code == 0
    with np.load(tmp_path / "npz" / "3DBox_CT_a.npz") as before, np.load(tmp_path / "out" / "3DBox_CT_a.npz") as after:
        np.testing.assert_array_equal(after["affine"], before["affine"])


def test_slices_to_train_with_that_are_gone_or_stale_are_made_anew(tmp_path: Path) -> None:
    write_pair(tmp_path / "in", "a")
    make = ("-i", tmp_path / "in", "--to", "npy", "-o", tmp_path / "npy", *SMALL)
    images = tmp_path / "npy" / "imgs"
    assert run(*make).exit_code == 0
    assert len(list(images.iterdir())) == 4
    next(images.iterdir()).unlink()
    (images / "ab-001.npy").touch()
    assert run(*make).exit_code == 0
    assert len(list(images.glob("a-*.npy"))) == 4
    assert run(*make, "--max-slices", 1).exit_code == 0
    assert [file.name for file in sorted(images.iterdir())] == ["a-000.npy", "ab-001.npy"]


def write_picture(folder: Path, name: str, side: int = 32) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((side, side), 99, np.uint8)).save(folder / f"{name}.png")
    Image.fromarray(np.eye(side, dtype=np.uint8)).save(folder / f"{name}_mask.png")


def npy_files(out: Path) -> list[str]:
    names = [sorted(file.name for file in (out / folder).iterdir()) for folder in ("imgs", "gts")]
    assert names[0] == names[1]
    return names[0]


def test_files_of_another_case_are_no_slices_of_this_one(tmp_path: Path) -> None:
    for name in ("slide", "slide-001"):
        write_picture(tmp_path / "in", name)
    make = ("-i", tmp_path / "in", "--to", "npy", "-o", tmp_path / "npy", "--workers", 1, "--min-pixels", 0)
    for _ in range(2):
        assert run(*make).exit_code == 0
        assert npy_files(tmp_path / "npy") == ["slide-001.npy", "slide.npy"]
    assert len(report(tmp_path / "npy")) == 2


def test_slices_that_became_another_cases_file_are_left_to_it(tmp_path: Path) -> None:
    write_pair(tmp_path / "volume", "slide")
    out = ("--to", "npy", "-o", tmp_path / "npy", *SMALL, "--workers", 1)
    assert run("-i", tmp_path / "volume", *out).exit_code == 0
    assert npy_files(tmp_path / "npy") == [f"slide-{z:03d}.npy" for z in range(1, 5)]
    for name in ("slide", "slide-001"):
        write_picture(tmp_path / "in", name)
    assert run("-i", tmp_path / "in", *out).exit_code == 0
    assert npy_files(tmp_path / "npy") == ["slide-001.npy", "slide.npy"]
    assert np.load(tmp_path / "npy" / "imgs" / "slide-001.npy").shape == (32, 32, 3)


def test_names_that_would_collide_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    write_pair(tmp_path / "in", "a")
    write_picture(tmp_path / "in", "a-001")
    result = run("-i", tmp_path / "in", "--to", "npy", "-o", tmp_path / "npy", *SMALL)
    assert result.exit_code == 1
    assert "a-001.png" in result.output
    assert "may have; expected other names" in " ".join(result.output.split())
    assert not any((tmp_path / "npy").iterdir())
    assert run("-i", tmp_path / "in", "-o", tmp_path / "npz", *SMALL, "--workers", 1).exit_code == 0
    scan, case = tmp_path / "in" / "a.nii", tmp_path / "npz" / "3DBox_CT_a.npz"
    assert run("-i", scan, "-i", case, "-o", tmp_path / "both").exit_code == 1


def test_a_scan_that_was_replaced_is_prepared_again(tmp_path: Path) -> None:
    write_picture(tmp_path / "in", "a")
    make = ("-i", tmp_path / "in", "-o", tmp_path / "out", "--workers", 1, "--min-pixels", 0)
    for side in (32, 32, 48):
        write_picture(tmp_path / "in", "a", side)
        assert run(*make).exit_code == 0
    assert [line["shape"][0] for line in report(tmp_path / "out") if not line["error"]] == [32, 48]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--window", "lnug"), "did you mean lung"),
        (("--remove-labels", "1,x"), "expected numbers such as 3,5"),
        (("-i", "nowhere"), "nowhere: found no such file or folder"),
        (("--min-voxels", "100000"), "no labelled object that is kept"),
        (("--percentiles", "99", "1"), "expected the lower one first"),
        (("--modality", "CTT"), "did you mean CT"),
    ],
)
def test_bad_options_are_named(tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    write_pair(tmp_path / "in", "a")
    result = run("-i", tmp_path / "in", "-o", tmp_path / "out", *arguments)
    assert result.exit_code != 0
    assert message in " ".join(result.output.split())


def test_nothing_is_written_beside_the_folder(tmp_path: Path) -> None:
    write_pair(tmp_path / "in", "a")
    run("-i", tmp_path / "in", "-o", tmp_path / "out" / "deep", *SMALL)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]
    assert sorted(path.name for path in (tmp_path / "out" / "deep").iterdir()) == ["3DBox_CT_a.npz", "prepare.jsonl"]


def test_an_npz_of_the_same_scan_under_an_earlier_name_is_removed(tmp_path: Path) -> None:
    """It would be trained on and scored beside the new one."""
    write_pair(tmp_path / "in", "a")
    out = ("-o", tmp_path / "out", *SMALL, "--workers", 1)
    assert run("-i", tmp_path / "in", *out, "--modality", "PET").exit_code == 0
    (tmp_path / "out" / "3DBox_PET_b.npz").touch()
    assert run("-i", tmp_path / "in", *out, "--to", "npy").exit_code == 0
    assert run("-i", tmp_path / "in", *out).exit_code == 0
    assert sorted(file.name for file in (tmp_path / "out").glob("*.npz")) == ["3DBox_CT_a.npz", "3DBox_PET_b.npz"]
    assert len(npy_files(tmp_path / "out")) == 4, "of another format"


def test_names_that_are_no_text_are_prepared_and_told(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9")
    try:
        write_picture(tmp_path / "in", name)
    except OSError:
        pytest.skip("found a file system whose names are all text")
    made = run("-i", tmp_path / "in", "-o", tmp_path / "out", "--workers", 1, "--min-pixels", 0, "--box-jitter-px", 1)
    assert made.exit_code == 0, made.output
    assert (tmp_path / "out" / f"2DBox_unknown_{name}.npz").exists()
    told = run("-i", tmp_path / "in", "-o", tmp_path / "out", "--dry-run")
    assert told.exit_code == 0
    assert r"caf\udce9: " in told.output
