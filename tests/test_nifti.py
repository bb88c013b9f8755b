"""NIfTI pairs: orientation, spacing, windows, pairing, and files that cannot be used."""

from __future__ import annotations

import gzip
import itertools
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, ornt_transform

from zoo.data.cases import find_cases
from zoo.data.intensity import to_uint8
from zoo.data.prepare import load_pair
from zoo.errors import InputError

AXES = [
    "".join(codes)
    for order in itertools.permutations(("LR", "PA", "SI"))
    for codes in itertools.product(*order)
]  # fmt: skip
SPACING_ZYX = (5.0, 0.7, 0.9)


def reference() -> tuple[np.ndarray, np.ndarray]:
    """Image and labels (z, y, x) in LPS with nothing symmetric about them."""
    image = np.random.default_rng(1).integers(-1000, 400, (3, 4, 5)).astype(np.int16)
    labels = np.zeros((3, 4, 5), np.uint8)
    labels[1, 2:4, 1:4] = 3
    labels[2, 0, 0] = 1
    return image, labels


def save(path: Path, zyx: np.ndarray, codes: str = "LPS") -> Path:
    """Writes an array (z, y, x) of LPS axes as a NIfTI stored in the orientation `codes`."""
    affine = np.diag([-SPACING_ZYX[2], -SPACING_ZYX[1], SPACING_ZYX[0], 1.0])
    stored = nib.Nifti1Image(zyx.transpose(2, 1, 0), affine)
    turn = ornt_transform(axcodes2ornt(tuple("LPS")), axcodes2ornt(tuple(codes)))
    nib.save(stored.as_reoriented(turn), path)
    return path


def test_inverse_of_the_fixture_is_what_nibabel_says() -> None:
    turn = ornt_transform(axcodes2ornt(tuple("LPS")), axcodes2ornt(tuple("RAS")))
    assert inv_ornt_aff(turn, (5, 4, 3)).shape == (4, 4)


def test_there_are_48_orientations() -> None:
    assert len(set(AXES)) == 48


@pytest.mark.parametrize("codes", AXES)
def test_every_stored_orientation_reads_alike(tmp_path: Path, codes: str) -> None:
    image, labels = reference()
    case = load_pair(save(tmp_path / "ct.nii", image, codes), [save(tmp_path / "ct_seg.nii", labels, codes)])
    np.testing.assert_array_equal(case.labels, labels)  # type: ignore[arg-type]
    np.testing.assert_array_equal(case.image, to_uint8(image, "CT"))
    assert case.spacing_mm == pytest.approx(SPACING_ZYX)
    assert case.boxes.tolist() == [[0, 0, 2, 0, 0, 2], [1, 2, 1, 3, 3, 1]]
    assert case.object_labels.tolist() == [1, 3]


def test_the_ct_window_by_hand() -> None:
    hu = np.array([-1000, -160, 40, 239, 240, 3000], np.float32)
    assert to_uint8(hu, "CT").tolist() == [0, 0, 127, 254, 255, 255]


def test_other_modalities_are_scaled_between_percentiles_of_what_is_not_zero() -> None:
    voxels = np.concatenate([np.zeros(500), np.arange(1, 1002)])
    scaled = to_uint8(voxels, "MR")
    assert scaled[:500].max() == 0
    assert scaled[500 + 500] == 127
    assert scaled[-1] == 255
    assert not to_uint8(np.zeros((2, 2)), "MR").any()


def test_modality_without_a_telling_name(tmp_path: Path) -> None:
    image, labels = reference()
    label_path = save(tmp_path / "x_seg.nii.gz", labels)
    assert load_pair(save(tmp_path / "x.nii.gz", image), [label_path]).modality == "CT"
    assert load_pair(save(tmp_path / "y.nii.gz", np.abs(image)), [label_path]).modality == "MR"


def test_other_orientations_of_image_and_labels_may_differ(tmp_path: Path) -> None:
    image, labels = reference()
    case = load_pair(save(tmp_path / "a.nii", image, "RAS"), [save(tmp_path / "a_seg.nii", labels, "PIR")])
    np.testing.assert_array_equal(case.labels, labels)  # type: ignore[arg-type]


def bad_pair(tmp_path: Path, name: str) -> tuple[Path, Path]:
    image, labels = reference()
    pair = save(tmp_path / "a.nii", image), save(tmp_path / "a_seg.nii", labels)
    if name == "shape":
        save(pair[1], labels[:2])
    elif name == "geometry":
        file = nib.load(pair[1])
        nib.save(nib.Nifti1Image(np.asarray(file.dataobj), file.affine + np.eye(4) * 0.5), pair[1])  # type: ignore[attr-defined]
    elif name == "fractions":
        save(pair[1], labels * np.float32(0.5))
    elif name == "negative":
        save(pair[1], labels.astype(np.int16) - 1)
    elif name == "no label":
        save(pair[1], labels * 0)
    elif name == "nan":
        spoilt = image.astype(np.float32)
        spoilt[0, 0, 0] = np.nan
        save(pair[0], spoilt)
    elif name == "4d":
        nib.save(nib.Nifti1Image(np.zeros((4, 4, 4, 2), np.int16), np.eye(4)), pair[0])
    elif name == "html":
        pair[0].write_bytes(b"<html>not found</html>" * 40)
    elif name == "empty":
        pair[0].write_bytes(b"")
    elif name == "truncated":
        pair[0].write_bytes(pair[0].read_bytes()[:-30])
    return pair


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("shape", r"a_seg\.nii: found shape \(2, 4, 5\)"),
        ("geometry", r"a_seg\.nii: found an affine that is off"),
        ("fractions", "whole labels"),
        ("negative", "values -1"),
        ("no label", "no labelled object"),
        ("nan", r"a\.nii: found NaN"),
        ("4d", r"shape \(4, 4, 4, 2\); expected a 3D volume"),
        ("html", r"a\.nii: found no readable NIfTI"),
        ("empty", r"a\.nii: found no readable NIfTI"),
        ("truncated", r"a\.nii: found no readable NIfTI"),
    ],
)
def test_bad_pairs_are_named(tmp_path: Path, name: str, message: str) -> None:
    image_path, labels_path = bad_pair(tmp_path, name)
    with pytest.raises(InputError, match=message):
        load_pair(image_path, [labels_path])


def test_a_huge_header_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii", reference()[0])
    content = bytearray(path.read_bytes())
    content[42:48] = np.array([20_000, 20_000, 3], np.int16).tobytes()
    path.write_bytes(content)
    with pytest.raises(InputError, match="1,200,000,000 elements"):
        load_pair(path, [path])


def test_a_header_that_says_that_voxels_are_gigabytes_away_is_refused(tmp_path: Path) -> None:
    """What lies between is inflated and kept: of a gzip file of a few megabytes, as much memory as it likes."""
    path = save(tmp_path / "a.nii", reference()[0])
    content = bytearray(path.read_bytes())
    content[108:112] = np.array(2**33, np.float32).tobytes()
    content[348] = 1
    packed = tmp_path / "a.nii.gz"
    packed.write_bytes(gzip.compress(content + bytes(2**20)))
    for file in (packed, path):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"voxels from byte 8589934592"):
            load_pair(file, [file])


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def pairs(folder: Path) -> dict[str, str | None]:
    return {
        str(s.image_path.relative_to(folder)): ", ".join(str(path.relative_to(folder)) for path in s.labels_paths)
        or None  # type: ignore[union-attr,misc]
        for s in find_cases(str(folder))
    }


def test_pairing_by_name_by_folder_and_by_being_alone(tmp_path: Path) -> None:
    touch(tmp_path, "a/p1.nii.gz", "a/p1_seg.nii.gz", "a/p2.nii.gz", "a/label_p2.nii.gz", "a/p3.nii.gz")
    touch(
        tmp_path, "b/imagesTr/x_0000.nii.gz", "b/imagesTr/y_0000.nii.gz", "b/labelsTr/x.nii.gz", "b/labelsTr/y.nii.gz"
    )
    touch(tmp_path, "c/ct.nii.gz", "c/seg_v1.nii.gz", "c/seg_v2.nii.gz")
    assert pairs(tmp_path) == {
        "a/p1.nii.gz": "a/p1_seg.nii.gz",
        "a/p2.nii.gz": "a/label_p2.nii.gz",
        "a/p3.nii.gz": None,
        "b/imagesTr/x_0000.nii.gz": "b/labelsTr/x.nii.gz",
        "b/imagesTr/y_0000.nii.gz": "b/labelsTr/y.nii.gz",
        "c/ct.nii.gz": "c/seg_v1.nii.gz",
    }
    with pytest.raises(InputError, match="no label file beside it"):
        next(s for s in find_cases(str(tmp_path)) if s.case_id == "p3").load()


def test_an_explicit_pair(tmp_path: Path) -> None:
    image, labels = reference()
    spec = f"{save(tmp_path / 'i.nii', image)}={save(tmp_path / 'l.nii', labels)}"
    assert find_cases(spec)[0].load().case_id == "i"


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["image_001.png", "label_001.png", "image_002.png", "label_002.png"], {"image_001.png": "label_001.png"}),
        (["img2d.tif", "mask2d.tif", "img3d.tif", "mask3d.tif"], {"img2d.tif": "mask2d.tif"}),
        (["volume-0.nii", "segmentation-0.nii", "volume-1.nii"], {"volume-0.nii": "segmentation-0.nii"}),
        (["img/img0001.nii", "label/label0001.nii", "img/img0002.nii"], {"img/img0001.nii": "label/label0001.nii"}),
        (["b1_flair.nii", "b1_t1ce.nii", "b1_seg.nii"], {"b1_flair.nii": "b1_seg.nii", "b1_t1ce.nii": "b1_seg.nii"}),
        (["p_ct.nii", "p_mr.nii", "p_ct_seg.nii"], {"p_ct.nii": "p_ct_seg.nii", "p_mr.nii": None}),
    ],
)
def test_pairing_by_the_names_of_public_data_sets(
    tmp_path: Path, names: list[str], expected: dict[str, str | None]
) -> None:
    touch(tmp_path, *names)
    found = pairs(tmp_path)
    assert not [name for name in found if "label" in name or "mask" in name or "seg" in name]
    assert {name: found[name] for name in expected} == expected


def test_labels_alone_are_no_case_but_a_file_that_is_asked_for_is(tmp_path: Path) -> None:
    touch(tmp_path, "a_seg.nii", "masks/b.png")
    with pytest.raises(InputError, match="labels alone"):
        find_cases(str(tmp_path))
    assert [source.case_id for source in find_cases(str(tmp_path / "a_seg.nii"))] == ["a_seg"]
