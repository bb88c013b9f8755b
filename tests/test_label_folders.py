"""Folders of labels within the folder of their image: TotalSegmentator's layout and its like."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from test_dicom import write_dicom
from test_nifti import pairs, save, touch

from zoo.data.cases import find_cases
from zoo.errors import InputError


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (
            ["s1/mri.nii.gz", "s1/segmentations/liver.nii.gz", "s1/segmentations/spleen.nii.gz", "s2/mri.nii.gz"],
            {
                "s1/mri.nii.gz": "s1/segmentations/liver.nii.gz, s1/segmentations/spleen.nii.gz",
                "s2/mri.nii.gz": None,
            },
        ),
        (["ct.nii", "masks/aorta.nii", "masks/liver.nii"], {"ct.nii": "masks/aorta.nii, masks/liver.nii"}),
        (["ct.nii", "labels/all.nii"], {"ct.nii": "labels/all.nii"}),
        # A name says more than that an image is alone.
        (["p1.png", "masks/p1.png", "masks/p2.png"], {"p1.png": "masks/p1.png"}),
        (["p1.png", "p2.png", "masks/p2.png"], {"p1.png": None, "p2.png": "masks/p2.png"}),
        (["p1.png", "p2.png", "masks/p1_a.png", "masks/p1_b.png"], {
            "p1.png": "masks/p1_a.png, masks/p1_b.png", "p2.png": None,
        }),
        (["t1.nii", "t2.nii", "masks/liver.nii"], {"t1.nii": None, "t2.nii": None}),
        (["ct.nii", "ct_seg.nii", "masks/liver.nii"], {"ct.nii": "ct_seg.nii"}),
        # What `segment` wrote is no label.
        (["ct.nii", "masks/liver.nii", "masks/segment.jsonl"], {"ct.nii": None}),
    ],
)  # fmt: skip
def test_labels_within_the_folder_of_an_image(
    tmp_path: Path, names: list[str], expected: dict[str, str | None]
) -> None:
    touch(tmp_path, *names)
    assert pairs(tmp_path) == expected


def test_each_mask_of_the_folder_is_an_object(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 400, (3, 4, 5)).astype(np.int16)
    masks = np.zeros((2, 3, 4, 5), np.uint8)
    masks[0, 1, :2], masks[1, 2, 2:] = 1, 1
    (tmp_path / "s0001" / "segmentations").mkdir(parents=True)
    save(tmp_path / "s0001" / "mri.nii.gz", image)
    for name, mask in zip(("liver", "spleen"), masks, strict=True):
        save(tmp_path / "s0001" / "segmentations" / f"{name}.nii.gz", mask)
    (source,) = find_cases(str(tmp_path))
    case = source.load()
    assert (case.case_id, case.modality) == ("s0001_mri", "MR")
    assert np.array_equal(case.labels, masks[0] + 2 * masks[1])
    assert find_cases(source.reference)[0].labels_paths == source.labels_paths


@pytest.mark.parametrize("place", ["p1/segmentations", "p1/dicom/segmentations"])
def test_masks_of_a_dicom_series_lie_beside_it_or_within(tmp_path: Path, place: str) -> None:
    write_dicom(tmp_path / "p1" / "dicom", np.zeros((2, 4, 5)))
    touch(tmp_path / place, "liver.nii", "spleen.nii")
    (source,) = find_cases(str(tmp_path))
    assert source.image_path == tmp_path / "p1" / "dicom"
    assert [path.name for path in source.labels_paths] == ["liver.nii", "spleen.nii"]


def test_of_several_folders_of_labels_none_is_taken_unasked(tmp_path: Path) -> None:
    touch(tmp_path, "ct.nii", "labels/liver.nii", "masks/liver.nii", "gt/notes.txt")
    (source,) = find_cases(str(tmp_path))
    with pytest.raises(InputError, match="may all be its own: labels, masks; expected IMAGE=LABELS"):
        source.load()
