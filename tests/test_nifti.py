"""NIfTI pairs: orientation, spacing, windows, pairing, and files that cannot be used."""

from __future__ import annotations

import gzip
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, ornt_transform

from zoo.data.cases import CaseSource, find_cases
from zoo.data.intensity import to_uint8
from zoo.data.prepare import Preparation, load_pair
from zoo.data.scan import read_scan
from zoo.errors import InputError
from zoo.segment import load_prompted, write_segmentation

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
    assert to_uint8(np.array([[0, 1000]], np.uint16), "MR").tolist() == [[0, 255]], "one value is seen beside none"


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
    touch(tmp_path, "c/ct.nii.gz", "c/seg_v1.nii.gz")
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
    spec = f"{save(tmp_path / 'ct.nii', image)}={tmp_path / 'l.nii'}"
    assert find_cases(spec)[0].case_id == f"{tmp_path.name}_ct", "a name that tells nothing"


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


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        # A lone label file of a folder beside says nothing of an image by another name.
        (["imgs/p2.png", "labels/p1.png"], {"imgs/p2.png": None}),
        (["imagesTs/case_010_0000.nii", "labelsTr/case_001.nii"], {"imagesTs/case_010_0000.nii": None}),
        (
            ["imgs/p1.png", "imgs/p1_2.png", "masks/p1_2_liver.png", "masks/p1_2_spleen.png", "masks/p1_kidney.png"],
            {"imgs/p1.png": "masks/p1_kidney.png", "imgs/p1_2.png": "masks/p1_2_liver.png, masks/p1_2_spleen.png"},
        ),
        (["volume-0.nii/volume-0.nii", "A.NPZ"], {"volume-0.nii/volume-0.nii": None, "A.NPZ": None}),
    ],
)
def test_no_image_gets_the_labels_of_another(tmp_path: Path, names: list[str], expected: dict[str, str | None]) -> None:
    touch(tmp_path, *names)
    assert pairs(tmp_path) == expected


def test_a_folder_is_looked_into_once_however_many_images_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path, *[f"{kind}/p{n}.png" for kind in ("images", "masks") for n in range(40)])
    listed = []
    monkeypatch.setattr(Path, "iterdir", lambda self, read=Path.iterdir: listed.append(self) or read(self))
    assert len(find_cases(str(tmp_path))) == 40
    assert len(listed) == len(set(listed))


def test_a_folder_above_that_may_not_be_looked_into_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path, "me/ct.nii", "me/ct_seg.nii")

    def refuse(self: Path, read: Callable[[Path], Iterator[Path]] = Path.iterdir) -> Iterator[Path]:
        if self == tmp_path:
            raise PermissionError(13, "Permission denied", str(self))
        return read(self)

    monkeypatch.setattr(Path, "iterdir", refuse)
    assert pairs(tmp_path / "me") == {"ct.nii": "ct_seg.nii"}


def test_a_name_that_is_there_is_meant_whatever_signs_it_has(tmp_path: Path) -> None:
    touch(tmp_path, "dwi_b=1000.png", "scan[1].png", "labels=2.png")
    for name in ("dwi_b=1000.png", "scan[1].png"):
        (source,) = find_cases(str(tmp_path / name))
        assert source.image_path == tmp_path / name
    (source,) = find_cases(f"{tmp_path / 'dwi_b=1000.png'}={tmp_path / 'labels=2.png'}")
    assert (source.image_path, source.labels_paths) == (tmp_path / "dwi_b=1000.png", (tmp_path / "labels=2.png",))


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ("missing.nii.gz", "missing.nii.gz: found no such file or folder"),
        ("x.npz=l.nii", "found labels for an npz"),
        ("x.nii=", "an image without labels"),
        ("phantom:ct3", "did you mean ct3d"),
    ],
)
def test_what_cannot_be_found_is_said(spec: str, told: str) -> None:
    with pytest.raises(InputError, match=told):
        find_cases(spec)


def test_a_volume_in_micrometres_has_its_spacing_in_mm_and_its_masks_the_same_numbers(tmp_path: Path) -> None:
    image, labels = reference()
    stored = nib.Nifti1Image(image.transpose(2, 1, 0), np.diag([-500.0, -500.0, 700.0, 1.0]))
    stored.header.set_xyzt_units("micron")
    nib.save(stored, tmp_path / "ct.nii")
    # What draws labels copies the numbers and forgets the unit.
    nib.save(nib.Nifti1Image(labels.transpose(2, 1, 0), stored.affine), tmp_path / "ct_seg.nii")
    source = CaseSource("ct", "ct.nii", tmp_path / "ct.nii", (tmp_path / "ct_seg.nii",))
    prompted = load_prompted(source, Preparation())
    assert prompted.case.spacing_mm == pytest.approx((0.7, 0.5, 0.5))
    write_segmentation(labels.astype(np.uint16), prompted, tmp_path / "out.nii.gz")
    written = nib.load(tmp_path / "out.nii.gz")
    np.testing.assert_allclose(written.affine, stored.affine)
    assert written.header.get_xyzt_units()[0] == "micron"


@pytest.mark.parametrize(
    "names",
    [
        ["ct.nii", "seg_v1.nii", "seg_v2.nii"],
        ["p1.nii", "p1_label.nii", "p1_seg.nii"],
        ["imgs/p1.nii", "labels/p1.nii", "masks/p1.nii"],
    ],
)
def test_of_several_label_files_none_is_taken_unasked(tmp_path: Path, names: list[str]) -> None:
    touch(tmp_path, *names)
    (source,) = find_cases(str(tmp_path))
    files = ", ".join(Path(name).name for name in names[1:])
    with pytest.raises(InputError, match=f"found label files that may all be its own: {files}; expected IMAGE=LABELS"):
        source.load()


def test_labels_beside_an_image_come_before_those_of_other_folders(tmp_path: Path) -> None:
    touch(tmp_path, "a/p1.nii", "a/p1_seg.nii", "labels/p1.nii")
    assert pairs(tmp_path)["a/p1.nii"] == "a/p1_seg.nii"


def test_labels_alone_are_no_case_but_a_file_that_is_asked_for_is(tmp_path: Path) -> None:
    touch(tmp_path, "a_seg.nii", "masks/b.png")
    with pytest.raises(InputError, match="labels alone"):
        find_cases(str(tmp_path))
    assert [source.case_id for source in find_cases(str(tmp_path / "a_seg.nii"))] == ["a_seg"]


def test_voxels_of_nanometres_lead_to_space(tmp_path: Path) -> None:
    affine = np.diag([5e-6, 5e-6, 3e-5, 1.0])
    nib.save(nib.Nifti1Image(np.zeros((4, 4, 3), np.int16), affine), tmp_path / "em.nii")  # type: ignore[no-untyped-call]
    assert read_scan(tmp_path / "em.nii").spacing_mm == pytest.approx((3e-5, 5e-6, 5e-6))


def test_a_code_of_no_unit_counts_as_millimetres(tmp_path: Path) -> None:
    stored = nib.Nifti1Image(np.zeros((3, 4, 5), np.int16), np.diag([2.0, 2.0, 3.0, 1.0]))
    stored.header["xyzt_units"] = 6
    nib.save(stored, tmp_path / "x.nii")
    assert read_scan(tmp_path / "x.nii").spacing_mm == (3.0, 2.0, 2.0)
