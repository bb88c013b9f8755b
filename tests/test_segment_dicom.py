"""`segment` of DICOM series: to NIfTI and to DICOM segmentations, which lie in the same place."""

from __future__ import annotations

import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from highdicom.seg import segread
from pydicom import dcmread
from test_dicom import stored_voxels, write_dicom
from test_segment import _masks_that_fill_their_boxes, run

from zoo.errors import InputError

__all__ = ["_masks_that_fill_their_boxes"]  # a fixture that every test here has


def points_of_nifti(image: nib.Nifti1Image) -> set[tuple[float, ...]]:
    """Where label 1 is, in RAS millimetres."""
    at = np.argwhere(np.asarray(image.dataobj) == 1)
    return {tuple(point) for point in np.round(nib.affines.apply_affine(image.affine, at), 3).tolist()}


def points_of_dicom_seg(path: Path) -> set[tuple[float, ...]]:
    """Where segment 1 is, in RAS millimetres, as highdicom reads it."""
    volume = segread(path).get_volume(segment_numbers=[1], combine_segments=True, relabel=False)
    lps = nib.affines.apply_affine(volume.affine, np.argwhere(volume.array == 1))
    return {tuple(point) for point in np.round(lps * (-1, -1, 1), 3).tolist()}


@pytest.mark.parametrize(
    ("rows_and_columns", "normal"),
    [
        ([1, 0, 0, 0, 1, 0], [0, 0, 3]),  # axial
        ([0, 1, 0, 0, 0, -1], [3, 0, 0]),  # sagittal
        ([0.96, 0.28, 0, -0.28, 0.96, 0], [0, 0, -3]),  # turned by 16 degrees, head first
    ],
)
def test_a_dicom_segmentation_lies_where_the_nifti_lies(
    tmp_path: Path, rows_and_columns: list[float], normal: list[float]
) -> None:
    folder = write_dicom(tmp_path / "scans" / "one", stored_voxels())
    for file in folder.iterdir():
        image = dcmread(file)
        image.ImageOrientationPatient = rows_and_columns
        image.ImagePositionPatient = (np.array([7, -20, 30]) + (image.InstanceNumber - 1) * np.array(normal)).tolist()
        image.save_as(file)
    out = tmp_path / "out"
    result = run("-i", folder, "--box", "2,3,1,8,9,2", "-o", out, "--dicom-seg", "--box-dilation-px", 0)
    assert result.exit_code == 0, result.output
    found = points_of_nifti(nib.load(out / "one.nii.gz"))
    assert found == points_of_dicom_seg(out / "one.seg.dcm")
    assert len(found) > 20


def test_a_dicom_series_to_nifti_and_to_a_segmentation_without_the_patient(tmp_path: Path) -> None:
    folder = write_dicom(tmp_path / "scans" / "one", stored_voxels())
    out = tmp_path / "out"
    box = "2,3,1,8,9,2"
    result = run("-i", folder, "--box", box, "-o", out, "--dicom-seg", "--overlay", "--box-dilation-px", 0)
    assert result.exit_code == 0, result.output
    nifti = nib.load(out / "one.nii.gz")
    assert nifti.shape == (10, 12, 4)
    np.testing.assert_allclose(np.abs(np.diag(nifti.affine)), [1, 2, 3, 1])
    assert dcmread(out / "one.seg.dcm").Modality == "SEG"
    assert points_of_dicom_seg(out / "one.seg.dcm") == points_of_nifti(nifti)
    assert len(points_of_nifti(nifti)) > 0
    for file in out.rglob("*"):
        if file.is_file():
            assert b"ecret" not in file.read_bytes(), file
            assert b"SECRET" not in file.read_bytes(), file
    assert "ecret" not in result.output


def test_a_patient_whose_folder_is_no_text_costs_the_others_nothing(tmp_path: Path) -> None:
    odd = tmp_path / "scans" / os.fsdecode(b"caf\xe9")
    try:
        write_dicom(odd, stored_voxels())
    except OSError:
        pytest.skip("found a file system whose names are all text")
    write_dicom(tmp_path / "scans" / "one", stored_voxels())
    result = run("-i", tmp_path / "scans", "--box", "2,3,1,8,9,2", "-o", tmp_path / "out")
    assert result.exit_code == 1
    assert "found a name that is no text; expected a path in UTF-8" in " ".join(result.output.split())
    assert "1 of 2 segmented" in result.output
    assert (tmp_path / "out" / "one.nii.gz").exists()


def test_an_empty_mask_of_a_dicom_series_is_kept_and_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zoo.segment_run.segment_case", lambda case, *_, **__: np.zeros(case.spatial_shape, np.uint16))
    folder = write_dicom(tmp_path / "scans" / "one", stored_voxels())
    result = run("-i", folder, "--box", "2,3,1,8,9,2", "-o", tmp_path / "out", "--dicom-seg")
    assert result.exit_code == 0, result.output
    assert "nothing was segmented" in " ".join(result.output.split())
    assert not np.asarray(nib.load(tmp_path / "out" / "one.nii.gz").dataobj).any()
    assert not (tmp_path / "out" / "one.seg.dcm").exists()


def test_what_is_asked_for_later_is_written_beside_what_is_there(tmp_path: Path) -> None:
    words = ["-i", write_dicom(tmp_path / "scans" / "one", stored_voxels()), "--box", "2,3,1,8,9,2"]
    words += ["-o", tmp_path / "out"]
    files = (tmp_path / "out" / "one.seg.dcm", tmp_path / "out" / "overlays" / "one.gif")
    for more, there in (((), [False, False]), (["--dicom-seg"], [True, False]), (["--overlay"], [True, True])):
        result = run(*words, *more)
        assert result.exit_code == 0, result.output
        assert "1 of 1 segmented" in result.output
        assert [file.exists() for file in files] == there
    assert "1 of 1 were in" in run(*words, "--overlay", "--dicom-seg").output


def test_a_segmentation_of_nothing_is_asked_for_again_but_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zoo.segment_run.segment_case", lambda case, *_, **__: np.zeros(case.spatial_shape, np.uint16))
    words = ["-i", write_dicom(tmp_path / "scans" / "one", stored_voxels()), "--box", "2,3,1,8,9,2"]
    words += ["-o", tmp_path / "out"]
    told = [run(*words, *more).output for more in ((), ["--dicom-seg"], ["--dicom-seg"])]
    assert ["1 of 1 were in" in one for one in told] == [False, False, True]


@pytest.mark.parametrize("failing", ["zoo.segment_run.write_montage", "zoo.data.dicom_seg.write_dicom_seg"])
def test_masks_are_kept_where_what_was_asked_for_beside_them_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise InputError("one", "no slice thickness", "one")

    words = ["-i", write_dicom(tmp_path / "scans" / "one", stored_voxels()), "--box", "2,3,1,8,9,2"]
    words += ["-o", tmp_path / "out", "--dicom-seg", "--overlay"]
    with monkeypatch.context() as patch:
        patch.setattr(failing, fail)
        result = run(*words)
    assert result.exit_code == 1
    assert "found no slice thickness; expected one (the masks are written)" in " ".join(result.output.split())
    assert np.asarray(nib.load(tmp_path / "out" / "one.nii.gz").dataobj).any()
    other = run(*[word if word != "2,3,1,8,9,2" else "2,3,1,7,8,2" for word in words])
    assert other.exit_code == 1
    assert "masks made by other settings" in " ".join(other.output.split())
    assert "1 of 1 segmented" in run(*words).output, "the same command makes up for it"
    assert (tmp_path / "out" / "one.seg.dcm").exists()
    assert (tmp_path / "out" / "overlays" / "one.png").exists()
