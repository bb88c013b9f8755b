"""Folders of labels within the folder of their image: TotalSegmentator's layout and its like."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from box_backend import BoxBackend
from test_cli import invoke
from test_dicom import write_dicom
from test_nifti import pairs, save, touch

import compress.deploy
from zoo.data.cases import find_cases
from zoo.data.npz import load_challenge_npz, load_label_map, load_label_names, save_segmentation
from zoo.data.prepare import Preparation
from zoo.data.scan import object_names
from zoo.errors import InputError
from zoo.files import read_json


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


@pytest.mark.parametrize(("inside", "spec"), [(".", "."), (".", "p1.png"), ("imgs", "."), ("imgs/deep", "..")])
def test_labels_are_found_from_within_the_folders_of_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inside: str, spec: str
) -> None:
    """A path that says nothing of the folder above has one all the same, and `.` is not above itself."""
    if inside == ".":
        touch(tmp_path, "p1.png", "masks/p1_a.png", "masks/p1_b.png")
    else:
        touch(tmp_path, "imgs/p1.png", "masks/p1_a.png", "masks/p1_b.png", "imgs/deep/note.txt")
    monkeypatch.chdir(tmp_path / inside)
    (source,) = find_cases(spec)
    assert [path.name for path in source.labels_paths] == ["p1_a.png", "p1_b.png"]
    assert source.case_id == "p1"


def test_folders_that_a_glob_names_are_looked_into(tmp_path: Path) -> None:
    touch(tmp_path, "patients/a/ct.nii", "patients/b/ct.nii", "patients/c.nii")
    assert sorted(source.case_id for source in find_cases(f"{tmp_path}/patients/*")) == ["a_ct", "b_ct", "c"]


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
    assert case.label_names == {1: "liver", 2: "spleen"}


def write_masks(folder: Path, **masks: np.ndarray) -> None:
    """TotalSegmentator's layout, of one image and a mask an object."""
    (folder / "segmentations").mkdir(parents=True)
    shape = next(iter(masks.values())).shape
    save(folder / "mri.nii.gz", np.random.default_rng(0).integers(1, 400, shape).astype(np.int16))
    for name, mask in masks.items():
        save(folder / "segmentations" / f"{name}.nii.gz", mask.astype(np.uint8))


def cube(start: int, side: int = 4) -> np.ndarray:
    mask = np.zeros((8, 8, 8), np.uint8)
    mask[start : start + side, start : start + side, start : start + side] = 1
    return mask


def test_names_of_masks_go_through_npz_to_the_scores(tmp_path: Path) -> None:
    """The second case lacks the first one's first mask: its label 1 is another organ."""
    write_masks(tmp_path / "scans" / "s1", kidney=cube(0), liver=cube(4))
    write_masks(tmp_path / "scans" / "s2", liver=cube(1), spleen=cube(5, 3))
    small = ("--min-voxels", "0", "--min-pixels", "0")
    assert invoke("prepare", "-i", tmp_path / "scans", "-o", tmp_path / "npz", *small).exit_code == 0
    files = sorted((tmp_path / "npz").glob("*.npz"))
    assert [load_label_names(file) for file in files] == [{1: "kidney", 2: "liver"}, {1: "liver", 2: "spleen"}]
    assert load_challenge_npz(files[1]).label_names == {1: "liver", 2: "spleen"}
    (tmp_path / "segs").mkdir()
    for file in files:
        save_segmentation(load_label_map(file), tmp_path / "segs" / file.name, label_names=load_label_names(file))
    done = invoke("score", "-s", tmp_path / "segs", "-g", tmp_path / "npz", "-o", tmp_path / "scores")
    assert done.exit_code == 0, done.output
    rows = (tmp_path / "scores" / "scores.csv").read_text().splitlines()
    assert [row.split(",")[4] for row in rows[1:]] == ["kidney", "liver", "liver", "spleen"]
    assert load_label_names(tmp_path / "segs" / files[0].name) == {1: "kidney", 2: "liver"}
    assert invoke("prepare", "-i", tmp_path / "npz", "-o", tmp_path / "again").exit_code == 0
    assert [load_label_names(file) for file in sorted((tmp_path / "again").glob("*.npz"))] == [
        {1: "kidney", 2: "liver"},
        {1: "liver", 2: "spleen"},
    ]


def test_segment_tells_the_names_of_masks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of each case in the ledger, as a label is another organ where a mask is missing; of the first at once."""
    monkeypatch.setattr(compress.deploy, "open_backend", lambda _: BoxBackend(shrink_px=0))
    write_masks(tmp_path / "scans" / "s1", kidney=cube(0), liver=cube(4))
    write_masks(tmp_path / "scans" / "s2", liver=cube(1), spleen=cube(5, 3))
    model = ("--encoder", "repvit", "--weights", "random:0", "--jobs", "1")
    done = invoke("segment", "-i", tmp_path / "scans", "-o", tmp_path / "out", *model)
    assert done.exit_code == 0, done.output
    told = {line["case_id"]: line.get("label_names") for line in read_json(tmp_path / "out" / "segment.jsonl")}
    assert told == {"s1_mri": {"1": "kidney", "2": "liver"}, "s2_mri": {"1": "liver", "2": "spleen"}}
    said = "s1_mri: labels are 1 kidney, 2 liver; see label_names in segment.jsonl"
    assert said in " ".join(done.output.split())
    assert "s2_mri: labels" not in done.output


def test_names_follow_their_objects(tmp_path: Path) -> None:
    """Of three masks the first is too small to be kept; parts told apart have no names."""
    write_masks(tmp_path / "s", adrenal=cube(7, 1), kidney=cube(0), liver=cube(4, 3))
    (source,) = find_cases(str(tmp_path / "s"))
    case, values = source.load(Preparation(min_voxels=2)).renumbered()
    assert (case.label_names, values) == ({1: "kidney", 2: "liver"}, (2, 3))
    assert source.load(Preparation(instances=True)).label_names == {}
    (one,) = find_cases(f"{tmp_path}/s/mri.nii.gz={tmp_path}/s/segmentations/liver.nii.gz")
    assert one.load().label_names == {}, "a single file is a label map, whatever it is called"


def test_a_mask_is_called_what_its_name_has_beside_the_images() -> None:
    masks = [Path("masks/p1_aorta.nii.gz"), Path("masks/p1-left lung.png"), Path("masks/liver.nii")]
    assert object_names(masks, Path("scans/p1.nii.gz")) == {1: "aorta", 2: "left lung", 3: "liver"}
    assert object_names(masks)[1] == "p1_aorta"


@pytest.mark.parametrize("names", [np.array([1, 2]), np.array("liver"), np.array([b"liver"])])
def test_names_that_are_none_are_refused(names: np.ndarray, tmp_path: Path) -> None:
    np.savez(tmp_path / "2D_x.npz", imgs=np.zeros((8, 8), np.uint8), boxes=[[1, 1, 3, 3]], label_names=names)
    with pytest.raises(InputError, match=r"label_names: found .*; expected a text for each label"):
        load_challenge_npz(tmp_path / "2D_x.npz")


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
