"""`score`: which labels a segmentation is scored against."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from test_score import pair, write_npz

from bench.score import Pair, find_pairs, unsegmented
from zoo.errors import InputError


def test_pairs_by_name_and_by_the_images_labels(tmp_path: Path) -> None:
    for folder, name in (("s", "a"), ("s", "b"), ("g", "a_label"), ("g", "b")):
        write_npz(tmp_path / folder, name, segs=np.zeros((2, 2), np.uint8))
    found = find_pairs(tmp_path / "s", str(tmp_path / "g"))
    assert [(p.case_id, p.references[0].name) for p in found] == [("a", "a_label.npz"), ("b", "b.npz")]
    (tmp_path / "scans" / "one").mkdir(parents=True)
    for name in ("ct.nii.gz", "labels.nii.gz"):
        (tmp_path / "scans" / "one" / name).touch()
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "one_ct.nii.gz").touch()
    (tmp_path / "t" / "two.nii.gz").touch()
    by_case = find_pairs(tmp_path / "t", str(tmp_path / "scans"))
    assert [[r.name for r in p.references] for p in by_case] == [["labels.nii.gz"], []]
    (tmp_path / "scans" / "lost").mkdir()
    for name in ("ct.nii.gz", "labels.nii.gz"):
        (tmp_path / "scans" / "lost" / name).touch()
    assert unsegmented(by_case, str(tmp_path / "scans")) == ["lost_ct"]


@pytest.mark.parametrize("rivals", [("a/p1.npz", "b/p1.npz"), ("p1_label.npz", "p1_seg.npz")])
def test_of_two_raters_none_is_taken_for_one_segmentation(tmp_path: Path, rivals: tuple[str, str]) -> None:
    path = write_npz(tmp_path / "s", "p1", segs=np.zeros((2, 2), np.uint8))
    for rival in rivals:
        write_npz((tmp_path / "g" / rival).parent, Path(rival).stem, gts=np.zeros((2, 2), np.uint8))
    first, second = (tmp_path / "g" / rival for rival in rivals)
    for segmentations in (tmp_path / "s", path):
        with pytest.raises(InputError, match=f"found {first} and {second} for p1.npz; expected one label map a case"):
            find_pairs(segmentations, str(tmp_path / "g"))


def test_names_do_not_count_where_both_files_are_named(tmp_path: Path) -> None:
    """In a folder, the one file of another name is another patient's."""
    path = write_npz(tmp_path / "s", "p1", segs=np.zeros((2, 2), np.uint8))
    other = write_npz(tmp_path / "g", "p2", gts=np.zeros((2, 2), np.uint8))
    assert find_pairs(path, str(other)) == [Pair("p1", path, (other,))]
    for segmentations in (tmp_path / "s", path):
        assert find_pairs(segmentations, str(tmp_path / "g")) == [Pair("p1", path, ())]


def test_masks_that_a_model_made_are_no_references(tmp_path: Path) -> None:
    """Unless their folder is named: one model may be scored against another."""
    write_npz(tmp_path / "s", "p1", segs=np.zeros((2, 2), np.uint8))
    made = write_npz(tmp_path / "g" / "out" / "deep", "p1", segs=np.zeros((2, 2), np.uint8))
    (tmp_path / "g" / "out" / "segment.jsonl").touch()
    with pytest.raises(InputError, match="found no label map"):
        find_pairs(tmp_path / "s", str(tmp_path / "g"))
    assert find_pairs(tmp_path / "s", str(tmp_path / "g" / "out"))[0].references == (made,)
    own = write_npz(tmp_path / "g", "p1", gts=np.zeros((2, 2), np.uint8))
    assert find_pairs(tmp_path / "s", str(tmp_path / "g"))[0].references == (own,)


def test_two_files_of_one_case_are_refused(tmp_path: Path) -> None:
    pair(tmp_path)
    (tmp_path / "segs" / "3DBox_CT_a.nii.gz").touch()
    with pytest.raises(InputError, match=r"3DBox_CT_a.nii.gz and 3DBox_CT_a.npz; expected one segmentation a case"):
        find_pairs(tmp_path / "segs", str(tmp_path / "gts"))


def test_linked_folders_hold_references_too(tmp_path: Path) -> None:
    write_npz(tmp_path / "s", "a", segs=np.ones((4, 4), np.uint8))
    write_npz(tmp_path / "far", "a", gts=np.ones((4, 4), np.uint8))
    (tmp_path / "g").mkdir()
    (tmp_path / "g" / "linked").symlink_to(tmp_path / "far")
    (found,) = find_pairs(tmp_path / "s", str(tmp_path / "g"))
    assert found.references == (tmp_path / "g" / "linked" / "a.npz",)


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_a_patient_whose_name_has_a_label_token_gets_its_own_labels(tmp_path: Path) -> None:
    """And none of another patient's where it has none itself."""
    patients = ("p1", "seg_p1", "p2_mask")
    for name in patients:
        touch(tmp_path / "g" / name / "ct.nii.gz", tmp_path / "g" / name / "seg.nii.gz")
        touch(tmp_path / "s" / f"{name}_ct.nii.gz")
    found = {pair.case_id: pair.references for pair in find_pairs(tmp_path / "s", str(tmp_path / "g"))}
    assert found == {f"{name}_ct": (tmp_path / "g" / name / "seg.nii.gz",) for name in patients}
    (tmp_path / "g" / "seg_p1" / "seg.nii.gz").unlink()
    found = {pair.case_id: pair.references for pair in find_pairs(tmp_path / "s", str(tmp_path / "g"))}
    assert found["seg_p1_ct"] == ()


def test_two_segmentations_for_the_labels_of_one_case_are_refused(tmp_path: Path) -> None:
    touch(tmp_path / "s" / "p1.nii.gz", tmp_path / "s" / "p1_mask.nii.gz", tmp_path / "g" / "p1_seg.nii.gz")
    with pytest.raises(InputError, match=r"p1\.nii\.gz and p1_mask\.nii\.gz for the labels of p1, .*p1_seg\.nii\.gz"):
        find_pairs(tmp_path / "s", str(tmp_path / "g"))


def test_sequences_of_one_patient_share_its_labels(tmp_path: Path) -> None:
    names = ("p_flair.nii.gz", "p_t1.nii.gz")
    touch(tmp_path / "g" / "p_seg.nii.gz", *(tmp_path / folder / name for folder in "gs" for name in names))
    found = find_pairs(tmp_path / "s", str(tmp_path / "g"))
    assert [pair.references for pair in found] == [(tmp_path / "g" / "p_seg.nii.gz",)] * 2
