"""`score`: every metric by hand and against an independent package, the challenge's rules, comparisons."""

from __future__ import annotations

import math
import warnings
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import surface_distance
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image
from test_dicom import write_dicom

from bench.challenge import score_by_challenge
from bench.metrics import hd95_mm
from bench.record import MEASUREMENTS, read_records
from bench.score import Pair, find_pairs, score_pair
from cli import main
from zoo.errors import InputError


@st.composite
def mask_pairs(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, tuple[float, ...]]:
    shape = draw(array_shapes(min_dims=2, max_dims=3, max_side=7))
    masks = arrays(bool, shape)
    spacing = draw(st.tuples(*[st.sampled_from([0.3, 0.7, 1.0, 2.5])] * len(shape)))
    return draw(masks), draw(masks), spacing


@settings(max_examples=200)
@given(mask_pairs())
def test_hd95_equals_the_package(drawn: tuple[np.ndarray, np.ndarray, tuple[float, ...]]) -> None:
    prediction, reference, spacing_mm = drawn
    found = hd95_mm(prediction, reference, spacing_mm)
    if not prediction.any() or not reference.any():
        assert math.isnan(found) if not (prediction | reference).any() else math.isinf(found)
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        distances = surface_distance.compute_surface_distances(reference, prediction, spacing_mm)
    # Where the areas of a surface add up to just 95 %, rounding decides which distance that is.
    expected = [surface_distance.compute_robust_hausdorff(distances, 95 + off) for off in (-1e-9, 0, 1e-9)]
    assert any(found == pytest.approx(distance, abs=1e-9) for distance in expected)


def test_the_size_of_pixels_is_the_images_where_labels_are_pictures(tmp_path: Path) -> None:
    """An X-ray of 2 x 1 mm a pixel, its labels and masks PNG: one column off is one millimetre."""
    voxels = np.random.default_rng(0).integers(0, 2000, (1, 12, 10))
    next(write_dicom(tmp_path / "g", voxels).iterdir()).rename(tmp_path / "g" / "x.dcm")
    for name, first in (("g/x_mask.png", 2), ("s/x.png", 3)):
        labels = np.zeros((12, 10), np.uint8)
        labels[3:9, first : first + 4] = 1
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(labels).save(tmp_path / name)
    (pair,) = find_pairs(tmp_path / "s", str(tmp_path / "g"))
    assert score_pair(pair).spacing_mm == (2.0, 1.0)
    assert score_pair(pair).rows[0].hd95_mm == pytest.approx(1.0)


def test_hd95_of_a_shifted_square_by_hand() -> None:
    one, other = np.zeros((2, 40, 40), bool)
    one[10:30, 10:30] = True
    other[10:30, 14:34] = True
    assert hd95_mm(one, other, (1.0, 0.5)) == 2.0


def volumes() -> tuple[np.ndarray, np.ndarray]:
    """Segmentation and reference (z, y, x): label 1 moved by two columns, 2 missed, 3 invented."""
    segmentation, reference = np.zeros((2, 4, 20, 30), np.uint16)
    reference[1:3, 5:15, 5:15] = 1
    segmentation[1:3, 5:15, 7:17] = 1
    reference[0, :3, :3] = 2
    segmentation[3, :2, :2] = 3
    return segmentation, reference


def write_npz(folder: Path, name: str, **arrays_: np.ndarray) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(folder / f"{name}.npz", **arrays_)
    return folder / f"{name}.npz"


def pair(tmp_path: Path) -> Pair:
    segmentation, reference = volumes()
    seg = write_npz(tmp_path / "segs", "3DBox_CT_a", segs=segmentation)
    gt = write_npz(tmp_path / "gts", "3DBox_CT_a", gts=reference, spacing=np.array([0.5, 1.0, 2.0]))
    return Pair("3DBox_CT_a", seg, (gt,))


def test_scores_by_hand(tmp_path: Path) -> None:
    moved, missed, invented = score_pair(pair(tmp_path)).rows
    assert (moved.label, moved.modality, moved.dims) == (1, "CT", "3D")
    assert moved.dsc == pytest.approx(2 * 160 / 400)
    assert moved.volume_ml == moved.reference_ml == pytest.approx(200 * 1.0 / 1000)
    assert moved.volume_difference == 0
    assert moved.hd95_mm == pytest.approx(1.0)  # two columns of half a millimetre
    assert moved.nsd == 1.0
    assert (missed.dsc, missed.nsd, missed.volume_difference) == (0, 0, -1)
    assert math.isinf(missed.hd95_mm)
    assert (invented.label, invented.dsc) == (3, 0)
    assert math.isnan(invented.volume_difference)


@st.composite
def challenge_cases(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, tuple[float, ...]]:
    """Label maps that agree in part, and the spacing (x, y, z) as an npz holds it."""
    shape = draw(st.sampled_from([(6, 7), (3, 6, 5)]))
    reference = draw(arrays(np.uint8, shape, elements=st.integers(0, 3)).filter(np.any))
    noise = draw(arrays(np.uint8, shape, elements=st.sampled_from([0, 0, 0, 0, 1, 2])))
    return (reference + noise) % 4, reference, draw(st.tuples(*[st.sampled_from([0.4, 1.0, 3.0])] * 3))


def package_nsd(gt: np.ndarray, seg: np.ndarray, spacing: tuple[float, ...]) -> float:
    """At 2 mm. Of an empty mask the package's release asks numpy for what it no longer has; its answer would be 0."""
    if not gt.any() or not seg.any():
        return 0.0 if (gt | seg).any() else math.nan
    distances = surface_distance.compute_surface_distances(gt, seg, spacing)
    return float(surface_distance.compute_surface_dice_at_tolerance(distances, 2.0))


@settings(max_examples=60)
@given(challenge_cases())
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:invalid value:RuntimeWarning")
def test_cvpr24_is_what_the_challenges_script_computes(
    drawn: tuple[np.ndarray, np.ndarray, tuple[float, ...]],
) -> None:
    """The package called in the way of the script: labels 1 to N, images as one slice, the spacing as it is stored."""
    segs, gts, spacing = drawn
    scores = score_by_challenge(segs, gts, spacing[gts.ndim - 1 :: -1])
    if gts.ndim == 2:
        segs, gts, spacing = segs[..., None], gts[..., None], (1.0, 1.0, 1.0)
    masks = [(gts == label, segs == label) for label in range(1, int(gts.max()) + 1)]
    dsc = np.mean([2 * (gt & seg).sum() / (gt.sum() + seg.sum()) for gt, seg in masks])
    nsd = np.mean([package_nsd(gt, seg, spacing) for gt, seg in masks]) if dsc > 0.2 else 0.0
    assert np.mean([score.dsc for score in scores]) == pytest.approx(dsc, nan_ok=True)
    assert np.mean([score.nsd for score in scores]) == pytest.approx(nsd)


def test_the_challenges_rules(tmp_path: Path) -> None:
    rows = score_pair(pair(tmp_path), rules="cvpr24").rows
    assert [row.label for row in rows] == [1, 2]  # 1 to the largest of the reference
    image = np.zeros((40, 40), np.uint16)
    image[10:20, 10:20] = 2
    seg = write_npz(tmp_path / "segs", "2DBox_US_b", segs=np.roll(image, 4, axis=1))
    gt = write_npz(tmp_path / "gts", "2DBox_US_b", gts=image, spacing=np.array([0.1, 0.1, 1.0]))
    first, second = score_pair(Pair("2DBox_US_b", seg, (gt,)), rules="cvpr24").rows
    assert math.isnan(first.dsc)  # label 1 is in neither map
    assert second.hd95_mm == 4.0  # pixels, whatever the spacing
    (plain,) = score_pair(Pair("2DBox_US_b", seg, (gt,))).rows
    assert plain.hd95_mm == pytest.approx(0.4)
    seg = write_npz(tmp_path / "segs", "2DBox_US_b", segs=np.roll(image, 9, axis=1))
    assert score_pair(Pair("2DBox_US_b", seg, (gt,)), rules="cvpr24").rows[1].nsd == 0
    assert score_pair(Pair("2DBox_US_b", seg, (gt,))).rows[0].nsd > 0
    result = run("-s", seg, "-g", gt, "--rules", "cvpr24")
    (of_case,) = [part for part in result.output.split("\n\n") if part.startswith("| case ")]
    assert "DSC" not in of_case  # as label 1 has none
    (of_case,) = [part for part in run("-s", seg, "-g", gt).output.split("\n\n") if part.startswith("| case ")]
    assert "DSC" in of_case


def test_nifti_in_two_orientations_and_another_geometry(tmp_path: Path) -> None:
    segmentation, reference = volumes()
    affine = np.diag([-0.5, -1.0, 2.0, 1.0])
    stored = nib.Nifti1Image(reference.transpose(2, 1, 0), affine)
    (tmp_path / "g").mkdir()
    nib.save(stored, tmp_path / "g" / "a_seg.nii.gz")
    turned = nib.Nifti1Image(segmentation.transpose(2, 1, 0), affine).as_reoriented(
        np.array([[0, -1], [1, -1], [2, 1]])
    )
    nib.save(turned, tmp_path / "a.nii.gz")
    (found,) = find_pairs(tmp_path / "a.nii.gz", str(tmp_path / "g"))
    assert score_pair(found).rows == tuple(
        row.__class__(**{**row.__dict__, "case_id": "a", "modality": "unknown", "original": row.label})
        for row in score_pair(pair(tmp_path)).rows
    )
    nib.save(nib.Nifti1Image(segmentation.transpose(2, 1, 0), np.diag([-0.5, -1.0, 3.0, 1.0])), tmp_path / "a.nii.gz")
    with pytest.raises(InputError, match="an affine that is off"):
        score_pair(found)


def test_volumes_of_voxels_that_lean_are_no_products_of_their_sides(tmp_path: Path) -> None:
    """Slices of 0.5 x 1 mm pixels, each 2 mm above the last one and 1.5 mm behind."""
    affine = np.diag([-0.5, -1.0, 2.0, 1.0])
    affine[1, 2] = 1.5
    for folder in ("s", "g"):
        (tmp_path / folder).mkdir()
        nib.save(nib.Nifti1Image(np.ones((5, 4, 3), np.uint8), affine), tmp_path / folder / "a.nii")
    for rules in ("plain", "cvpr24"):
        (row,) = score_pair(find_pairs(tmp_path / "s", str(tmp_path / "g"))[0], rules=rules).rows
        assert row.volume_ml == row.reference_ml == pytest.approx(60 / 1000)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["score", *map(str, arguments)])


def test_the_command(tmp_path: Path) -> None:
    pair(tmp_path)
    write_npz(tmp_path / "segs", "3DBox_CT_lost", segs=volumes()[0])
    write_npz(tmp_path / "gts", "3DBox_CT_unseen", gts=volumes()[0])
    (tmp_path / "segs" / "3DBox_CT_a.seg.dcm").touch()
    out = tmp_path / "out"
    result = run("-s", tmp_path / "segs", "-g", tmp_path / "gts", "-o", out, "--workers", 1)
    assert result.exit_code == 1
    assert "3DBox_CT_lost.npz: found no labels of that name" in " ".join(result.output.split())
    assert f"no segmentation in {tmp_path / 'segs'}: 3DBox_CT_unseen" in " ".join(result.output.split())
    scores = pd.read_csv(out / "scores.csv")
    assert scores["label"].tolist() == [1, 2, 3]
    assert scores["dsc"].tolist() == pytest.approx([0.8, 0, 0])
    assert "| all (1) | DSC" in (out / "scores.md").read_text().replace("  ", " ")
    (record,) = read_records([out / "scores.jsonl"])
    assert record.measurements["dsc"] == pytest.approx([0.8, 0, 0])
    assert record.measurements["hd95_mm"] == [pytest.approx(1.0), None, None]
    assert record.candidate["encoder"] == "segmentations segs"
    assert record.measurements.keys() == {*MEASUREMENTS["accuracy of given masks"]}


def test_two_segmentations_compared(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(8):
        reference = np.zeros((30, 30), np.uint16)
        reference[5:25, 5:25] = 1
        write_npz(tmp_path / "g", f"case{number}", gts=reference)
        write_npz(tmp_path / "good", f"case{number}", segs=reference)
        worse = np.roll(reference, int(rng.integers(1, 5)), axis=0)
        write_npz(tmp_path / "worse", f"case{number}", segs=worse)
    result = run("-s", tmp_path / "good", "-g", tmp_path / "g", "--against", tmp_path / "worse", "--workers", 1)
    assert result.exit_code == 0, result.output
    (row,) = [line for line in result.output.splitlines() if line.startswith("| DSC") and "differs" in line]
    assert "+0.1" in row
    same = run("-s", tmp_path / "good", "-g", tmp_path / "g", "--against", tmp_path / "good", "--workers", 1)
    assert same.exit_code != 0


def test_what_one_of_two_segmentations_alone_has_a_score_of_is_counted(tmp_path: Path) -> None:
    """A label that one made up costs it in its own tables, and must not go unsaid where the two are compared."""
    truth = np.zeros((2, 8, 8), np.uint8)
    truth[:, :4] = 1
    made_up = truth.copy()
    made_up[:, 6:] = 2
    for folder, labels in (("gts", truth), ("a", made_up), ("b", truth)):
        (tmp_path / folder).mkdir()
        write_npz(tmp_path / folder, "one", **{"gts" if folder == "gts" else "segs": labels}, spacing=np.ones(3))
    done = run("-s", tmp_path / "a", "-g", tmp_path / "gts", "--against", tmp_path / "b")
    assert done.exit_code == 0, done.output
    compared = done.output.split("Compared:")[1]
    assert "without a score in one alone" in compared
    assert next(line for line in compared.splitlines() if line.startswith("| DSC")).rstrip(" |").endswith("1 of b")


def test_labels_that_an_npz_numbers_anew_are_averaged_by_what_they_were(tmp_path: Path) -> None:
    labels = np.zeros((20, 20), np.uint16)
    labels[2:8, 2:8], labels[10:18, 10:18] = 1, 2
    for name, keys in (("a", {"label_values": [3, 7]}), ("b", {"label_values": [7, 9]}), ("c", {})):
        write_npz(tmp_path / "s", name, segs=labels)
        write_npz(tmp_path / "g", name, gts=labels, **{key: np.array(value) for key, value in keys.items()})
    result = run("-s", tmp_path / "s", "-g", tmp_path / "g", "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output
    of_labels = result.output.split("By label:\n\n")[1].split("\n\n")[0]
    cells = [[cell.strip() for cell in line.split("|")[1:3]] for line in of_labels.splitlines()[2:]]
    assert cells == [["3", "1"], ["7", "2"], ["9", "1"]]
    assert "By label: without 2 labels of npz" in result.output
    assert "a pixel counts as 1 mm" in result.output
    assert "## By label" in (tmp_path / "out" / "scores.md").read_text()


def test_a_segmentation_is_not_scored_against_itself(tmp_path: Path) -> None:
    write_npz(tmp_path / "s", "a", segs=np.ones((4, 4), np.uint8))
    result = run("-s", tmp_path / "s", "-g", tmp_path / "s")
    assert result.exit_code == 1
    assert "found the same file as its labels" in " ".join(result.output.split())


def test_long_tables_are_cut_on_the_terminal_alone(tmp_path: Path) -> None:
    for number in range(30):
        write_npz(tmp_path / "s", f"c{number}", segs=np.ones((4, 4), np.uint8))
        write_npz(tmp_path / "g", f"c{number}", gts=np.ones((4, 4), np.uint8))
    result = run("-s", tmp_path / "s", "-g", tmp_path / "g", "-o", tmp_path / "out")
    assert "mean of 30 cases" in result.output
    assert "11 more rows" in result.output
    assert result.output.count("| c") < 25
    assert (tmp_path / "out" / "scores.md").read_text().count("| c") > 30


def test_masks_of_pictures(tmp_path: Path) -> None:
    mask = np.zeros((20, 30), np.uint8)
    mask[4:9, 4:9] = 255
    for folder in ("s", "g"):
        (tmp_path / folder).mkdir()
    Image.fromarray(mask).save(tmp_path / "g" / "x.png")
    Image.fromarray(mask // 255).save(tmp_path / "s" / "x.png")
    rows = score_pair(find_pairs(tmp_path / "s", str(tmp_path / "g"))[0]).rows
    assert [(row.label, row.dsc) for row in rows] == [(1, 1.0)]


def test_a_case_is_the_same_whatever_was_segmented(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A label that was invented is no object of the case; and a folder has a name even where it is called `.`."""
    pair(tmp_path)
    write_npz(tmp_path / "own", "3DBox_CT_a", segs=volumes()[1])
    cases = []
    for folder in ("segs", "own"):
        monkeypatch.chdir(tmp_path / folder)
        run("-s", ".", "-g", tmp_path / "gts", "-o", tmp_path / "out", "--workers", 1)
        record = list(read_records([tmp_path / "out" / "scores.jsonl"]))[-1]
        assert record.candidate["encoder"] == f"segmentations {folder}"
        cases.append(record.case)
    assert cases[0] == cases[1]
    assert cases[0]
    assert cases[0]["objects"] == 2


def test_labels_that_are_nowhere_are_told_of_once(tmp_path: Path) -> None:
    pair(tmp_path)
    write_npz(tmp_path / "segs", "3DBox_CT_b", segs=volumes()[0])
    result = run("-s", tmp_path / "segs", "-g", tmp_path / "gtt")
    assert result.exit_code == 1
    assert result.output.count("gtt: found no such file or folder") == 1
    (tmp_path / "void").mkdir()
    assert "void: found no label map" in run("-s", tmp_path / "segs", "-g", tmp_path / "void").output


@pytest.mark.parametrize("name", ["empty", "shape", "keys"])
def test_bad_input_is_named(tmp_path: Path, name: str) -> None:
    pair(tmp_path)
    if name == "empty":
        (tmp_path / "nothing").mkdir()
        result = run("-s", tmp_path / "nothing", "-g", tmp_path / "gts")
        expected = "no segmentation"
    elif name == "shape":
        write_npz(tmp_path / "segs", "3DBox_CT_a", segs=np.zeros((3, 3, 3), np.uint8))
        result, expected = run("-s", tmp_path / "segs", "-g", tmp_path / "gts"), "that of its reference"
    else:
        write_npz(tmp_path / "segs", "3DBox_CT_a", masks=np.zeros((3, 3, 3), np.uint8))
        result, expected = run("-s", tmp_path / "segs", "-g", tmp_path / "gts"), "neither segs nor gts"
    assert result.exit_code == 1
    assert expected in " ".join(result.output.split())


def test_a_scans_own_labels_are_scored_against_an_npz_made_of_them(tmp_path: Path) -> None:
    labels = np.zeros((4, 20, 20), np.uint16)
    labels[1:3, 2:8, 2:8], labels[1:3, 10:18, 10:18] = 1, 2
    write_npz(tmp_path / "g", "a", gts=labels, label_values=np.array([3, 7]), label_names=np.array(["liver", ""]))
    (tmp_path / "s").mkdir()
    nib.save(
        nib.Nifti1Image(np.array([0, 3, 7], np.uint8)[labels].T, np.diag([-1, -1, 1, 1])), tmp_path / "s" / "a.nii"
    )
    (found,) = find_pairs(tmp_path / "s", str(tmp_path / "g"))
    assert [(row.label, row.original, row.dsc) for row in score_pair(found).rows] == [(3, "liver", 1.0), (7, 7, 1.0)]


def test_masks_of_one_case_that_lie_in_different_places_are_refused(tmp_path: Path) -> None:
    mask = np.zeros((20, 20, 4), np.uint8)
    mask[2:8, 2:8, 1:3] = 1
    moved = np.eye(4)
    moved[0, 3] = 7
    for path, voxels, affine in (
        ("a.nii", mask * 1, np.eye(4)),
        ("g/m1.nii", mask, np.eye(4)),
        ("g/m2.nii", mask, moved),
    ):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        nib.save(nib.Nifti1Image(voxels, affine), tmp_path / path)
    masks = Pair("a", tmp_path / "a.nii", (tmp_path / "g" / "m1.nii", tmp_path / "g" / "m2.nii"))
    with pytest.raises(InputError, match=r"m2\.nii: found an affine that is off by 7 voxels; .* of m1\.nii"):
        score_pair(masks)


@pytest.mark.parametrize(("spacing", "is_refused"), [(0.7031, False), (0.709, True)])
def test_geometry_is_compared_where_it_differs_most(tmp_path: Path, spacing: float, is_refused: bool) -> None:
    """Hundreds of voxels from the origin, spacings that differ by a hundredth are voxels apart."""
    mask = np.zeros((300, 300, 2), np.uint8)
    mask[2:8, 2:8] = 1
    for folder, x_mm in (("s", 0.703125), ("g", spacing)):
        (tmp_path / folder).mkdir()
        nib.save(nib.Nifti1Image(mask, np.diag([x_mm, 0.703125, 1, 1])), tmp_path / folder / "a.nii")
    (found,) = find_pairs(tmp_path / "s", str(tmp_path / "g"))
    if is_refused:
        with pytest.raises(InputError, match=r"off by 2\.\d+ voxels"):
            score_pair(found)
    else:
        assert score_pair(found).rows[0].dsc == 1
