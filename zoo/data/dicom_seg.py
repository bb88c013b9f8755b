"""Label maps as DICOM segmentations, through highdicom (extra `dicom`)."""

from __future__ import annotations

from pathlib import Path

import highdicom as hd
import numpy as np
from highdicom.seg import Segmentation, SegmentationTypeValues, SegmentDescription
from numpy.typing import NDArray
from pydicom import Dataset, FileDataset, dcmread
from pydicom.sr.codedict import codes

from zoo.data.grid import Grid
from zoo.data.readers.itk import dicom_files
from zoo.errors import InputError
from zoo.files import whole_file

#: What is taken over of an image: what it is, and where its pixels lie. Nothing else gets into a segmentation.
KEPT = (
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "FrameOfReferenceUID",
    "Modality",
    "ImageType",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "SliceThickness",
    "SpacingBetweenSlices",
    "Rows",
    "Columns",
)
#: Attributes that a segmentation must have, and whose value stays empty.
EMPTY = (
    "AccessionNumber",
    "PatientBirthDate",
    "PatientID",
    "PatientName",
    "PatientSex",
    "ReferringPhysicianName",
    "StudyDate",
    "StudyID",
    "StudyTime",
)
_ALGORITHM = hd.AlgorithmIdentificationSequence(
    name="Rep-MedSAM", version="0.1", family=codes.cid7162.ArtificialIntelligence
)


def write_dicom_seg(segmentation: NDArray[np.uint16], grid: Grid, folder: Path, path: Path) -> None:
    """Writes a binary DICOM segmentation with a segment for each label, whole or not at all.

    It refers to the images by their UIDs and says nothing of the patient.

    Args:
        segmentation: uint16 (D, H, W) in the slices of the series.
        grid: of the series.
        folder: of the series.
        path: of the file that is written.

    Raises:
        InputError: nothing was segmented, or the images lack what a segmentation must say.
    """
    labels = [int(label) for label in np.unique(segmentation) if label]
    if not labels:
        raise InputError(folder, "an empty segmentation", "at least one labelled voxel, for a DICOM segmentation")
    files = dicom_files(folder)
    numbers = np.zeros(labels[-1] + 1, np.uint16)
    numbers[labels] = np.arange(1, len(labels) + 1)
    frames = numbers[grid.to_file(segmentation).transpose(2, 1, 0)]
    study, series = hd.UID(), hd.UID()
    try:
        made = Segmentation(
            source_images=[_reference(_header(file), grid, study, series) for file in files],
            pixel_array=frames,
            segmentation_type=SegmentationTypeValues.BINARY,
            segment_descriptions=[_describe(number, label) for number, label in enumerate(labels, start=1)],
            series_instance_uid=hd.UID(),
            series_number=1,
            sop_instance_uid=hd.UID(),
            instance_number=1,
            manufacturer="Rep-MedSAM",
            manufacturer_model_name="Rep-MedSAM",
            software_versions="0.1",
            device_serial_number="0",
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(folder, f"images that cannot be referred to ({error})", "complete DICOM headers") from error
    with whole_file(path) as part:
        made.save_as(part)


def _header(file: str) -> FileDataset:
    """What is wanted of a file and nothing else: pydicom quotes odd values in warnings, and those name patients."""
    return dcmread(file, stop_before_pixels=True, specific_tags=list(KEPT), force=True)


def _reference(image: FileDataset, grid: Grid, study: str, series: str) -> Dataset:
    """What a segmentation needs of an image; UIDs that the image lacks are those of its file, or new ones, and sizes of
    voxels those of the series.
    """
    kept = Dataset()
    for keyword in KEPT:
        if image.get(keyword):
            setattr(kept, keyword, image.get(keyword))
    for keyword in EMPTY:
        setattr(kept, keyword, None)
    kept.SOPClassUID = kept.get("SOPClassUID") or image.file_meta.MediaStorageSOPClassUID
    kept.SOPInstanceUID = kept.get("SOPInstanceUID") or image.file_meta.MediaStorageSOPInstanceUID
    kept.StudyInstanceUID = kept.get("StudyInstanceUID") or study
    kept.SeriesInstanceUID = kept.get("SeriesInstanceUID") or series
    x_mm, y_mm, z_mm = (f"{size:.10g}" for size in np.linalg.norm(grid.affine[:3, :3], axis=0))
    kept.PixelSpacing = kept.get("PixelSpacing") or [y_mm, x_mm]
    kept.SliceThickness = kept.get("SliceThickness") or z_mm
    return kept


def _describe(number: int, label: int) -> SegmentDescription:
    return SegmentDescription(
        segment_number=number,
        segment_label=f"object {label}",
        # What an object is, nobody has said: an organ as well as a lesion.
        segmented_property_category=codes.SCT.Tissue,
        segmented_property_type=codes.SCT.Tissue,
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.SEMIAUTOMATIC,
        algorithm_identification=_ALGORITHM,
    )
