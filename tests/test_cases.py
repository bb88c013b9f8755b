"""Challenge npz: what is read, and how what cannot be read is told."""

from __future__ import annotations

import io
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from zoo.data.case import Case, boxes_from_labels, validate_boxes
from zoo.data.cases import find_cases
from zoo.data.modality import calibration_doubt, modality_from_name, parse_modality
from zoo.data.npz import load_challenge_npz, load_label_map, save_challenge_npz
from zoo.data.phantom import load_phantom
from zoo.errors import InputError


def write(path: Path, **arrays: np.ndarray) -> Path:
    np.savez_compressed(path, **arrays)  # type: ignore[arg-type]
    return path


VOLUME = np.arange(4 * 6 * 8, dtype=np.uint8).reshape(4, 6, 8)
IMAGE = np.arange(6 * 8 * 3, dtype=np.uint8).reshape(6, 8, 3)


def labels_3d() -> np.ndarray:
    labels = np.zeros((4, 6, 8), np.uint8)
    labels[1:3, 2:5, 3] = 7
    labels[3, 5, 7] = 2
    return labels


def test_a_volume_with_boxes(tmp_path: Path) -> None:
    path = write(tmp_path / "3DBox_CT_0001.npz", imgs=VOLUME, boxes=[[0, 1, 2, 7, 5, 3]], spacing=[0.5, 0.7, 5.0])
    case = load_challenge_npz(path)
    assert case.case_id == "3DBox_CT_0001"
    assert case.modality == "CT"
    assert case.is_volume
    assert case.spacing_mm == (5.0, 0.7, 0.5)
    assert case.boxes.tolist() == [[0, 1, 2, 7, 5, 3]]
    assert case.object_labels.tolist() == [1]
    assert case.labels is None


def test_boxes_from_labels_by_hand(tmp_path: Path) -> None:
    case = load_challenge_npz(write(tmp_path / "3D_MR.npz", imgs=VOLUME, gts=labels_3d()))
    assert case.boxes.tolist() == [[7, 5, 3, 7, 5, 3], [3, 2, 1, 3, 4, 2]]
    assert case.object_labels.tolist() == [2, 7]
    assert case.spacing_mm == (1.0, 1.0, 1.0)
    assert case.labels is not None
    assert case.labels.dtype == np.uint16


def test_a_2d_image(tmp_path: Path) -> None:
    path = write(
        tmp_path / "2DBox_Dermoscopy_1.npz", imgs=IMAGE, boxes=np.array([[1.0, 2.0, 3.0, 4.0]]), spacing=[2, 3]
    )
    case = load_challenge_npz(path)
    assert not case.is_volume
    assert case.spacing_mm == (3.0, 2.0)
    assert case.boxes.dtype == np.int64


def test_grey_2d_is_repeated(tmp_path: Path) -> None:
    case = load_challenge_npz(write(tmp_path / "x.npz", imgs=VOLUME[0], boxes=[[0, 0, 1, 1]]))
    np.testing.assert_array_equal(case.image[..., 2], VOLUME[0])


def test_the_name_decides_between_colour_and_depth(tmp_path: Path) -> None:
    thin = VOLUME[:, :, :3]
    assert load_challenge_npz(write(tmp_path / "3D_a.npz", imgs=thin, boxes=[[0, 0, 0, 1, 1, 1]])).is_volume
    assert not load_challenge_npz(write(tmp_path / "a.npz", imgs=thin, boxes=[[0, 0, 1, 1]])).is_volume


def test_z_max_at_the_last_slice_is_fine_and_past_it_is_named(tmp_path: Path) -> None:
    load_challenge_npz(write(tmp_path / "a.npz", imgs=VOLUME, boxes=[[0, 0, 0, 1, 1, 3]]))
    with pytest.raises(InputError, match=r"b\.npz:boxes: found box 0 \[0, 0, 0, 1, 1, 4\].*half-open"):
        load_challenge_npz(write(tmp_path / "b.npz", imgs=VOLUME, boxes=[[0, 0, 0, 1, 1, 4]]))


BAD = {
    "keys": ({"images": VOLUME}, "expected at least imgs"),
    "no prompt": ({"imgs": VOLUME}, "neither boxes nor gts"),
    "float": ({"imgs": VOLUME.astype(np.float32), "boxes": [[0] * 6]}, "imgs: found float32; expected uint8"),
    "nan": ({"imgs": np.full((4, 6, 8), np.nan), "boxes": [[0] * 6]}, "float64 with NaN"),
    "4d": ({"imgs": VOLUME[None], "boxes": [[0] * 6]}, r"shape \(1, 4, 6, 8\)"),
    "empty image": ({"imgs": VOLUME[:0], "boxes": [[0] * 6]}, r"shape \(0, 6, 8\)"),
    "reversed": ({"imgs": VOLUME, "boxes": [[5, 0, 0, 1, 1, 1]]}, "minimum is past its maximum"),
    "outside": ({"imgs": VOLUME, "boxes": [[0, 0, 0, 99, 1, 1]]}, r"within 0\.\.\[7, 5, 3\]"),
    "negative": ({"imgs": VOLUME, "boxes": [[-1, 0, 0, 1, 1, 1]]}, "box 0"),
    "no box": ({"imgs": VOLUME, "boxes": np.zeros((0, 6), int)}, "0 boxes"),
    "no label": ({"imgs": VOLUME, "gts": np.zeros((4, 6, 8), np.uint8)}, "0 boxes"),
    "2d boxes": ({"imgs": VOLUME, "boxes": [[0, 0, 1, 1]]}, r"shape \(1, 4\); expected \(N, 6\)"),
    "fractions": ({"imgs": VOLUME, "boxes": [[0, 0, 0, 1.5, 1, 1]]}, "no whole numbers"),
    "nan box": ({"imgs": VOLUME, "boxes": [[0, 0, 0, np.nan, 1, 1]]}, "no whole numbers"),
    "label shape": ({"imgs": VOLUME, "gts": labels_3d()[:2]}, "that of the image"),
    "label type": ({"imgs": VOLUME, "gts": labels_3d().astype(float)}, "gts: found float64; expected integers"),
    "label range": ({"imgs": VOLUME, "gts": labels_3d().astype(np.int32) - 1}, "values -1 to 6"),
    "spacing": ({"imgs": VOLUME, "gts": labels_3d(), "spacing": [1, 0, 1]}, "positive millimetres"),
    "nan spacing": ({"imgs": VOLUME, "gts": labels_3d(), "spacing": [1, np.nan, 1]}, "positive millimetres"),
    "few spacings": ({"imgs": VOLUME, "gts": labels_3d(), "spacing": [1.0]}, "3 numbers"),
    "pickled": ({"imgs": VOLUME, "boxes": np.array([{}], object)}, "boxes: found pickled objects"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_named(tmp_path: Path, name: str) -> None:
    arrays, message = BAD[name]
    path = write(tmp_path / "bad.npz", **{key: np.asarray(value) for key, value in arrays.items()})
    with pytest.raises(InputError, match=message) as told:
        load_challenge_npz(path)
    assert "bad.npz" in str(told.value)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("content", [b"", b"<html>404</html>", b"PK\x03\x04" + b"\0" * 60])
def test_no_archive(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.npz"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"x\.npz: found no readable npz archive"):
        load_challenge_npz(path)


def test_missing_file_is_named() -> None:
    with pytest.raises(InputError, match=r"nowhere\.npz: found no such file or folder"):
        find_cases("nowhere.npz")


def test_a_huge_image_is_refused_before_it_is_inflated(tmp_path: Path) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (20_000, 20_000, 3)})
    with zipfile.ZipFile(tmp_path / "2D_huge.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("imgs.npy", header.getvalue())
    with pytest.raises(InputError, match=r"1,200,000,000 elements; expected at most 268,435,456"):
        load_challenge_npz(tmp_path / "2D_huge.npz")


def test_three_hundred_objects(tmp_path: Path) -> None:
    labels = np.zeros((3, 40, 40), np.uint16)
    labels.ravel()[: 300 * 4 : 4] = np.arange(1, 301)
    case = load_challenge_npz(write(tmp_path / "a.npz", imgs=labels.astype(np.uint8), gts=labels))
    assert case.object_labels.max() == 300
    assert len(case.boxes) == 300


def test_round_trip(tmp_path: Path) -> None:
    case = load_phantom("mr3d")
    save_challenge_npz(case, tmp_path / "3D_MR_x.npz")
    again = load_challenge_npz(tmp_path / "3D_MR_x.npz")
    np.testing.assert_array_equal(again.image, case.image)
    np.testing.assert_array_equal(again.labels, case.labels)  # type: ignore[arg-type]
    np.testing.assert_array_equal(again.boxes, case.boxes)
    assert again.spacing_mm == case.spacing_mm
    assert [path.name for path in tmp_path.iterdir()] == ["3D_MR_x.npz"]


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_mutated_archives_load_or_are_refused(tmp_path: Path, data: st.DataObject) -> None:
    path = write(tmp_path / "m.npz", imgs=VOLUME, gts=labels_3d(), spacing=np.array([1.0, 1.0, 2.0]))
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))] if data.draw(st.booleans()) else content)
    try:
        case = load_challenge_npz(path)
    except InputError:
        return
    assert case.image.dtype == np.uint8


@given(
    corners=st.lists(
        st.tuples(*(st.integers(0, 9) for _ in range(6))).map(
            lambda c: (*map(min, c[:3], c[3:]), *map(max, c[:3], c[3:]))
        ),
        min_size=1,
        max_size=4,
    )
)
def test_valid_boxes_pass_unchanged(corners: list[tuple[int, ...]]) -> None:
    boxes = validate_boxes("x", np.array(corners, float), (10, 10, 10))
    assert boxes.tolist() == [list(corner) for corner in corners]


def test_boxes_from_labels_agree_with_a_search() -> None:
    labels = np.random.default_rng(0).choice([0, 0, 0, 3, 9, 400], (5, 7, 6)).astype(np.uint16)
    boxes, values = boxes_from_labels(labels)
    assert values.tolist() == [3, 9, 400]
    for box, value in zip(boxes, values, strict=True):
        z, y, x = np.nonzero(labels == value)
        assert box.tolist() == [x.min(), y.min(), z.min(), x.max(), y.max(), z.max()]


def case_with(boxes: list[list[int]]) -> Case:
    count = len(boxes)
    return Case(
        "c", "CT", np.zeros((10, 8, 8), np.uint8), np.array(boxes), np.arange(1, count + 1, dtype=np.uint16), (1.0,) * 3
    )


def test_keep_objects_keeps_the_largest_in_order() -> None:
    case = case_with([[0, 0, 0, 1, 1, 1], [0, 0, 0, 7, 7, 7], [0, 0, 0, 3, 3, 3]]).keep_objects(2)
    assert case.object_labels.tolist() == [2, 3]
    assert case.keep_objects(5) is case


def test_keep_slices_takes_the_fullest_run() -> None:
    case = case_with([[0, 0, 5, 1, 1, 9], [2, 2, 6, 7, 7, 7], [0, 0, 0, 3, 3, 0]]).keep_slices(3)
    assert case.image.shape == (3, 8, 8)
    assert case.object_labels.tolist() == [1, 2]
    assert case.boxes[:, [2, 5]].tolist() == [[0, 2], [0, 1]]


def test_of_several_fullest_runs_the_middle_one_is_kept() -> None:
    case = case_with([[0, 0, 2, 1, 1, 8]])
    assert case.keep_slices(1).boxes[:, [2, 5]].tolist() == [[0, 0]]
    image = np.arange(10, dtype=np.uint8)[:, None, None] * np.ones((8, 8), np.uint8)
    assert replace(case, image=image).keep_slices(1).image[0, 0, 0] == 5
    assert replace(case, image=image).keep_slices(3).image[:, 0, 0].tolist() == [4, 5, 6]


@pytest.mark.parametrize(("name", "modality"), [
    ("3DBox_MR_0121", "MR"),
    ("2DBox_X-Ray_demo", "XRay"),
    ("octopus", "unknown"),
    ("p1_t1_mri", "MR"),
    ("scan_us_ct", "unknown"),
    ("3DBox_CT_us_7", "CT"),
])  # fmt: skip
def test_modality_from_name(name: str, modality: str) -> None:
    assert modality_from_name(name) == modality


@pytest.mark.parametrize(("text", "modality"), [("ct", "CT"), ("X-Ray", "XRay"), ("mri", "MR"), ("OCT", "OCT")])
def test_a_modality_by_any_of_its_names(text: str, modality: str) -> None:
    assert parse_modality(text) == modality


@pytest.mark.parametrize(("modality", "calibrated_with", "told"), [
    ("MR", ("CT", "US"), "MR is none of the modalities that this candidate was calibrated and checked with (CT, US)"),
    ("ct", ("CT",), None),
    ("MR", (), None),
    ("unknown", ("CT",), None),
    ("MR", ("CT", "unknown"), None),
])  # fmt: skip
def test_what_a_candidate_was_not_calibrated_with(
    modality: str, calibrated_with: tuple[str, ...], told: str | None
) -> None:
    assert calibration_doubt(modality, calibrated_with) == told


def test_find_cases(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    for name in ("b.npz", "a.npz", "deep/a.npz", ".hidden.npz", "notes.txt"):
        (tmp_path / name).touch()
    found = find_cases(str(tmp_path))
    assert [source.case_id for source in found] == [f"{tmp_path.name}_a", "b", "deep_a"]
    assert find_cases(found[0].reference)[0].image_path == found[0].image_path
    assert [source.case_id for source in find_cases(str(tmp_path / "*.npz"))] == ["a", "b"]
    assert find_cases("phantom")[0].reference == "phantom:ct3d"
    with pytest.raises(InputError, match="expected files that end in"):
        find_cases(str(tmp_path / "*.png"))


def test_boxes_of_other_labels_than_1_to_n_have_no_place_in_the_file(tmp_path: Path) -> None:
    """Read again, box 1 would ask for label 1, whatever it was drawn around."""
    labels = np.zeros((16, 16), np.uint16)
    labels[2:6, 2:6], labels[8:12, 8:12] = 3, 7
    boxes, object_labels = boxes_from_labels(labels)
    case = Case("two", "CT", np.zeros((16, 16, 3), np.uint8), boxes, object_labels, (1.0, 1.0), labels)
    with pytest.raises(InputError, match="boxes of labels 3, 7; expected of labels 1 to 2"):
        save_challenge_npz(case, tmp_path / "two.npz")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("spec", ["phantom:mr3d", "phantom:rgb2d", "synthetic:3"])
def test_what_is_built_in_is_the_same_on_file(spec: str, tmp_path: Path) -> None:
    (source,) = find_cases(spec)
    drawn, read = source.load(), source.on_file(tmp_path).load()
    assert (drawn.case_id, drawn.modality, drawn.spacing_mm) == (read.case_id, read.modality, read.spacing_mm)
    for name in ("image", "boxes", "object_labels", "labels"):
        assert np.array_equal(getattr(drawn, name), getattr(read, name)), name
    assert source.on_file(tmp_path).on_file(tmp_path / "nowhere") == source.on_file(tmp_path)


def test_a_cut_of_what_is_built_in_is_on_file_alone(tmp_path: Path) -> None:
    (source,) = find_cases("phantom:ct3d")
    limited = source.limited(max_objects=1, max_slices=2)
    drawn, read = limited.load(), limited.on_file(tmp_path).load()
    assert np.array_equal(drawn.image, read.image)
    assert np.array_equal(drawn.boxes, read.boxes)
    assert drawn.labels is not None
    assert read.labels is not None
    assert np.array_equal(drawn.labels == drawn.object_labels, read.labels == read.object_labels)
    assert load_challenge_npz(next(tmp_path.iterdir())).image.shape[0] == 2


def test_labels_of_an_npz_that_are_not_1_to_n_are_those_of_its_boxes(tmp_path: Path) -> None:
    gts = np.zeros((6, 8), np.uint8)
    gts[0, 0], gts[2, 3:5], gts[5, 7] = 5, 1, 3
    # In the order of the labels 1, 3, 5, one of them looser than its object.
    boxes = np.array([[3, 2, 4, 2], [6, 4, 7, 5], [0, 0, 0, 0]])
    case = load_challenge_npz(write(tmp_path / "2D.npz", imgs=IMAGE, gts=gts, boxes=boxes))
    assert case.labels is not None
    assert case.object_labels.tolist() == [1, 2, 3]
    assert case.labels[[2, 5, 0], [3, 7, 0]].tolist() == [1, 2, 3]
    np.testing.assert_array_equal(load_label_map(tmp_path / "2D.npz"), case.labels)
    with pytest.raises(InputError, match=r"2D\.npz:gts: found labels 1, 3, 5 and 3 boxes; expected labels 1 to N"):
        load_challenge_npz(write(tmp_path / "2D.npz", imgs=IMAGE, gts=gts, boxes=boxes[::-1]))
    gts[gts == 3] = 2
    case = load_challenge_npz(write(tmp_path / "2D.npz", imgs=IMAGE, gts=gts, boxes=boxes[:2]))
    np.testing.assert_array_equal(case.labels, gts)


def test_a_text_without_end_is_refused_before_it_is_inflated(tmp_path: Path) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<U300000000", "fortran_order": False, "shape": (1,)})
    path = write(tmp_path / "2D.npz", imgs=IMAGE, boxes=[[0, 0, 1, 1]])
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("label_names.npy", header.getvalue())
    with pytest.raises(InputError, match=r"label_names: found shape \(1, 1200000000\)"):
        load_challenge_npz(path)


def test_objects_that_the_kept_slices_do_not_show_are_dropped() -> None:
    """The box of an object spans slices between its parts in which it is not."""
    labels = np.zeros((10, 8, 8), np.uint16)
    labels[[0, 1, 8, 9], 0, 0], labels[3:7, 4:6, 4:6] = 1, 2
    cut = replace(case_with([[0, 0, 0, 0, 0, 9], [4, 4, 3, 5, 5, 6]]), labels=labels).keep_slices(3)
    assert cut.object_labels.tolist() == [2]
    assert cut.boxes.tolist() == [[4, 4, 0, 5, 5, 2]]
    assert cut.labels is not None
    assert (cut.labels == 2).sum(axis=(1, 2)).tolist() == [4, 4, 4]


def test_linked_folders_are_looked_into_once_and_hidden_ones_not_at_all(tmp_path: Path) -> None:
    (tmp_path / "far" / "p1").mkdir(parents=True)
    (tmp_path / "far" / "p1" / "a.npz").touch()
    scans = tmp_path / "scans"
    (scans / ".Trash-1000").mkdir(parents=True)
    (scans / ".Trash-1000" / "old.npz").touch()
    (scans / "p1").symlink_to(tmp_path / "far" / "p1")
    (scans / "again").symlink_to(tmp_path / "far" / "p1")
    (scans / "loop").symlink_to(scans)
    assert [source.image_path for source in find_cases(str(scans))] == [scans / "again" / "a.npz"]
    (scans / "p2").mkdir()
    (scans / "p2" / "b.npz").touch()
    (scans / "another_p2").symlink_to(scans / "p2")
    assert [source.image_path for source in find_cases(str(scans))][-1] == scans / "p2" / "b.npz"


def test_labels_that_are_there_by_that_very_name_go_first(tmp_path: Path) -> None:
    for name in ("scan[1].png", "scan[1]_seg.png", "scan1_seg.png"):
        (tmp_path / name).touch()
    (source,) = find_cases(f"{tmp_path / 'scan[1].png'}={tmp_path / 'scan[1]_seg.png'}")
    assert source.labels_paths == (tmp_path / "scan[1]_seg.png",)
    (source,) = find_cases(f"{tmp_path / 'scan[1].png'}={tmp_path / 'scan*_seg.png'}")
    assert len(source.labels_paths) == 2


def test_the_same_slices_are_kept_whether_labels_are_wanted_or_not(tmp_path: Path) -> None:
    gts = np.zeros((10, 8, 8), np.uint8)
    gts[[0, 1, 2, 9], 2:5, 2:5] = 1
    image = np.zeros((10, 8, 8), np.uint8) + np.arange(10, dtype=np.uint8)[:, None, None]
    write(tmp_path / "3D_x.npz", imgs=image, gts=gts, boxes=[[2, 2, 0, 4, 4, 9]])
    (source,) = find_cases(str(tmp_path / "3D_x.npz"))
    scored, timed = (source.limited(None, 3).load(labels=labels) for labels in (True, False))
    assert scored.image[:, 0, 0].tolist() == timed.image[:, 0, 0].tolist() == [0, 1, 2]
    assert timed.labels is None


def test_a_label_map_of_nothing_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "nothing.npz", segs=np.zeros((0, 4, 4), np.uint8))
    with pytest.raises(InputError, match=r"nothing.npz:segs: found shape \(0, 4, 4\); expected at least one pixel"):
        load_label_map(tmp_path / "nothing.npz")
