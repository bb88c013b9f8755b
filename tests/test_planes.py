"""Planes: a volume is walked in the direction that it was acquired in, and its masks lie where they belong."""

from __future__ import annotations

import itertools
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from click.testing import CliRunner

from cli import main
from zoo.data.grid import Grid
from zoo.data.scan import read_scan

AXES = ["".join(codes) for order in itertools.permutations(("LR", "PA", "SI")) for codes in itertools.product(*order)]
#: By the pair of directions that voxels are longest in: the plane, and where x, y, z of its slices grow to.
PLANES = {"LR": ("sagittal", "PIL"), "PA": ("coronal", "LIP"), "SI": ("axial", "LPS")}


def grid(codes: str, thick: str, ratio: float = 4.0) -> Grid:
    """A file's grid whose axes grow to `codes`, voxels `ratio` times as long along the pair `thick`."""
    signs = {"L": (0, -1), "R": (0, 1), "P": (1, -1), "A": (1, 1), "I": (2, -1), "S": (2, 1)}
    affine = np.eye(4)
    affine[:3, :3] = 0
    for axis, code in enumerate(codes):
        row, sign = signs[code]
        affine[row, axis] = sign * (ratio if code in thick else 1.0)
    return Grid(affine, (5, 4, 3))


@pytest.mark.parametrize("thick", PLANES)
@pytest.mark.parametrize("codes", AXES)
def test_slices_are_stacked_where_voxels_are_thick(codes: str, thick: str) -> None:
    where = grid(codes, thick)
    plane, expected = PLANES[thick]
    assert where.plane == plane
    assert "".join(nib.aff2axcodes(where.slices_affine)) == expected
    assert where.spacing_mm == pytest.approx((4.0, 1.0, 1.0))
    voxels = np.arange(60).reshape(where.shape)
    turned = where.to_slices(voxels)
    np.testing.assert_array_equal(where.to_file(turned), voxels)
    for ijk in ([0, 0, 0], [4, 3, 2], [1, 2, 0]):
        zyx = np.argwhere(turned == voxels[tuple(ijk)])[0]
        np.testing.assert_allclose(where.slices_affine @ [*zyx[::-1], 1], where.affine @ [*ijk, 1], atol=1e-9)
        assert where.boxes_to_slices(np.array([ijk * 2])).tolist() == [[*zyx[::-1]] * 2]


@pytest.mark.parametrize(("shape", "plane"), [((9, 1, 8), "coronal"), ((1, 9, 8), "sagittal"), ((9, 8, 1), "axial")])
def test_a_single_slice_is_one_whatever_its_thickness(shape: tuple[int, int, int], plane: str) -> None:
    assert Grid(np.eye(4), shape).plane == plane
    assert Grid(np.eye(4), shape).to_slices(np.zeros(shape)).shape[0] == 1


def test_a_volume_that_was_not_plainly_acquired_slice_by_slice_is_axial() -> None:
    assert grid("RAS", "LR", 1.9).plane == "axial"
    assert Grid(np.diag([3.0, 3.0, 1.0, 1.0]), (4, 4, 4)).plane == "axial", "thick in two directions"


@pytest.mark.parametrize("thick", PLANES)
def test_masks_of_every_plane_come_back_to_the_file(tmp_path: Path, thick: str) -> None:
    rng = np.random.default_rng(0)
    shape = [6 if pair == thick else 64 for pair in ("LR", "PA", "SI")]
    spacing = [5.0 if pair == thick else 1.0 for pair in ("LR", "PA", "SI")]
    labels = np.zeros(shape, np.uint8)
    inside = tuple(slice(2, 4) if size == 6 else slice(20, 44) for size in shape)
    labels[inside] = 1
    image = (60 * labels + rng.normal(100, 4, shape)).astype(np.int16)
    affine = np.diag([*spacing, 1.0])
    for name, voxels in (("t1_mr", image), ("t1_mr_seg", labels)):
        nib.save(nib.Nifti1Image(voxels, affine), tmp_path / f"{name}.nii.gz")  # type: ignore[no-untyped-call]
    assert read_scan(tmp_path / "t1_mr.nii.gz").spatial_shape == (6, 64, 64)
    words = ["segment", "-i", str(tmp_path / "t1_mr.nii.gz"), "-o", str(tmp_path / "out"), "--jobs", "1"]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 0, result.output
    made = nib.load(tmp_path / "out" / "t1_mr.nii.gz")  # type: ignore[no-untyped-call]
    found = np.asarray(made.dataobj) > 0
    assert 2 * np.count_nonzero(found & (labels > 0)) / (found.sum() + labels.sum()) > 0.9
    np.testing.assert_allclose(made.affine, affine)


def test_an_image_and_its_labels_come_to_the_same_plane_however_their_headers_round() -> None:
    """Voxels exactly twice as long, in oblique axes that files keep in 64 or 32 bits."""
    rng = np.random.default_rng(0)
    for _ in range(200):
        turned, _ = np.linalg.qr(rng.normal(size=(3, 3)))
        affine = np.eye(4)
        affine[:3, :3] = turned @ np.diag([1.0, 1.0, 2.0])
        assert Grid(affine, (9, 9, 9)).plane == Grid(affine.astype(np.float32).astype(np.float64), (9, 9, 9)).plane
