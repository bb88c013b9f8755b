"""DICOM series and files: voxels, geometry, scales, and files that cannot be used."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, FileDataset, FileMetaDataset, dcmread
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, RLELossless, generate_uid

from zoo.data.cases import find_cases
from zoo.data.scan import files_of, read_scan
from zoo.errors import InputError


def write_dicom(folder: Path, voxels: np.ndarray, steps: list[float] | None = None, series: str = "") -> Path:
    """A CT series of stored values (z, y, x), 1 mm x 2 mm pixels and 3 mm slices, with a patient in its headers."""
    folder.mkdir(parents=True, exist_ok=True)
    series, study, frame = series or generate_uid(), generate_uid(), generate_uid()
    for z, slice_ in enumerate(voxels):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = CTImageStorage, ExplicitVRLittleEndian
        meta.MediaStorageSOPInstanceUID = generate_uid()
        image = FileDataset("", Dataset(), file_meta=meta, preamble=b"\0" * 128)
        image.SOPClassUID, image.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
        image.StudyInstanceUID, image.SeriesInstanceUID, image.FrameOfReferenceUID = study, series, frame
        image.PatientName, image.PatientID, image.Modality = "Somebody^Secret", "SECRET-ID", "CT"
        image.PatientBirthDate, image.InstitutionName = "19000101", "Secret Hospital"
        image.SeriesNumber, image.InstanceNumber = 1, z + 1
        position = 3.0 * z if steps is None else steps[z]
        image.ImagePositionPatient, image.ImageOrientationPatient = [0, 0, position], [1, 0, 0, 0, 1, 0]
        image.PixelSpacing, image.SliceThickness = [2.0, 1.0], 3.0
        image.Rows, image.Columns = slice_.shape
        image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
        image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 12, 11, 0
        image.RescaleIntercept, image.RescaleSlope = -1024, 1
        image.PixelData = slice_.astype(np.uint16).tobytes()
        image.save_as(folder / f"{generate_uid()}.dcm")
    return folder


def stored_voxels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 2000, (4, 12, 10))


def test_a_dicom_series_is_read_in_hounsfield_units_from_feet_to_head(tmp_path: Path) -> None:
    voxels = stored_voxels()
    scan = read_scan(write_dicom(tmp_path / "series", voxels))
    np.testing.assert_array_equal(scan.voxels, voxels - 1024.0)
    assert scan.spacing_mm == (3.0, 2.0, 1.0)
    assert scan.modality == "CT"


def test_compressed_dicom_reads_as_what_was_compressed(tmp_path: Path) -> None:
    voxels = stored_voxels()
    folder = write_dicom(tmp_path / "series", voxels)
    for file in folder.iterdir():
        image = dcmread(file)
        image.compress(RLELossless)
        image.save_as(file)
    np.testing.assert_array_equal(read_scan(folder).voxels, voxels - 1024.0)


def test_dicom_files_without_a_suffix_are_known_by_their_content(tmp_path: Path) -> None:
    voxels = stored_voxels()
    folder = write_dicom(tmp_path / "study" / "one", voxels)
    for number, file in enumerate(sorted(folder.iterdir())):
        file.rename(folder / (f"IM{number:04d}" if number % 2 else f"1.2.840.{number}"))
    (folder / "DICOMDIR").write_bytes(next(folder.iterdir()).read_bytes()[:200])
    (folder / "README").write_text("no scan")
    (source,) = find_cases(str(tmp_path))
    assert (source.case_id, source.image_path) == ("one", folder)
    np.testing.assert_array_equal(read_scan(folder).voxels, voxels - 1024.0)
    single = read_scan(sorted(folder.glob("IM*"))[0])
    assert single.voxels.shape == (12, 10)
    assert single.spacing_mm == (2.0, 1.0)


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([0, 3, 6, 12], "equal steps; a slice may be missing"),
        ([0, 3, 3, 6], "slices at the same position"),
        ([0, 3, 0, 3], "slices at the same position"),
    ],
)
def test_a_series_with_a_gap_is_refused(tmp_path: Path, steps: list[float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_scan(write_dicom(tmp_path, stored_voxels(), steps))


@pytest.mark.parametrize("kind", ["1.3.46.670589.11.0.0.12.4", "1.3.12.2.1107.5.9.1", "1.2.840.10008.5.1.4.1.1.66.6"])
def test_what_makers_leave_beside_slices_is_passed_over(tmp_path: Path, kind: str) -> None:
    folder, other = write_dicom(tmp_path / "one", stored_voxels()), write_dicom(tmp_path / "other", stored_voxels())
    image = dcmread(next(other.iterdir()))
    image.file_meta.MediaStorageSOPClassUID = image.SOPClassUID = kind
    del image.PixelData
    image.save_as(folder / "XX_0001.dcm")
    assert read_scan(folder).voxels.shape == (4, 12, 10)
    assert [source.image_path for source in find_cases(str(folder))] == [folder]


def test_several_frames_in_a_file_are_told_of_as_such(tmp_path: Path) -> None:
    folder = write_dicom(tmp_path / "one", stored_voxels()[:1])
    (path,) = folder.iterdir()
    image = dcmread(path)
    image.NumberOfFrames = 3
    image.PixelData = image.PixelData * 3
    image.save_as(path)
    for asked in (path, folder):
        with pytest.raises(InputError, match="found 3 frames in one file; expected a file a slice"):
            read_scan(asked)


def test_two_series_in_a_folder_are_refused_without_a_word_of_the_patient(tmp_path: Path) -> None:
    write_dicom(tmp_path, stored_voxels())
    write_dicom(tmp_path, stored_voxels())
    with pytest.raises(InputError, match="2 DICOM series") as caught:
        read_scan(tmp_path)
    assert "ecret" not in str(caught.value)


def test_what_lies_beside_a_series_is_found_too(tmp_path: Path) -> None:
    folder = write_dicom(tmp_path / "in" / "pat", stored_voxels())
    for name in ("mr_t1.nii.gz", "photo.png"):
        (folder / name).touch()
    for spec in (tmp_path / "in", folder, folder / "*"):
        found = find_cases(str(spec))
        assert [source.image_path for source in found] == [folder, folder / "mr_t1.nii.gz", folder / "photo.png"]
    assert find_cases(found[0].reference)[0] == found[0]
    assert len(found[0].files()) == 4
    assert read_scan(folder).voxels.shape == (4, 12, 10)


def test_single_images_of_several_series_are_taken_one_by_one(tmp_path: Path) -> None:
    files = [file for _ in range(3) for file in write_dicom(tmp_path / "new", stored_voxels()[:1]).iterdir()]
    for number, file in enumerate(sorted(set(files))):
        file.rename(tmp_path / f"xr{number}.dcm")
    (tmp_path / "xr9.dcm").write_bytes(b"broken")
    (tmp_path / "new").rmdir()
    for spec in (tmp_path, tmp_path / "*.dcm"):
        found = find_cases(str(spec))
        assert [source.case_id for source in found] == ["xr0", "xr1", "xr2", "xr9"]
    assert read_scan(tmp_path / "xr1.dcm").voxels.shape == (12, 10)


def test_a_truncated_dicom_file_is_named(tmp_path: Path) -> None:
    folder = write_dicom(tmp_path, stored_voxels())
    victim = max(folder.iterdir(), key=lambda file: dcmread(file).InstanceNumber)
    victim.write_bytes(victim.read_bytes()[:-100])
    with pytest.raises(InputError, match=re.escape(victim.name)):
        read_scan(folder)


def test_a_truncated_last_slice_without_a_suffix_is_named(tmp_path: Path) -> None:
    files = sorted(write_dicom(tmp_path, stored_voxels()).iterdir(), key=lambda file: dcmread(file).InstanceNumber)
    for number, file in enumerate(files):
        file.rename(tmp_path / f"IM{number:04d}")
    last = tmp_path / "IM0003"
    last.write_bytes(last.read_bytes()[:-100])
    with pytest.raises(InputError, match="IM0003: found a file that cannot be read"):
        read_scan(tmp_path)


def edit_dicom(folder: Path, change: Callable[[FileDataset, int], None]) -> Path:
    """Changes every file of a series, given with its place in it."""
    for file in folder.iterdir():
        image = dcmread(file)
        change(image, image.InstanceNumber - 1)
        image.save_as(file)
    return folder


def test_a_series_in_colours_is_named(tmp_path: Path) -> None:
    def colour(image: FileDataset, place: int) -> None:
        image.SamplesPerPixel, image.PhotometricInterpretation, image.PlanarConfiguration = 3, "RGB", 0
        image.BitsAllocated, image.BitsStored, image.HighBit = 8, 8, 7
        image.PixelData = bytes(3 * image.Rows * image.Columns)

    folder = edit_dicom(write_dicom(tmp_path, stored_voxels()), colour)
    with pytest.raises(InputError, match="found slices in colours"):
        read_scan(folder)


def test_a_picture_whose_small_values_are_white_is_turned_once(tmp_path: Path) -> None:
    def turn(image: FileDataset, place: int) -> None:
        image.PhotometricInterpretation = "MONOCHROME1"

    voxels = stored_voxels()[:1]
    (plain,) = write_dicom(tmp_path / "plain", voxels).iterdir()
    (turned,) = edit_dicom(write_dicom(tmp_path / "turned", voxels), turn).iterdir()
    expected, found = (read_scan(file).voxels.astype(np.int64) for file in (plain, turned))
    np.testing.assert_array_equal(np.diff(found), -np.diff(expected))


def test_slices_under_a_tilted_gantry_lie_where_their_headers_say(tmp_path: Path) -> None:
    tilt = np.deg2rad(20)

    def lean(image: FileDataset, place: int) -> None:
        image.ImageOrientationPatient = [1, 0, 0, 0, float(np.cos(tilt)), float(-np.sin(tilt))]
        image.ImagePositionPatient = [-16, -16, 5 * place]

    scan = read_scan(edit_dicom(write_dicom(tmp_path, stored_voxels()), lean))
    assert scan.grid is not None
    # Pixels are 1 mm along x and 2 mm along y; LPS to RAS turns the first two signs.
    for voxel in ([0, 0, 0], [0, 0, 3], [2, 3, 1]):
        x, y, z = voxel
        lps = [-16 + x, -16 + 2 * y * np.cos(tilt), 5 * z - 2 * y * np.sin(tilt)]
        found = scan.grid.affine @ [*voxel, 1]
        np.testing.assert_allclose(found[:3], [-lps[0], -lps[1], lps[2]], atol=1e-6)


def test_slices_scaled_by_fractions_of_their_own_keep_them(tmp_path: Path) -> None:
    slopes = [1.0, 0.0005, 0.25, 0.33]

    def scale(image: FileDataset, place: int) -> None:
        image.RescaleIntercept, image.RescaleSlope = 0, slopes[place]

    voxels = stored_voxels()
    scan = read_scan(edit_dicom(write_dicom(tmp_path, voxels), scale))
    np.testing.assert_allclose(scan.voxels, voxels * np.reshape(slopes, (-1, 1, 1)), rtol=1e-6)


def test_directions_that_differ_by_how_they_are_written_are_one(tmp_path: Path) -> None:
    def write_out(image: FileDataset, place: int) -> None:
        image.ImageOrientationPatient = (
            ["1", "0", "0", "0", "1", "0"] if place else ["1.0", "0", "0.00001", "0", "1", "0"]
        )

    voxels = stored_voxels()
    scan = read_scan(edit_dicom(write_dicom(tmp_path / "one", voxels), write_out))
    np.testing.assert_array_equal(scan.voxels, voxels - 1024.0)

    def turn_last(image: FileDataset, place: int) -> None:
        image.ImageOrientationPatient = [1, 0, 0, 0, 1, 0] if place < 3 else [0, 1, 0, 1, 0, 0]

    with pytest.raises(InputError, match="slices of several directions"):
        read_scan(edit_dicom(write_dicom(tmp_path / "two", voxels), turn_last))


@pytest.mark.parametrize("spacings", [[None] * 4, [[0.0, 0.0]] * 4, [[2.0, 1.0], [2.0, 1.0], [2.0, 1.2], [2.0, 1.2]]])
def test_pixel_spacings_that_are_missing_or_differ_are_refused(
    tmp_path: Path, spacings: list[list[float] | None]
) -> None:
    folder = write_dicom(tmp_path / "series", stored_voxels())
    for file, spacing in zip(sorted(folder.iterdir()), spacings, strict=True):
        image = dcmread(file)
        if spacing is None:
            del image.PixelSpacing
        else:
            image.PixelSpacing = spacing
        image.save_as(file)
    with pytest.raises(InputError, match=r"found (slices without a pixel spacing|pixel spacings of 1 to 2 mm)"):
        read_scan(folder)


def test_a_detectors_pixel_spacing_that_itk_takes_for_none_is_refused(tmp_path: Path) -> None:
    """Of X-rays alone it does; of a CT it would take a pixel for 1 mm."""

    def of_detector(image: FileDataset, place: int) -> None:
        image.ImagerPixelSpacing = image.PixelSpacing
        del image.PixelSpacing

    folder = edit_dicom(write_dicom(tmp_path / "series", stored_voxels()), of_detector)
    with pytest.raises(InputError, match="found slices without a pixel spacing"):
        read_scan(folder)


@pytest.mark.parametrize("kind", ["1", "1.1", "1.2"])
@pytest.mark.parametrize("is_calibrated", [True, False])
def test_an_xrays_pixels_are_as_large_as_in_the_patient(tmp_path: Path, kind: str, is_calibrated: bool) -> None:
    """CR, DX and MG; on the detector they are larger, which is taken where nothing else is told."""

    def of_detector(image: FileDataset, place: int) -> None:
        image.file_meta.MediaStorageSOPClassUID = image.SOPClassUID = f"1.2.840.10008.5.1.4.1.1.{kind}"
        image.ImagerPixelSpacing = [4.0, 3.0]
        if not is_calibrated:
            del image.PixelSpacing

    (path,) = edit_dicom(write_dicom(tmp_path / "xray", stored_voxels()[:1]), of_detector).iterdir()
    assert read_scan(path).spacing_mm == ((2.0, 1.0) if is_calibrated else (4.0, 3.0))


def test_hidden_files_beside_slices_are_passed_over(tmp_path: Path) -> None:
    """macOS leaves some on drives of others, and a hidden slice is none either."""
    voxels = stored_voxels()
    folder = write_dicom(tmp_path / "one", voxels)
    slices = sorted(folder.iterdir())
    (folder / f"._{slices[0].name}").write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X")
    image = dcmread(slices[0])
    image.ImagePositionPatient = [0, 0, 12]
    image.save_as(folder / ".hidden.dcm")
    np.testing.assert_array_equal(read_scan(folder).voxels, voxels - 1024.0)
    assert files_of(folder) == slices


@pytest.mark.parametrize("place", ["folder", "slice", "file", "nrrd"])
def test_a_name_that_is_no_text_is_told_of(tmp_path: Path, place: str) -> None:
    """Such as of another system's encoding. ITK would end the process."""
    odd = os.fsdecode(b"caf\xe9")
    try:
        (tmp_path / odd).mkdir()
    except OSError:
        pytest.skip("found a file system whose names are all text")
    folder = write_dicom(tmp_path / (odd if place == "folder" else "one"), stored_voxels())
    path = folder
    if place != "folder":
        path = next(folder.iterdir()).rename(folder / f"{odd}{'.nrrd' if place == 'nrrd' else '.dcm'}")
    if place == "nrrd":
        path.write_bytes(b"NRRD0004\n\n")
    with pytest.raises(InputError, match="found a name that is no text; expected a path in UTF-8"):
        read_scan(folder if place == "slice" else path)
