"""Intensities that no window may be put on unseen: npy in [0, 1], and CTs that are not in HU."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from zoo.data.commands import WINDOW_HELP
from zoo.data.dataset import open_source
from zoo.data.intensity import CT_WINDOWS, parse_window
from zoo.data.prepare import Preparation, image_of
from zoo.data.scan import read_labels, read_scan
from zoo.errors import InputError


@pytest.mark.parametrize("name", ["mr_1", "ct_1", "1"])
def test_floats_of_an_npy_are_the_same_to_training_and_to_segment(tmp_path: Path, name: str) -> None:
    image = np.linspace(0.2, 0.6, 64, dtype=np.float32).reshape(8, 8)
    for folder, array in (("imgs", image), ("gts", image > 0.4)):
        (tmp_path / folder).mkdir()
        np.save(tmp_path / folder / f"{name}.npy", array)
    scan = read_scan(tmp_path / "imgs" / f"{name}.npy")
    shown = image_of(scan, scan.modality, Preparation())
    np.testing.assert_array_equal(shown, open_source([str(tmp_path)], 8).image(0).image)
    assert (shown.min(), shown.max()) == (51, 153)


def test_floats_of_labels_are_cut_at_half_and_not_rounded(tmp_path: Path) -> None:
    np.save(tmp_path / "x_seg.npy", np.array([[0, 0.4, 0.6, 1]]))
    assert read_labels([tmp_path / "x_seg.npy"]).tolist() == [[0, 0, 1, 1]]


def test_a_ct_that_is_not_in_hounsfield_units_is_refused_with_a_way_on(tmp_path: Path) -> None:
    hounsfield = np.array([[-1000, 40], [100, 300]])
    Image.fromarray((hounsfield + 1024).astype(np.uint16)).save(tmp_path / "ct_1.png")
    affine = np.eye(4)
    for name, shift in (("ct_2", 1024), ("ct_3", 0)):
        voxels = np.repeat((hounsfield + shift)[..., None], 2, axis=2).astype(np.int16)
        nib.save(nib.Nifti1Image(voxels, affine), tmp_path / f"{name}.nii")
    for file in ("ct_1.png", "ct_2.nii"):
        scan = read_scan(tmp_path / file)
        assert scan.modality == "CT"
        with pytest.raises(InputError, match=r"a CT without a value below 0.* expected HU; else --window LEVEL/WIDTH"):
            image_of(scan, "CT", Preparation())
        window = Preparation(window=parse_window("1064/400"))
        assert sorted(set(image_of(scan, "CT", window).ravel().tolist())) == [0, 127, 165, 255]
        assert image_of(scan, "MR", Preparation()).max() == 255
    in_units = image_of(read_scan(tmp_path / "ct_3.nii"), "CT", Preparation())
    assert sorted(set(in_units.ravel().tolist())) == [0, 127, 165, 255]


def test_help_tells_the_windows_as_they_are() -> None:
    told = (f"{name} {level:g}/{width:g}" for name, (level, width) in CT_WINDOWS.items())
    assert ", ".join(told).replace("tissue ", "tissue is ") in WINDOW_HELP
