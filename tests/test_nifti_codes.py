"""Masks lie where their image lies for every program, whichever of a NIfTI header's two ways it goes by."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from zoo.data.cases import CaseSource
from zoo.data.prepare import Preparation
from zoo.segment import load_prompted, write_segmentation

SHAPE = (6, 7, 5)


def turned() -> np.ndarray:
    """RAS mm of voxels of 0.8 x 0.9 x 3 mm, turned about x by a few degrees."""
    cosine, sine = np.cos(0.2), np.sin(0.2)
    affine = np.eye(4)
    affine[:3, :3] = np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]]) @ np.diag([0.8, 0.9, 3.0])
    affine[:3, 3] = [-58, 12, 300]
    return affine


def write_image(
    path: Path, qform: tuple[np.ndarray, int], sform: tuple[np.ndarray, int], kind: type
) -> nib.Nifti1Image:
    image = kind(np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE), turned())
    for set_form, (affine, code) in ((image.header.set_qform, qform), (image.header.set_sform, sform)):
        set_form(affine, code)
    # Programs go on from a header, not from what nibabel made of it.
    path.write_bytes(kind(image.get_fdata().astype(np.int16), None, image.header).to_bytes())
    return nib.load(path)


def written(path: Path, out: Path) -> nib.Nifti1Image:
    source = CaseSource("x", "x", path)
    prompted = load_prompted(source, Preparation(), boxes=np.array([[0, 0, 0, 1, 1, 1]]))
    write_segmentation(np.ones(SHAPE[::-1], np.uint16), prompted, out)
    return nib.load(out)


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("codes", [(0, 0), (1, 0), (0, 2), (1, 1), (2, 4)])
def test_masks_have_the_codes_and_the_place_of_their_image(tmp_path: Path, codes: tuple[int, int], kind: type) -> None:
    path, out = tmp_path / "x.nii", tmp_path / "out.nii.gz"
    image = write_image(path, (turned(), codes[0]), (turned(), codes[1]), kind)
    mask = written(path, out)
    assert (int(image.header["qform_code"]), int(image.header["sform_code"])) == codes
    assert (int(mask.header["qform_code"]), int(mask.header["sform_code"])) == codes
    np.testing.assert_allclose(mask.affine, image.affine, atol=1e-5)
    if kind is nib.Nifti2Image:
        return  # ITK does not read it.
    ours, theirs = sitk.ReadImage(str(out)), sitk.ReadImage(str(path))
    for ask in (sitk.Image.GetOrigin, sitk.Image.GetDirection, sitk.Image.GetSpacing):
        np.testing.assert_allclose(ask(ours), ask(theirs), atol=1e-5)


def test_two_forms_that_differ_are_both_kept(tmp_path: Path) -> None:
    """As after a registration that was written into the sform alone."""
    moved = turned()
    moved[:3, 3] += 10
    image = write_image(tmp_path / "x.nii", (turned(), 1), (moved, 2), nib.Nifti1Image)
    mask = written(tmp_path / "x.nii", tmp_path / "out.nii.gz")
    for form in ("get_qform", "get_sform"):
        np.testing.assert_allclose(getattr(mask, form)(), getattr(image, form)(), atol=1e-4)
    np.testing.assert_allclose(mask.affine, moved, atol=1e-4)
