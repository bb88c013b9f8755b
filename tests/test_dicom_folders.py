"""Folders that hold more than one DICOM series: plans and reports, scouts, other series."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.uid import UID, generate_uid
from test_dicom import stored_voxels, write_dicom

from zoo.data.cases import find_cases
from zoo.data.readers.dicom import holds_no_image
from zoo.data.readers.itk import dicom_files
from zoo.data.scan import read_scan
from zoo.errors import InputError

STORAGE = "1.2.840.10008.5.1.4.1.1."
PLANS = {"RTSTRUCT": "481.3", "RTPLAN": "481.5", "SR": "88.33", "PR": "11.1", "DOC": "104.1", "REG": "66.1"}
IMAGE_TAGS = (
    *("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "SamplesPerPixel"),
    *("PixelData", "PhotometricInterpretation", "ImagePositionPatient", "ImageOrientationPatient"),
)


def write_plan(folder: Path, kind: str, name: str = "") -> Path:
    """A file without pixels beside a series, of its study."""
    file = dcmread(next(path for path in folder.iterdir() if not holds_no_image(path)))
    for tag in IMAGE_TAGS:
        delattr(file, tag)
    file.SOPClassUID = file.file_meta.MediaStorageSOPClassUID = UID(STORAGE + PLANS[kind])
    file.SOPInstanceUID = file.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    file.SeriesInstanceUID, file.Modality = generate_uid(), kind
    file.save_as(folder / (name or f"{kind}.dcm"))
    return folder / (name or f"{kind}.dcm")


def test_plans_reports_and_states_beside_a_series_are_passed_over(tmp_path: Path) -> None:
    voxels = stored_voxels()
    folder = write_dicom(tmp_path / "one", voxels)
    for number, kind in enumerate(PLANS):
        write_plan(folder, kind, f"IM{number}" if number % 2 else "")
    (source,) = find_cases(str(tmp_path))
    assert source.image_path == folder
    np.testing.assert_array_equal(read_scan(folder).voxels, voxels - 1024.0)


def test_a_plan_in_a_folder_of_its_own_is_no_case_and_a_picture_beside_one_is(tmp_path: Path) -> None:
    plan = write_plan(write_dicom(tmp_path / "xray", stored_voxels()[:1]), "RTSTRUCT")
    (tmp_path / "plans").mkdir()
    plan.rename(tmp_path / "plans" / "RS.dcm")
    write_plan(tmp_path / "xray", "SR")
    (source,) = find_cases(str(tmp_path))
    assert source.image_path is not None
    assert read_scan(source.image_path).voxels.shape == (12, 10)
    with pytest.raises(InputError, match=r"RS\.dcm"):
        read_scan(find_cases(str(tmp_path / "plans" / "RS.dcm"))[0].image_path or tmp_path)


@pytest.mark.parametrize("kind", ["2", "4", "481.1", "481.2", "77.1.6", "481.23", "7"])
def test_images_and_doses_are_images(tmp_path: Path, kind: str) -> None:
    (path,) = write_dicom(tmp_path, stored_voxels()[:1]).iterdir()
    file = dcmread(path)
    file.file_meta.MediaStorageSOPClassUID = UID(STORAGE + kind)
    file.save_as(path)
    assert not holds_no_image(path)


@pytest.mark.parametrize("scouts", [[1], [1, 3]])
def test_scouts_beside_a_series_are_passed_over_and_told_of(
    tmp_path: Path, scouts: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    voxels = stored_voxels()
    write_dicom(tmp_path, voxels)
    for slices in scouts:
        write_dicom(tmp_path, np.zeros((slices, 6, 7)))
    np.testing.assert_array_equal(read_scan(tmp_path).voxels, voxels - 1024.0)
    assert len(dicom_files(tmp_path)) == 4
    (told,) = caplog.messages
    assert f"{len(scouts) + 1} DICOM series the longest is read" in told
    assert "1, CT: 1 file from" in told
    assert "ecret" not in told


@pytest.mark.parametrize("lengths", [(4, 4), (3, 1), (8, 4, 1)])
def test_several_series_are_listed_and_none_is_read(tmp_path: Path, lengths: tuple[int, ...]) -> None:
    for slices in lengths:
        write_dicom(tmp_path, np.zeros((slices, 6, 7)))
    with pytest.raises(InputError, match="expected one; give each a folder of its own") as caught:
        read_scan(tmp_path)
    for slices in lengths:
        assert f"1, CT: {slices} file{'s' * (slices > 1)} from 1.2.826" in str(caught.value)
    assert "ecret" not in str(caught.value)
