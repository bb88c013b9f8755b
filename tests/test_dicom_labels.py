"""Structures and segmentations in DICOM: contours, frames, and files that cannot be used."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import cv2
import nibabel
import numpy as np
import pytest
from click.testing import CliRunner
from highdicom.seg import SegmentationTypeValues
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydicom import Dataset, FileDataset, FileMetaDataset, dcmread
from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian, RTStructureSetStorage, generate_uid
from test_dicom import edit_dicom, write_dicom

from cli import main
from zoo.data import dicom_seg
from zoo.data.cases import find_cases
from zoo.data.dicom_seg import write_dicom_seg
from zoo.data.npz import load_challenge_npz
from zoo.data.readers.dicom_labels import inside
from zoo.data.readers.nifti import nifti_of
from zoo.data.scan import read_objects, read_scan
from zoo.errors import InputError

#: Of a slice in mm, (x, y): pixels of `write_dicom` are 1 mm wide and 2 mm high, the first at 0, slices 3 mm apart.
Outline = list[tuple[float, float]]
SQUARE: Outline = [(1.5, 3), (6.5, 3), (6.5, 17), (1.5, 17)]
HOLE: Outline = [(2.5, 7), (5.5, 7), (5.5, 13), (2.5, 13)]


def series(folder: Path, depth: int = 4) -> Path:
    rng = np.random.default_rng(0)
    return write_dicom(folder, rng.integers(0, 2000, (depth, 12, 10)))


def write_structures(
    path: Path, rois: dict[int, list[tuple[float, Outline]]], kinds: dict[int, str] | None = None
) -> Path:
    """An RTSTRUCT: for each structure its contours, each by its z in mm and its points."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = RTStructureSetStorage, ExplicitVRLittleEndian
    meta.MediaStorageSOPInstanceUID = generate_uid()
    file = FileDataset("", Dataset(), file_meta=meta, preamble=b"\0" * 128)
    file.SOPClassUID, file.SOPInstanceUID = RTStructureSetStorage, meta.MediaStorageSOPInstanceUID
    file.PatientName, file.Modality, file.SeriesInstanceUID = "Somebody^Secret", "RTSTRUCT", generate_uid()
    file.ROIContourSequence, file.RTROIObservationsSequence = [], []
    for number, contours in rois.items():
        roi, told = Dataset(), Dataset()
        roi.ReferencedROINumber = told.ReferencedROINumber = number
        told.RTROIInterpretedType = (kinds or {}).get(number, "ORGAN")
        roi.ContourSequence = []
        for z_mm, outline in contours:
            contour = Dataset()
            contour.ContourGeometricType = "CLOSED_PLANAR" if len(outline) > 1 else "POINT"
            contour.NumberOfContourPoints = len(outline)
            contour.ContourData = [value for x, y in outline for value in (x, y, z_mm)]
            roi.ContourSequence.append(contour)
        file.ROIContourSequence.append(roi)
        file.RTROIObservationsSequence.append(told)
    file.save_as(path)
    return path


def in_frame(folder: Path, frame: str) -> Path:
    """A series whose slices name another frame of reference, or none."""
    return edit_dicom(folder, lambda image, _: setattr(image, "FrameOfReferenceUID", frame))


def labels_of(path: Path, folder: Path) -> NDArray[np.uint16]:
    return read_objects([path], read_scan(folder)).labels


def test_contours_by_hand(tmp_path: Path) -> None:
    """A square with a hole in the second slice (from the feet), the whole square in the third, numbers as told."""
    folder = series(tmp_path / "ct")
    path = write_structures(tmp_path / "rs.dcm", {7: [(3, SQUARE), (3, HOLE), (6, SQUARE)], 9: [(0, [(1, 1)])]})
    expected = np.zeros((4, 12, 10), np.uint16)
    expected[1:3, 2:9, 2:7] = 7
    expected[1, 4:7, 3:6] = 0
    np.testing.assert_array_equal(labels_of(path, folder), expected)


@pytest.mark.parametrize(
    ("image", "own", "referenced", "is_refused"),
    [
        ("1.2.3", "", [], False),
        ("", "1.2.4", ["1.2.4"], False),
        ("1.2.3", "", ["1.2.4", "1.2.3"], False),
        ("1.2.3", "1.2.3", [], False),
        ("1.2.3", "", ["1.2.4"], True),
        ("1.2.3", "1.2.4", [], True),
    ],
)
def test_structures_of_another_frame_of_reference_are_refused(
    tmp_path: Path, image: str, own: str, referenced: list[str], is_refused: bool
) -> None:
    """Such as of another week, whose slices lie in the same places. No UID is told."""
    folder = in_frame(series(tmp_path / "ct"), image)
    path = write_structures(tmp_path / "rs.dcm", {7: [(3, SQUARE)]})
    file = dcmread(path)
    file.FrameOfReferenceUID, file.ReferencedFrameOfReferenceSequence = own, []
    for uid in referenced:
        file.ReferencedFrameOfReferenceSequence.append(Dataset())
        file.ReferencedFrameOfReferenceSequence[-1].FrameOfReferenceUID = uid
    file.save_as(path)
    if is_refused:
        with pytest.raises(InputError, match=r"rs\.dcm: found another frame of reference than the image's") as raised:
            labels_of(path, folder)
        assert "1.2." not in str(raised.value)
    else:
        assert labels_of(path, folder).any()


def test_structures_that_name_the_frame_of_reference_each_for_itself(tmp_path: Path) -> None:
    folder = in_frame(series(tmp_path / "ct"), "1.2.1")
    path = write_structures(tmp_path / "rs.dcm", {7: [(3, SQUARE)]})
    file = dcmread(path)
    file.FrameOfReferenceUID = "1.2.9"
    file.save_as(path)
    with pytest.raises(InputError, match="another frame of reference"):
        labels_of(path, folder)
    structure = Dataset()
    structure.ROINumber, structure.ReferencedFrameOfReferenceUID = 7, "1.2.1"
    file.StructureSetROISequence = [structure]
    file.save_as(path)
    assert labels_of(path, folder).any()


def test_a_segmentation_of_another_frame_of_reference_is_refused(tmp_path: Path) -> None:
    folder = series(tmp_path / "ct")
    scan = read_scan(folder)
    assert scan.grid is not None
    path = tmp_path / "seg.dcm"
    write_dicom_seg(np.ones(scan.spatial_shape, np.uint16), scan.grid, folder, path)
    assert labels_of(path, folder).all()
    with pytest.raises(InputError, match=r"seg\.dcm: found another frame of reference than the image's"):
        labels_of(path, series(tmp_path / "other"))


@pytest.mark.parametrize("shift", [0.0, 1e-13, -1e-13, 4e-4, -4e-4])
def test_contours_through_the_centres_of_a_masks_outermost_pixels_give_the_mask(shift: float) -> None:
    """As OpenCV finds them, those of holes in the pixels around; whatever the rounding of their points."""
    mask = np.zeros((12, 10), np.uint8)
    mask[2:11, 1:9] = 1
    mask[4:8, 3:6] = 0
    mask[2, 1] = mask[10, 8] = 0
    contours, _ = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    assert len(contours) == 2
    outlines = [contour[:, 0, ::-1] + shift for contour in contours]
    np.testing.assert_array_equal(inside(outlines, mask.shape), mask > 0)


@given(st.lists(st.tuples(st.floats(-3, 15), st.floats(-3, 13)), min_size=3, max_size=12))
def test_filling_is_that_of_another_library(points: list[tuple[float, float]]) -> None:
    """But for what lies on an edge; of stars about their middle, which do not cross themselves."""
    polygon = np.array(points, np.float32)
    star = polygon[np.argsort(np.arctan2(*(polygon - polygon.mean(axis=0)).T))]
    found = inside([star.astype(np.float64)], (12, 10))
    for point in np.ndindex(found.shape):
        distance = cv2.pointPolygonTest(star, [float(value) for value in point], True)
        assert abs(distance) < 1e-3 or found[point] == (distance > 0)


def test_a_contour_as_thin_as_a_line_costs_no_structure(tmp_path: Path) -> None:
    """It is flat along x as well as along z, between two voxels of x."""
    folder = series(tmp_path / "ct")
    sliver: Outline = [(4.4, 3), (4.4, 9), (4.4, 17)]
    path = write_structures(tmp_path / "rs.dcm", {7: [(3, SQUARE), (6, sliver)]})
    labels = labels_of(path, folder)
    assert labels[1].any()
    assert not labels[2].any()


def test_a_crossed_polygon_goes_by_even_and_odd() -> None:
    """A star of five points, whose middle is wound around twice."""
    angles = np.pi / 2 + np.arange(5) * 4 * np.pi / 5
    star = 20 + 15 * np.stack([np.sin(angles), np.cos(angles)], axis=1)
    found = inside([star], (41, 41))
    assert not found[20, 20]
    assert found[33, 20]


def test_skin_and_table_are_no_objects_and_what_lies_elsewhere_is_told_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = series(tmp_path / "ct")
    rois = {1: [(3.0, SQUARE)], 2: [(3.0, HOLE)], 3: [(3.0, HOLE)], 4: [(300.0, HOLE)]}
    path = write_structures(tmp_path / "rs.dcm", rois, {1: "EXTERNAL", 2: "SUPPORT"})
    assert set(np.unique(labels_of(path, folder))) == {0, 3}
    assert caplog.messages == [f"{path}: structures without a voxel of the image are passed over: 4"]


def test_a_structure_wholly_under_others_is_left_out_and_told_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Both lungs as one structure, and each by itself."""
    folder = series(tmp_path / "ct")
    left: Outline = [(0.5, 3), (4.5, 3), (4.5, 17), (0.5, 17)]
    right: Outline = [(4.5, 3), (8.5, 3), (8.5, 17), (4.5, 17)]
    path = write_structures(tmp_path / "rs.dcm", {1: [(3, left), (3, right)], 2: [(3, left)], 3: [(3, right)]})
    assert set(np.unique(labels_of(path, folder))) == {0, 2, 3}
    assert caplog.messages == [f"{path}: left out: object 1, which lies wholly under object 2, object 3"]


@pytest.mark.parametrize(
    ("rois", "found"),
    [
        ({1: [(4.5, SQUARE)]}, "a contour of structure 1 that lies askew or between slices"),
        ({70000: [(3.0, SQUARE)]}, "an object of number 70000"),
        ({0: [(3.0, SQUARE)]}, "an object of number 0"),
        ({1: [(3.0, [(1, 1)])]}, "no object"),
        ({}, "no object"),
    ],
)
def test_structures_that_cannot_be_used(
    tmp_path: Path, rois: dict[int, list[tuple[float, Outline]]], found: str
) -> None:
    folder = series(tmp_path / "ct")
    path = write_structures(tmp_path / "rs.dcm", rois)
    with pytest.raises(InputError, match=f"rs.dcm: found {found}"):
        labels_of(path, folder)


def test_numbers_that_are_none_are_named_without_a_word_of_the_patient(tmp_path: Path) -> None:
    folder = series(tmp_path / "ct")
    path = write_structures(tmp_path / "rs.dcm", {1: [(3.0, SQUARE)]})
    file = dcmread(path)
    del file.ROIContourSequence[0].ContourSequence[0].ContourData
    file.save_as(path)
    with pytest.raises(InputError, match=r"rs\.dcm: found no readable labels") as raised:
        labels_of(path, folder)
    assert "ecret" not in str(raised.value)
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(InputError, match=r"rs\.dcm"):
        labels_of(path, folder)


@pytest.mark.parametrize("kind", list(SegmentationTypeValues))
def test_a_segmentation_comes_back_as_it_was_written(
    tmp_path: Path, kind: SegmentationTypeValues, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By way of highdicom, which numbers the segments anew."""
    monkeypatch.setattr(dicom_seg, "SegmentationTypeValues", SimpleNamespace(BINARY=kind))
    folder = series(tmp_path / "ct")
    scan = read_scan(folder)
    labels = np.zeros(scan.spatial_shape, np.uint16)
    labels[1:3, 2:9, 2:7] = 4
    labels[1, 4:7, 3:6] = 8
    assert scan.grid is not None
    path = tmp_path / "seg.dcm"
    write_dicom_seg(labels, scan.grid, folder, path)
    expected = np.array([0, 1, 2], np.uint16)[np.searchsorted([0, 4, 8], labels)]
    np.testing.assert_array_equal(labels_of(path, folder), expected)
    other = in_frame(write_dicom(tmp_path / "other", np.zeros((4, 12, 10)), [0.0, 4.0, 8.0, 12.0]), "")
    with pytest.raises(InputError, match=r"seg\.dcm: found frames that do not lie on the image's voxels"):
        labels_of(path, other)


def test_labels_among_the_slices_of_a_series_are_found(tmp_path: Path) -> None:
    """Boxes and labels of a prepared case come from there; two files of them are rivals; others make no case."""
    folder = series(tmp_path / "scans" / "p1")
    path = write_structures(folder / "rs", {7: [(3, SQUARE), (6, SQUARE)]})
    (source,) = find_cases(str(tmp_path / "scans"))
    assert (source.image_path, source.labels_paths) == (folder, (path,))
    command = ["prepare", "-i", str(tmp_path / "scans"), "-o", str(tmp_path / "npz"), "--workers", "1"]
    result = CliRunner().invoke(main, [*command, "--min-voxels", "0", "--min-pixels", "0"])
    assert result.exit_code == 0, result.output
    case = load_challenge_npz(next((tmp_path / "npz").glob("*.npz")))
    assert case.boxes.tolist() == [[2, 2, 1, 6, 8, 2]]
    write_structures(folder / "rs2.dcm", {7: [(3, SQUARE)]})
    (source,) = find_cases(str(tmp_path / "scans"))
    assert (source.labels_paths, len(source.rivals)) == ((), 2)
    (source,) = find_cases(f"{folder}={path}")
    assert source.load().boxes.tolist() == [[2, 2, 1, 6, 8, 2]]


@pytest.mark.parametrize("lacking", ["SliceThickness", "PixelSpacing"])
@pytest.mark.parametrize("is_empty", [False, True])
def test_sizes_that_images_lack_are_those_of_their_grid(tmp_path: Path, lacking: str, is_empty: bool) -> None:
    """Both may be: a thickness always, pixel spacings of X-rays, whose detector has one."""

    def strip(image: FileDataset, _: int) -> None:
        if lacking == "PixelSpacing":
            image.file_meta.MediaStorageSOPClassUID = image.SOPClassUID = ComputedRadiographyImageStorage
            image.ImagerPixelSpacing = image.PixelSpacing
        setattr(image, lacking, None)
        if not is_empty:
            delattr(image, lacking)

    folder = edit_dicom(series(tmp_path / "ct"), strip)
    scan = read_scan(folder)
    assert scan.grid is not None
    assert scan.spacing_mm == (3.0, 2.0, 1.0)
    labels = np.zeros(scan.spatial_shape, np.uint16)
    labels[1:3, 2:9, 2:7] = 1
    write_dicom_seg(labels, scan.grid, folder, tmp_path / "seg.dcm")
    np.testing.assert_array_equal(labels_of(tmp_path / "seg.dcm", folder), labels)
    (measures,) = dcmread(tmp_path / "seg.dcm").SharedFunctionalGroupsSequence[0].PixelMeasuresSequence
    assert (measures.PixelSpacing, measures.SliceThickness) == ([2, 1], 3)


def test_a_segmentation_among_the_slices_is_no_other_series(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = series(tmp_path / "p1")
    scan = read_scan(folder)
    labels = np.zeros(scan.spatial_shape, np.uint16)
    labels[1:3, 2:9, 2:7] = 1
    assert scan.grid is not None
    write_dicom_seg(labels, scan.grid, folder, folder / "seg.dcm")
    (source,) = find_cases(str(tmp_path))
    assert source.labels_paths == (folder / "seg.dcm",)
    np.testing.assert_array_equal(read_objects(source.labels_paths, read_scan(folder)).labels, labels)
    assert not caplog.messages


@pytest.mark.parametrize("references", ["{}", "{}/p1={}/rs.dcm"])
def test_structures_are_scored_against_as_they_are(references: str, tmp_path: Path) -> None:
    """Half of an object was found, and another that nobody drew."""
    folder = series(tmp_path / "g" / "p1")
    where = tmp_path / "g" if "=" in references else folder
    path = write_structures(where / "rs.dcm", {7: [(3, SQUARE), (6, SQUARE)]})
    scan = read_scan(folder)
    labels = read_objects([path], scan).labels
    assert set(np.unique(labels)) == {0, 7}
    labels[2][labels[2] == 7] = 0
    labels[3, 0, 0] = 9
    assert scan.grid is not None
    (tmp_path / "s").mkdir()
    nibabel.save(nifti_of(scan.grid.to_file(labels), scan.grid), tmp_path / "s" / "p1.nii.gz")
    named = references.replace("{}", str(tmp_path / "g"))
    arguments = ["score", "-s", tmp_path / "s", "-g", named, "-o", tmp_path / "scores"]
    done = CliRunner().invoke(main, list(map(str, arguments)))
    assert done.exit_code == 0, done.output
    rows = [row.split(",") for row in (tmp_path / "scores" / "scores.csv").read_text().splitlines()[1:]]
    assert [(row[3], round(float(row[5]), 3)) for row in rows] == [("7", 0.667), ("9", 0)]


def test_labels_without_the_series_they_were_drawn_on(tmp_path: Path) -> None:
    path = write_structures(tmp_path / "rs.dcm", {7: [(3, SQUARE)]})
    with pytest.raises(InputError, match="which have no image; expected IMAGE=LABELS"):
        read_scan(path)
    with pytest.raises(InputError, match="expected the DICOM series that it was drawn on"):
        read_objects([path])
    with pytest.raises(InputError, match="one of 2 label files"):
        read_objects([path, path], read_scan(series(tmp_path / "ct")))


def test_of_a_segmentations_frames_one_is_in_memory_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_dicom(tmp_path / "ct", np.zeros((40, 12, 10)))
    scan = read_scan(folder)
    assert scan.grid is not None
    labels = np.ones(scan.spatial_shape, np.uint16)
    labels[::2, 3:6] = 2
    path = tmp_path / "seg.dcm"
    write_dicom_seg(labels, scan.grid, folder, path)
    monkeypatch.setattr(Dataset, "pixel_array", property(lambda _: pytest.fail("all frames at once")))
    np.testing.assert_array_equal(labels_of(path, folder), labels)
