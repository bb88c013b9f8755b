"""Boxes from JSON and CSV files, in the axes of the image's file."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from test_scans import grid

from cli import main
from zoo.data.boxes import boxes_in_slices, read_boxes
from zoo.data.scan import read_scan
from zoo.errors import InputError


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("b.json", "[[1,2,3,4,5,6],[0,0,0,1,1,1]]"),
        ("b.json", '[{"box":[1,2,3,4,5,6],"label":1},{"box":[0,0,0,1,1,1],"label":2}]'),
        ("b.json", '{"other":[[9,9,9,9,9,9]],"x":[[1,2,3,4,5,6],[0,0,0,1,1,1]]}'),
        ("b.csv", "x_min,y_min,z_min,x_max,y_max,z_max\n1,2,3,4,5,6\n0,0,0,1,1,1\n"),
        ("b.csv", "x0,y0,z0,x1,y1,z1\n1,2,3,4,5,6\n0,0,0,1,1,1\n"),
        ("b.csv", "i0,j0,k0,i1,j1,k1\n1,2,3,4,5,6\n0,0,0,1,1,1\n"),
        ("b.csv", " X0 ;Y0;Z0;X1;Y1;Z1\n1;2;3;4;5;6\n\n0;0;0;1;1;1\n"),
        ("b.csv", "x0,y0,z0,x1,y1,z1\n1,2,3,4,5,6\n0,0,0,1,1,1\n,,,,,\n"),
        ("b.csv", "Case,x0,y0,z0,x1,y1,z1\nx.nii.gz,1,2,3,4,5,6\nx.nii.gz,0,0,0,1,1,1\ny,9,9,9,9,9,9\n"),
        ("b.json", '{"x.nii.gz":[[1,2,3,4,5,6],[0,0,0,1,1,1]]}'),
        (
            "b.csv",
            "case,label,x_min,y_min,z_min,x_max,y_max,z_max\nx,1,1,2,3,4,5,6\ny,7,9,9,9,9,9,9\nx,2,0,0,0,1,1,1\n",
        ),
    ],
)
def test_boxes_of_every_form(tmp_path: Path, name: str, text: str) -> None:
    boxes, labels = read_boxes(write(tmp_path / name, text), "x")
    assert boxes.tolist() == [[1, 2, 3, 4, 5, 6], [0, 0, 0, 1, 1, 1]]
    assert labels.tolist() == [1, 2]


def test_boxes_under_a_files_own_name_are_found_too(tmp_path: Path) -> None:
    texts = {
        "b.json": '{"ct":[[1,2,3,4]],"y":[[9,9,9,9]]}',
        "b.csv": "case,x_min,y_min,x_max,y_max\nct,1,2,3,4\ny,9,9,9,9",
    }
    for name, text in texts.items():
        assert read_boxes(write(tmp_path / name, text), "patient_ct", "ct")[0].tolist() == [[1, 2, 3, 4]]
        with pytest.raises(InputError, match="no box of patient_mr or mr, but of ct, y; expected boxes under"):
            read_boxes(tmp_path / name, "patient_mr", "mr")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("b.json", ""),
        ("b.json", "[]"),
        ("b.json", "[[1,2,3]]"),
        ("b.json", "[[1,2,3,4],[1,2,3,4,5,6]]"),
        ("b.json", "[[1.5,2,3,4]]"),
        ("b.json", "[[NaN,2,3,4]]"),
        ("b.json", '{"y":[[1,2,3,4]]}'),
        ("b.json", '[{"box":[1,2,3,4],"label":0}]'),
        ("b.json", '[{"box":[1,2,3,4],"label":70000}]'),
        ("b.json", "[" * 100_000),
        ("b.json", '[{"box":[1,2,3,4],"label":2},{"box":[1,2,3,4]}]'),
        ("b.json", f"[[1,2,3,{'9' * 400}]]"),
        ("b.csv", "a,b\n1,2\n"),
        ("b.csv", "x0,y0,x1,y1,Lable\n1,2,3,4,5\n"),
        ("b.csv", "x0,y0,z0,x1,y1\n1,2,3,4,5\n"),
        ("b.csv", "x0,x0,y0,x1,y1\n1,1,2,3,4\n"),
        ("b.json", '[{"box":[1,2,3,4],"lable":5}]'),
        ("b.json", '[{"bbox":[1,2,3,4]}]'),
        ("b.json", '{"label": 5}'),
        ("b.json", '{"x":[[1,2,3,4]],"x":[[5,6,7,8]]}'),
        ("b.json", '[{"box":[1,2,3,4],"box":[5,6,7,8]}]'),
        ("b.csv", "x_min,y_min,x_max,y_max\n1,2,three,4\n"),
        ("b.csv", "x_min,y_min,x_max,y_max\n1,2\n"),
    ],
)
def test_bad_boxes_are_named(tmp_path: Path, name: str, text: str) -> None:
    with pytest.raises(InputError, match=r"b\.(json|csv)"):
        read_boxes(write(tmp_path / name, text), "x")


@pytest.mark.parametrize(
    ("row", "told"),
    [("1,2", "row 2 of 2 cells under 4 headings"), ("1,2,three,", "row 2 with x_max 'three', y_max ''")],
)
def test_a_bad_row_of_a_csv_is_named(tmp_path: Path, row: str, told: str) -> None:
    with pytest.raises(InputError, match=told):
        read_boxes(write(tmp_path / "b.csv", f"x_min,y_min,x_max,y_max\n1,2,3,4\n{row}\n"), "x")


@given(st.text(max_size=80))
def test_any_text_is_boxes_or_a_named_error(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    folder = tmp_path_factory.mktemp("boxes")
    for name in ("b.json", "b.csv"):
        path = folder / name
        path.write_text(text, encoding="utf-8", errors="surrogateescape")
        try:
            boxes, labels = read_boxes(path, "x")
        except InputError:
            continue
        assert len(boxes) == len(labels) > 0


def test_an_empty_cell_names_no_case(tmp_path: Path) -> None:
    text = "case,x_min,y_min,x_max,y_max\nx,1,2,3,4\n,5,6,7,8\ny,1,1,2,2\n"
    boxes, labels = read_boxes(write(tmp_path / "b.csv", text), "x")
    assert (boxes.tolist(), labels.tolist()) == ([[1, 2, 3, 4], [5, 6, 7, 8]], [1, 2])


def test_boxes_of_no_case_in_particular_are_told_of(tmp_path: Path) -> None:
    for name in ("a", "b"):
        Image.fromarray(np.zeros((20, 20), np.uint8)).save(tmp_path / f"{name}.png")
    told = {}
    for name, text in (("all", "[[1, 2, 3, 4]]"), ("each", '{"a": [[1, 2, 3, 4]], "b": [[1, 2, 3, 4]]}')):
        boxes = write(tmp_path / f"{name}.json", text)
        words = ["segment", "-i", str(tmp_path), "--boxes", str(boxes), "-o", str(tmp_path / "out"), "--dry-run"]
        told[name] = CliRunner().invoke(main, words).output
    assert "all.json names no cases: all its boxes are used for each of 2 images" in told["all"]
    assert "names no cases" not in told["each"]


def test_a_single_object_needs_no_list(tmp_path: Path) -> None:
    boxes, labels = read_boxes(write(tmp_path / "b.json", '{"label": 3, "box": [1, 2, 3, 4]}'), "x")
    assert (boxes.tolist(), labels.tolist()) == ([[1, 2, 3, 4]], [3])


def test_a_box_past_the_image_is_told_of_in_the_axes_of_its_file(tmp_path: Path) -> None:
    where = grid("RAS", (20, 18, 9))
    nib.save(nib.Nifti1Image(np.zeros(where.shape, np.int16), where.affine), tmp_path / "ras.nii")
    with pytest.raises(InputError, match=r"b\.json for .*ras\.nii: found box 0 \[1, 1, 1, 40, 5, 5\]; .*\[19, 17, 8\]"):
        boxes_in_slices(Path("b.json"), np.array([[1, 1, 1, 40, 5, 5]]), read_scan(tmp_path / "ras.nii"))


def test_boxes_of_a_volume_for_a_picture_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((6, 7), np.uint8)).save(tmp_path / "x.png")
    with pytest.raises(InputError, match="boxes of 6 numbers"):
        boxes_in_slices(Path("b.json"), np.zeros((1, 6), np.int64), read_scan(tmp_path / "x.png"))


CSV = "case,x_min,y_min,x_max,y_max\n"


@pytest.mark.parametrize("written", ["p1/ct.png", "p1\\ct.png", "p1/ct", "/elsewhere/p1_ct.png", "p1_ct"])
def test_patients_whose_files_have_one_name_get_their_own_boxes(tmp_path: Path, written: str) -> None:
    other = written.replace("p1", "p2")
    boxes = write(tmp_path / "b.csv", f"{CSV}{written},1,2,3,4\n{other},5,6,7,8")
    for patient, expected in (("p1", [1, 2, 3, 4]), ("p2", [5, 6, 7, 8])):
        found, _ = read_boxes(boxes, f"{patient}_ct", "ct", image=tmp_path / patient / "ct.png")
        assert found.tolist() == [expected]
    with pytest.raises(InputError, match="no box of p3_ct or ct"):
        read_boxes(boxes, "p3_ct", "ct", image=tmp_path / "p3" / "ct.png")


def test_a_suffix_tells_two_images_apart(tmp_path: Path) -> None:
    boxes = write(tmp_path / "b.csv", f"{CSV}a.png,1,2,3,4\na.jpg,5,6,7,8")
    for suffix, expected in (("png", [1, 2, 3, 4]), ("jpg", [5, 6, 7, 8])):
        assert read_boxes(boxes, f"a_{suffix}", "a", image=tmp_path / f"a.{suffix}")[0].tolist() == [expected]
    with pytest.raises(InputError, match=r"boxes of a\.jpg and a\.png for .*a\.tif; expected one name a case"):
        read_boxes(boxes, "a", "a", image=tmp_path / "a.tif")


def dry_run(scans: Path, boxes: Path) -> Result:
    words = ["segment", "-i", str(scans), "--boxes", str(boxes), "-o", str(boxes.parent / "out"), "--dry-run"]
    return CliRunner().invoke(main, words)


@pytest.mark.parametrize("name", ["ct", "ct.png"])
def test_one_name_of_several_patients_is_refused_before_any_work(tmp_path: Path, name: str) -> None:
    for patient in ("p1", "p2"):
        (tmp_path / patient).mkdir()
        Image.fromarray(np.zeros((20, 20), np.uint8)).save(tmp_path / patient / "ct.png")
    boxes = write(tmp_path / "b.csv", f"{CSV}{name},1,2,3,4\n")
    result = dry_run(tmp_path, boxes)
    assert result.exit_code == 1
    images = f"{tmp_path / 'p1' / 'ct.png'} and {tmp_path / 'p2' / 'ct.png'}"
    assert f"found {name}, which may be {images}; expected p1_ct and p2_ct, or more of their paths" in result.output
    write(boxes, f"{CSV}p1_ct,1,2,3,4\np2/ct.png,1,2,3,4\n")
    assert dry_run(tmp_path, boxes).exit_code == 0


def test_a_name_that_is_one_image_exactly_is_its_alone(tmp_path: Path) -> None:
    (tmp_path / "scans").mkdir()
    for name in ("p1.png", "p1.bmp"):
        Image.fromarray(np.zeros((20, 20), np.uint8)).save(tmp_path / "scans" / name)
    boxes = write(tmp_path / "b.csv", f"{CSV}p1.png,1,2,3,4\n")
    assert dry_run(tmp_path / "scans", boxes).exit_code == 0
    write(boxes, f"{CSV}p1,1,2,3,4\n")
    assert "found p1, which may be" in dry_run(tmp_path / "scans", boxes).output


@pytest.mark.parametrize("names", ["p1_ct p1_ct.png", "p1_ct p1/ct.png", "p1/ct p1\\ct.png", "ct p1_ct"])
def test_boxes_of_one_image_under_two_names_are_refused(tmp_path: Path, names: str) -> None:
    """Those of one of them would be lost."""
    one, other = names.split()
    image = tmp_path / "p1" / "ct.png"
    image.parent.mkdir()
    Image.fromarray(np.zeros((20, 20), np.uint8)).save(image)
    boxes = write(tmp_path / "b.csv", f"{CSV}{one},1,2,3,4\n{other},5,6,7,8\n")
    result = dry_run(tmp_path, boxes)
    assert result.exit_code == 1
    assert f"boxes of {' and '.join(sorted((one, other)))} for {image}; expected one name a case" in result.output


def test_names_that_are_two_images_are_each_ones_own(tmp_path: Path) -> None:
    (tmp_path / "p1").mkdir()
    for name in ("ct.png", "p1/ct.png", "a.png", "a.jpg"):
        Image.fromarray(np.zeros((20, 20), np.uint8)).save(tmp_path / name)
    boxes = write(tmp_path / "b.csv", f"{CSV}{tmp_path.name}/ct.png,1,2,3,4\np1/ct.png,5,6,7,8\n")
    assert dry_run(tmp_path, boxes).exit_code == 0
    write(boxes, f"{CSV}a.png,1,2,3,4\na.jpg,5,6,7,8\n")
    for image in (tmp_path, tmp_path / "a.png"):
        assert dry_run(image, boxes).exit_code == 0


def test_a_dry_run_tells_who_has_no_boxes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        Image.fromarray(np.zeros((20, 20), np.uint8)).save(tmp_path / f"{name}.png")
    boxes = write(tmp_path / "b.json", '{"a": [[1, 2, 3, 4]], "c": [[1, 2, 3, 4]]}')
    assert dry_run(tmp_path, boxes).output.splitlines() == [
        f"a: {tmp_path / 'a.png'}; {boxes}",
        f"b: {tmp_path / 'b.png'}; {boxes}: no box of b, but of a, c",
    ]
