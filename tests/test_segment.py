"""`segment`: boxes in, masks out, in the geometry of the input; overlays; runs that are stopped and go on."""

from __future__ import annotations

from gzip import GzipFile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from box_backend import BoxBackend
from click.testing import CliRunner, Result
from PIL import Image
from test_dicom import stored_voxels, write_dicom
from test_scans import AXES, grid

import compress.deploy
from bench.candidate import Recipe
from cli import main
from zoo.data.case import Case
from zoo.data.cases import find_cases
from zoo.data.npz import save_challenge_npz
from zoo.data.phantom import PhantomSpec, make_phantom

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def _masks_that_fill_their_boxes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The model in the runtime is none: what is tested is the way in and out."""
    monkeypatch.setattr(compress.deploy, "open_backend", lambda _: BoxBackend(shrink_px=0))


def run(*arguments: object) -> Result:
    words = ["segment", "--encoder", "repvit", "--weights", "random:0", "--jobs", "1", *map(str, arguments)]
    return CliRunner().invoke(main, words)


#: What filling the box of `write_volume` comes to: its far edges end within a pixel of the frame of 256.
MASK = np.zeros((8, 64, 64), np.uint16)
MASK[2:6, 10:29, 20:49] = 1


def write_volume(folder: Path, codes: str, shape: tuple[int, int, int] = (64, 64, 8)) -> np.ndarray:
    """An image with a labelled cuboid in the orientation `codes`; the labels in the axes of the file."""
    where = grid(codes, shape)
    labels = np.zeros(shape[::-1], np.uint8)
    labels[2:6, 10:30, 20:50] = 4
    image = np.random.default_rng(0).integers(0, 500, labels.shape).astype(np.int16)
    for name, voxels in (("knee_mr", image), ("knee_mr_seg", labels)):
        nib.save(nib.Nifti1Image(where.to_file(voxels), where.affine), folder / f"{name}.nii.gz")
    stored: np.ndarray = where.to_file(labels)
    return stored


@pytest.mark.parametrize("codes", AXES)
def test_masks_lie_where_their_labels_lie_in_every_orientation(tmp_path: Path, codes: str) -> None:
    write_volume(tmp_path, codes)
    result = run("-i", tmp_path / "knee_mr.nii.gz", "-o", tmp_path / "out", "--box-dilation-px", 0)
    assert result.exit_code == 0, result.output
    written = nib.load(tmp_path / "out" / "knee_mr.nii.gz")
    original = nib.load(tmp_path / "knee_mr.nii.gz")
    assert written.shape == original.shape
    np.testing.assert_allclose(written.affine, original.affine, atol=1e-6)
    found = np.asarray(written.dataobj)
    assert found.dtype == np.uint16
    np.testing.assert_array_equal(grid(codes, (64, 64, 8)).to_slices(found), 4 * MASK)


def test_boxes_of_a_file_are_in_its_own_axes(tmp_path: Path) -> None:
    labels = write_volume(tmp_path, "RAS")
    low, high = np.argwhere(labels).min(0), np.argwhere(labels).max(0)
    (tmp_path / "knee_mr_seg.nii.gz").unlink()
    boxes = tmp_path / "boxes.json"
    boxes.write_text(f'{{"knee_mr": [{{"label": 9, "box": {[*low.tolist(), *high.tolist()]}}}]}}')
    out = tmp_path / "out"
    assert run("-i", tmp_path / "knee_mr.nii.gz", "-o", out, "--boxes", boxes, "--box-dilation-px", 0).exit_code == 0
    found = np.asarray(nib.load(out / "knee_mr.nii.gz").dataobj)
    np.testing.assert_array_equal(grid("RAS", (64, 64, 8)).to_slices(found), 9 * MASK)


def test_pictures_number_slices_as_the_file_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a file from head to feet, those with the object, which boxes and clicks of the next run are given in."""
    labels = write_volume(tmp_path, "LPI", (64, 64, 9))
    written: list[str] = []
    monkeypatch.setattr("zoo.overlay._write", lambda picture, text, *_: written.append(text))
    assert run("-i", tmp_path / "knee_mr.nii.gz", "-o", tmp_path / "out", "--overlay").exit_code == 0
    shown = [f"z {k}" for k in np.flatnonzero(labels.any(axis=(0, 1)))]
    assert sorted(text for text in written if text.startswith("z")) == sorted(shown * 2)


def test_nothing_of_a_nifti_header_but_its_geometry_is_taken_over(tmp_path: Path) -> None:
    write_volume(tmp_path, "LPS")
    image = nib.load(tmp_path / "knee_mr.nii.gz")
    image.header["db_name"], image.header["descrip"] = b"Secret Patient", b"born 1900"
    nib.save(image, tmp_path / "knee_mr.nii.gz")
    assert run("-i", tmp_path / "knee_mr.nii.gz", "-o", tmp_path / "out").exit_code == 0
    header = nib.load(tmp_path / "out" / "knee_mr.nii.gz").header
    assert not bytes(header["db_name"]).strip(b"\0")
    assert b"1900" not in bytes(header["descrip"])


def test_the_challenges_npz(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    image = np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8)
    case = Case(
        "2DBox_US_a", "US", image, np.array([[5, 6, 30, 20], [2, 2, 9, 9]]), np.array([1, 2], np.uint16), (1, 1)
    )
    save_challenge_npz(case, tmp_path / "in" / "2DBox_US_a.npz")
    assert run("-i", tmp_path / "in", "-o", tmp_path / "out").exit_code == 0
    with np.load(tmp_path / "out" / "2DBox_US_a.npz") as arrays:
        assert list(arrays) == ["segs"]
        assert arrays["segs"].shape == (40, 60)
        assert arrays["segs"][12, 25] == 1
        assert arrays["segs"][4, 4] == 2


def test_boxes_of_the_command_line_for_an_npz_that_has_none_or_others(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    np.savez(tmp_path / "in" / "2DBox_US_a.npz", imgs=np.zeros((40, 60, 3), np.uint8), boxes=[[1, 1, 4, 4]])
    np.savez(tmp_path / "in" / "2DBox_US_b.npz", imgs=np.zeros((40, 60, 3), np.uint8))
    assert run("-i", tmp_path / "in", "-o", tmp_path / "out", "--box", "5,6,30,20").exit_code == 0
    for name in "ab":
        with np.load(tmp_path / "out" / f"2DBox_US_{name}.npz") as arrays:
            assert arrays["segs"][12, 25] == 1
            assert arrays["segs"][2, 2] == 0


def test_boxes_of_the_command_line_for_what_is_built_in(tmp_path: Path) -> None:
    result = run("-i", "phantom:ct2d", "--box", "30,40,60,70", "-o", tmp_path)
    assert result.exit_code == 0, result.output
    (path,) = tmp_path.glob("*.npz")
    segmentation = np.load(path)["segs"]
    assert np.unique(segmentation).tolist() == [0, 1]
    rows, columns = np.nonzero(segmentation)
    assert (columns.min() >= 30, rows.min() >= 40, columns.max() <= 60, rows.max() <= 70) == (True,) * 4


def test_bad_boxes_beside_an_npz_are_said_to_be_theirs(tmp_path: Path) -> None:
    npz, boxes = tmp_path / "2D_a.npz", tmp_path / "boxes.json"
    np.savez(npz, imgs=np.zeros((40, 40, 3), np.uint8))
    boxes.write_text("[[20, 5, 10, 19]]")
    for words, where in ((("--boxes", boxes), boxes), (("--box", "20,5,10,19"), "--box")):
        result = run("-i", npz, *words, "-o", tmp_path / "out")
        assert f"{where} for {npz}: found box 0" in " ".join(result.output.split())


def test_output_never_takes_the_place_of_input(tmp_path: Path) -> None:
    write_volume(tmp_path, "LPS")
    before = (tmp_path / "knee_mr.nii.gz").read_bytes()
    result = run("-i", tmp_path / "knee_mr.nii.gz", "-o", tmp_path / "x" / "..", "--overwrite")
    assert result.exit_code == 1
    assert "found the folder of the input knee_mr.nii.gz; expected another folder" in " ".join(result.output.split())
    assert (tmp_path / "knee_mr.nii.gz").read_bytes() == before
    images, labels = tmp_path / "images", tmp_path / "labels"
    for folder, name in ((images, "knee_mr"), (labels, "knee_mr_seg")):
        folder.mkdir()
        (tmp_path / f"{name}.nii.gz").rename(folder / "knee_mr.nii.gz")
    result = run("-i", images, "-o", labels, "--overwrite")
    assert result.exit_code == 1
    assert "found the folder of the input knee_mr.nii.gz" in " ".join(result.output.split())


def test_a_link_in_the_output_folder_is_not_written_through(tmp_path: Path) -> None:
    write_volume(tmp_path, "LPS")
    (tmp_path / "out").mkdir()
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "out" / "knee_mr.nii.gz").symlink_to(tmp_path / "precious")
    assert run("-i", tmp_path / "knee_mr.nii.gz", "-o", tmp_path / "out", "--overwrite").exit_code == 0
    assert (tmp_path / "precious").read_text() == "mine"
    assert not (tmp_path / "out" / "knee_mr.nii.gz").is_symlink()


def test_a_picture_and_a_box_of_the_command_line(tmp_path: Path) -> None:
    Image.fromarray(np.full((50, 80, 3), 99, np.uint8)).save(tmp_path / "photo.jpg")
    out = tmp_path / "out"
    result = run("-i", tmp_path / "photo.jpg", "--box", "10,5,40,30", "--box", "50,20,60,40", "-o", out, "--overlay")
    assert result.exit_code == 0, result.output
    mask = np.asarray(Image.open(out / "photo.png"))
    assert mask.shape == (50, 80)
    assert mask.dtype == np.uint8
    assert mask[15, 20] == 1
    assert mask[30, 55] == 2
    with Image.open(out / "overlays" / "photo.png") as overlay:
        assert overlay.size == (2 * 768, 480)


@pytest.mark.parametrize(
    ("options", "first", "last"),
    [
        ([], 301, 340),
        (["--no-within-box", "--box-margin-px", "0"], 301, 340),
        (["--no-zoom", "--no-within-box", "--box-margin-px", "0"], 300, 341),
    ],
)
def test_small_objects_are_looked_at_in_a_tile(tmp_path: Path, options: list[str], first: int, last: int) -> None:
    """Seen whole, columns 301 to 340 of 512 are 150 to 170 of the encoder's 256, and come back wider than the box."""
    Image.fromarray(np.full((512, 512), 99, np.uint8)).save(tmp_path / "a.png")
    result = run("-i", tmp_path / "a.png", "--box", "301,41,340,60", "-o", tmp_path / "out", *options)
    assert result.exit_code == 0, result.output
    columns = np.flatnonzero(np.asarray(Image.open(tmp_path / "out" / "a.png")).any(axis=0))
    assert (columns[0], columns[-1]) == (first, last)


def test_a_bad_file_is_told_of_and_the_others_are_segmented(tmp_path: Path) -> None:
    write_volume(tmp_path, "LPS")
    (tmp_path / "broken.nii.gz").write_bytes(b"no scan")
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(tmp_path / "no_boxes.png")
    result = run("-i", tmp_path, "-o", tmp_path / "out")
    assert result.exit_code == 1
    assert "broken.nii.gz" in result.output
    assert "no_boxes.png: found no boxes" in " ".join(result.output.split())
    assert "1 of 3 segmented" in result.output
    assert (tmp_path / "out" / "knee_mr.nii.gz").exists()


def test_what_is_segmented_is_not_segmented_again_unless_asked(tmp_path: Path) -> None:
    write_volume(tmp_path, "LPS")
    out = tmp_path / "out"
    assert run("-i", tmp_path / "knee_mr.nii.gz", "-o", out).exit_code == 0
    first = (out / "knee_mr.nii.gz").stat().st_mtime_ns
    again = run("-i", tmp_path / "knee_mr.nii.gz", "-o", out)
    assert again.exit_code == 0
    assert "1 of 1 were in" in again.output
    assert (out / "knee_mr.nii.gz").stat().st_mtime_ns == first
    assert run("-i", tmp_path / "knee_mr.nii.gz", "-o", out, "--overwrite").exit_code == 0
    assert (out / "knee_mr.nii.gz").stat().st_mtime_ns > first


def test_masks_of_another_image_or_by_other_settings_are_not_taken_for_these(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        Image.fromarray(np.zeros((40, 40), np.uint8)).save(tmp_path / folder / "x.png")
    out, box = tmp_path / "out", ("--box", "5,5,20,20")
    assert run("-i", tmp_path / "a", "-o", out, *box).exit_code == 0
    for arguments, told in (
        (("-i", tmp_path / "b", *box), f"found masks of {tmp_path / 'a' / 'x.png'}"),
        (("-i", tmp_path / "a", "--box", "6,6,30,30"), "found masks made by other settings"),
        (("-i", tmp_path / "a", *box, "--no-zoom"), "found masks made by other settings"),
    ):
        before = (out / "x.png").read_bytes()
        result = run(*arguments, "-o", out)
        assert result.exit_code == 1
        assert told in " ".join(result.output.split())
        assert (out / "x.png").read_bytes() == before
    assert run("-i", tmp_path / "b", *box, "-o", out, "--overwrite").exit_code == 0
    assert "1 of 1 were in" in run("-i", tmp_path / "b", *box, "-o", out).output


def test_masks_that_a_model_made_are_nobodys_labels_and_no_images(tmp_path: Path) -> None:
    scans = tmp_path / "scans"
    scans.mkdir()
    Image.fromarray(np.zeros((40, 40), np.uint8)).save(scans / "x.png")
    for out in (tmp_path / "segs", scans / "out"):
        for _ in range(2):
            result = run("-i", scans, "-o", out, "--box", "5,5,20,20", "--overlay")
            assert result.exit_code == 0, result.output
    assert "1 of 1 were in" in result.output
    (source,) = find_cases(str(scans))
    assert (source.case_id, source.labels_paths) == ("x", ())


def test_masks_in_a_folder_without_a_ledger_are_told_of_and_left_alone(tmp_path: Path) -> None:
    write_volume(tmp_path, "LPS")
    mask = tmp_path / "out" / "knee_mr.nii.gz"
    mask.parent.mkdir()
    mask.write_bytes(b"drawn by hand")
    result = run("-i", tmp_path / "knee_mr.nii.gz", "-o", tmp_path / "out")
    assert result.exit_code == 1
    told = f"{mask}: found a file that no segment.jsonl tells of; expected --overwrite, or another --out"
    assert told in " ".join(result.output.split())
    assert "were in" not in result.output
    assert mask.read_bytes() == b"drawn by hand"


def test_options_that_cannot_be_followed_are_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_dicom(tmp_path / "scans" / "one", stored_voxels())
    boxes = tmp_path / "boxes.json"
    boxes.write_text("[[2,3,1,8,9,2]]")
    both = run("-i", folder, "--box", "2,3,1,8,9,2", "--boxes", boxes, "-o", tmp_path / "out")
    assert "name one of --box and --boxes" in both.output
    boxes.write_text("[[2,3")
    assert "boxes.json: found boxes that cannot be read" in run("-i", folder, "--boxes", boxes, "-o", tmp_path).output
    typo = CliRunner().invoke(main, ["segment", "-i", str(folder), "--encoder", "repvitt", "-o", str(tmp_path / "out")])
    assert "did you mean repvit" in " ".join(typo.output.split())
    boxes.write_text("[[2,3,1,8,9,2]]")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    lacking = run("-i", folder, "--boxes", boxes, "--dicom-seg", "-o", tmp_path / "out")
    assert "pip install 'rep-medsam[dicom]'" in " ".join(lacking.output.split())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("option", [("--window", "lung"), ("--modality", "MR")])
def test_options_that_an_npz_cannot_follow_are_refused(tmp_path: Path, option: tuple[str, str]) -> None:
    save_challenge_npz(make_phantom(PhantomSpec("CT", (4, 32, 32), 1, (3.0, 1.0, 1.0), 0)), tmp_path / "3D_CT_p.npz")
    result = run("-i", tmp_path, "-o", tmp_path / "out", *option)
    assert result.exit_code == 2
    assert f"{option[0]}: {tmp_path / '3D_CT_p.npz'} is prepared already" in " ".join(result.output.split())
    assert not (tmp_path / "out").exists()


def test_a_dry_run_tells_what_is_used_and_does_nothing(tmp_path: Path) -> None:
    write_volume(tmp_path, "LPS")
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(tmp_path / "x.png")
    result = run("-i", tmp_path, "-o", tmp_path / "out", "--dry-run")
    labels = tmp_path / "knee_mr_seg.nii.gz"
    expected = [f"knee_mr: {tmp_path / 'knee_mr.nii.gz'}; {labels}", f"x: {tmp_path / 'x.png'}; no labels"]
    assert result.output.splitlines() == expected
    assert not (tmp_path / "out").exists()
    given = run("-i", tmp_path / "x.png", "-o", tmp_path / "out", "--dry-run", "--box", "1,1,4,4")
    assert given.output == f"x: {tmp_path / 'x.png'}; 1,1,4,4\n"


def test_random_weights_are_told_of(tmp_path: Path) -> None:
    write_volume(tmp_path, "LPS")
    assert "random weights" in run("-i", tmp_path, "-o", tmp_path / "out").output


def test_the_runtime_of_a_candidate_may_be_named(
    tmp_path: Path, exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_volume(tmp_path, "LPS")
    recipes: list[Recipe] = []
    monkeypatch.setattr(compress.deploy, "open_backend", lambda recipe: recipes.append(recipe) or BoxBackend(0))
    words = ["segment", "-i", str(tmp_path), "-o", str(tmp_path / "out"), "--candidate", str(exported), "--jobs", "1"]
    assert CliRunner().invoke(main, [*words, "--backend", "openvino"]).exit_code == 0
    assert [recipe.backend for recipe in recipes] == ["openvino"]


def test_an_empty_label_file_is_told_of_by_its_name(tmp_path: Path) -> None:
    write_volume(tmp_path, "LPS")
    labels = nib.load(tmp_path / "knee_mr_seg.nii.gz")
    nib.save(nib.Nifti1Image(np.zeros(labels.shape, np.uint8), labels.affine), tmp_path / "knee_mr_seg.nii.gz")
    result = run("-i", tmp_path / "knee_mr.nii.gz", "-o", tmp_path / "out")
    assert "knee_mr_seg.nii.gz: found no label" in " ".join(result.output.split())


def test_a_full_disk_leaves_no_partial_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_volume(tmp_path, "LPS")

    def full(stream: GzipFile, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(GzipFile, "write", full)
    result = run("-i", tmp_path / "knee_mr.nii.gz", "-o", tmp_path / "out")
    assert result.exit_code == 1
    assert "No space left" in result.output
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["segment.jsonl"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--box", "1,2,3"), "boxes of 3 numbers"),
        (("--box", "1,2,3,x"), "whole numbers"),
        (("--box", f"1,2,3,{10**20}"), "whole numbers"),
        (("--box", "5,5,2,2"), "whose minimum is past its maximum"),
        (("--box", "0,0,99,5"), "expected indices within"),
    ],
)
def test_bad_boxes_are_named(tmp_path: Path, arguments: tuple[str, str], message: str) -> None:
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(tmp_path / "x.png")
    result = run("-i", tmp_path / "x.png", "-o", tmp_path / "out", *arguments)
    assert result.exit_code == 1
    assert message in " ".join(result.output.split())


def test_random_weights_must_be_asked_for(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(tmp_path / "x.png")
    words = ["segment", "-i", str(tmp_path / "x.png"), "--box", "1,1,4,4", "-o", str(tmp_path / "out")]
    result = CliRunner().invoke(main, [*words, "--encoder", "light_repvit"])
    assert result.exit_code != 0
    assert "--weights" in result.output


def test_boxes_of_scans_hold_both_ends(tmp_path: Path) -> None:
    write_volume(tmp_path, "RAI")
    result = run("-i", tmp_path / "knee_mr.nii.gz", "-o", tmp_path / "out", "--z-range", "exclusive")
    assert result.exit_code == 1
    assert "expected inclusive: boxes of scans hold both ends" in " ".join(result.output.split())
