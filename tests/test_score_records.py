"""The records of `score`: what was scored against what, by which rules, is never mistaken for another."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray
from PIL import Image

from bench.score import find_pairs
from cli import main
from reports.candidates import Reading
from reports.load import load_records
from zoo.errors import InputError

#: 16 of 32 rows and columns.
SQUARE: NDArray[np.uint8] = np.pad(np.ones((16, 16), np.uint8), ((4, 12), (4, 12)))


def save_png(path: Path, values: NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


def test_two_references_of_one_case_are_refused(tmp_path: Path) -> None:
    for name in ("s/a", "sites/one/a", "sites/two/a", "sites/two/b"):
        save_png(tmp_path / f"{name}.png", SQUARE)
    with pytest.raises(InputError, match=r"one.a.png and .*two.a.png for a.png; expected one label map"):
        find_pairs(tmp_path / "s", str(tmp_path / "sites"))


def test_labels_of_several_annotators_are_refused(tmp_path: Path) -> None:
    for name in ("s/p", "s/q", "g/p", "g/p_label_1", "g/p_label_2"):
        save_png(tmp_path / f"{name}.png", SQUARE)
    with pytest.raises(InputError, match=r"p_label_1.png and .*p_label_2.png for p.png; expected one label map"):
        find_pairs(tmp_path / "s", str(tmp_path / "g"))


def test_an_image_without_labels_is_no_label_map(tmp_path: Path) -> None:
    for name in ("s/p", "s/q", "g/p", "g/q", "g/q_label"):
        save_png(tmp_path / f"{name}.png", SQUARE)
    found = {
        pair.case_id: [path.name for path in pair.references]
        for pair in find_pairs(tmp_path / "s", str(tmp_path / "g"))
    }
    assert found == {"p": [], "q": ["q_label.png"]}


def scored(tmp_path: Path, segs: str, gts: str = "g", rules: str = "plain") -> tuple[Reading, ...]:
    """All records after one more call of `score`."""
    options = {"-s": segs, "-g": gts, "-o": "out"}
    arguments = [part for name, folder in options.items() for part in (name, str(tmp_path / folder))]
    result = CliRunner().invoke(main, ["score", *arguments, "--rules", rules, "--workers", "1"])
    assert result.exit_code == 0, result.output
    return load_records([tmp_path / "out" / "scores.jsonl"]).records


def test_images_that_share_a_label_map_are_cases_of_their_own(tmp_path: Path) -> None:
    for name, values in (("pat1_t1w", 100 * SQUARE), ("pat1_t2w", 200 * SQUARE), ("pat1_seg", SQUARE)):
        save_png(tmp_path / "g" / f"{name}.png", values)
    for name, shift in (("pat1_t1w", 0), ("pat1_t2w", 4)):
        save_png(tmp_path / "s" / f"{name}.png", np.roll(SQUARE, shift, 0))
    records = scored(tmp_path, "s")
    assert len({record.case_info for record in records}) == 2
    assert sorted(record.measurements["dsc"][0] for record in records) == [0.75, 1.0]


def test_masks_of_one_object_each_are_called_by_their_names(tmp_path: Path) -> None:
    """Case `b` has no first organ: its labels 1 and 2 are other organs than those of `a`."""
    for case, organs in (("a", ("colon", "liver", "spleen")), ("b", ("liver", "spleen"))):
        save_png(tmp_path / "g" / "images" / f"{case}.png", 100 * SQUARE)
        save_png(tmp_path / "s" / f"{case}.png", np.zeros_like(SQUARE))
        for row, organ in enumerate(organs):
            mask = np.zeros_like(SQUARE)
            mask[10 * row : 10 * row + 8] = 255
            save_png(tmp_path / "g" / "masks" / f"{case}_{organ}.png", mask)
    scored(tmp_path, "s")
    by_label = (tmp_path / "out" / "scores.md").read_text().split("## By label")[1].splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in by_label if line.startswith("|")]
    assert [row[:2] for row in rows[2:]] == [["colon", "1"], ["liver", "2"], ["spleen", "2"]]


def test_labels_of_different_modalities_are_not_averaged(tmp_path: Path) -> None:
    """Label 1 of a CT is one organ, of an MR another."""
    for case, shift in (("CT_a", 0), ("MR_b", 4)):
        save_png(tmp_path / "g" / f"{case}.png", 100 * SQUARE)
        save_png(tmp_path / "g" / f"{case}_seg.png", SQUARE)
        save_png(tmp_path / "s" / f"{case}.png", np.roll(SQUARE, shift, 0))
    scored(tmp_path, "s")
    by_label = (tmp_path / "out" / "scores.md").read_text().split("## By label")[1].splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in by_label if line.startswith("|")]
    assert [row[:4] for row in rows[2:]] == [["CT 2D", "1", "1", "1.00"], ["MR 2D", "1", "1", "0.750"]]


def test_masks_of_an_npz_are_scored_against_the_scan_that_it_was_made_of(tmp_path: Path) -> None:
    """The npz numbers labels 1 to N; the scan's were 5 and 9."""
    labels = np.zeros((32, 32, 6), np.uint8)
    labels[4:12, 4:12, 1:5], labels[18:28, 18:28, 1:5] = 5, 9
    (tmp_path / "scans").mkdir()
    for name, voxels in (("a_ct", labels.astype(np.int16) * 10 - 100), ("a_ct_seg", labels)):
        nib.save(nib.Nifti1Image(voxels, np.eye(4)), tmp_path / "scans" / f"{name}.nii.gz")  # type: ignore[no-untyped-call]
    words = ["prepare", "-i", str(tmp_path / "scans"), "-o", str(tmp_path / "npz"), "--min-voxels", "0"]
    assert CliRunner().invoke(main, [*words, "--min-pixels", "0"]).exit_code == 0
    (npz,) = (tmp_path / "npz").glob("*.npz")
    segment = ["segment", "-i", str(npz), "-o", str(tmp_path / "s"), "--jobs", "1"]
    assert CliRunner().invoke(main, segment).exit_code == 0
    with np.load(tmp_path / "s" / npz.name) as made:
        assert made["label_values"].tolist() == [5, 9]
    score = ["score", "-s", str(tmp_path / "s" / npz.name), "-g", str(tmp_path / "scans" / "a_ct_seg.nii.gz")]
    assert CliRunner().invoke(main, [*score, "-o", str(tmp_path / "out"), "--workers", "1"]).exit_code == 0
    (record,) = load_records([tmp_path / "out" / "scores.jsonl"]).records
    assert record.measurements["labels"] == [5, 9]
    assert min(record.measurements["dsc"]) > 0.5, "of 5 and 9 taken for 1 and 2 it would be 0"


def test_every_mask_of_a_case_is_part_of_what_it_is(tmp_path: Path) -> None:
    for folder, shift in (("g", 0), ("h", 4)):
        save_png(tmp_path / folder / "images" / "img_1.png", 100 * SQUARE)
        save_png(tmp_path / folder / "masks" / "img_1_a.png", 255 * SQUARE)
        save_png(tmp_path / folder / "masks" / "img_1_b.png", 255 * np.roll(SQUARE, (16, shift), (0, 1)))
    save_png(tmp_path / "s" / "img_1.png", SQUARE)
    hashes = {record.case["sha256"] for gts in ("g", "h") for record in scored(tmp_path, "s", gts=gts)}
    assert len(hashes) == 2


def test_scores_by_labels_of_before_are_replaced(tmp_path: Path) -> None:
    save_png(tmp_path / "s" / "x.png", SQUARE)
    save_png(tmp_path / "g" / "x.png", np.roll(SQUARE, 4, 0))
    scored(tmp_path, "s", rules="cvpr24")
    scored(tmp_path, "s")
    save_png(tmp_path / "g" / "x.png", SQUARE)
    records = scored(tmp_path, "s")
    assert [record.measurements["dsc"][0] for record in records] == [0.75, 1.0], "by other rules it stays"


def test_folders_of_one_name_and_other_rules_are_rows_of_their_own(tmp_path: Path) -> None:
    save_png(tmp_path / "g" / "x.png", SQUARE)
    for model, shift in (("a", 0), ("b", 4)):
        save_png(tmp_path / model / "segs" / "x.png", np.roll(SQUARE, shift, 0))
        records = scored(tmp_path, f"{model}/segs")
    records = scored(tmp_path, "a/segs", rules="cvpr24")
    assert len({record.who for record in records}) == len(records) == 3
