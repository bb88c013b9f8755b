"""A case is known by its content: one file under two names counts once, two files of one name count twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from record_book import CT_0860, FLOOR, REPVIT, SKIN, TINYVIT, Book, candidate, protocol, rows_of

from reports.compare import compare

TRAINED = candidate("repvit", trained=True)


def renamed(case: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {**case, "case_id": "another_name", "source": "another_name.npz", **fields}


def test_labels_of_a_file_under_two_names_count_once(book: Book) -> None:
    book.scores(FLOOR, [0.5, 0.5])
    book.scores(TRAINED, [0.9, 0.7])
    book.scores(TRAINED, [0.9, 0.7], renamed(SKIN))
    rows = rows_of(book.report(), "Accuracy by modality")
    assert [row["labels"] for row in rows] == ["2", "2"]
    by_case = rows_of(book.report(), "Accuracy by case")
    assert {row["case"] for row in by_case} == {"another_name"}, "called by the latest name"


@pytest.mark.parametrize("changed", [{"sha256": "cut"}, {"modality": "MR"}, {"spacing_mm": [2.0, 0.5, 0.5]}])
def test_what_differs_by_more_than_the_name_is_another_case(book: Book, changed: dict[str, Any]) -> None:
    book.scores(FLOOR, [0.5, 0.5])
    book.scores(TRAINED, [0.9, 0.7])
    book.scores(TRAINED, [0.8, 0.6], {**SKIN, **changed})
    rows = [row for row in rows_of(book.report(), "Accuracy by modality") if "ellipse" not in row["candidate"]]
    assert sum(int(row["labels"]) for row in rows) == 4


def test_cases_without_a_hash_are_told_apart_by_their_names(book: Book) -> None:
    for case in ({**SKIN, "sha256": ""}, renamed(SKIN, sha256="")):
        book.scores(FLOOR, [0.5, 0.5], case)
        book.scores(TRAINED, [0.9, 0.7], case)
    assert [row["labels"] for row in rows_of(book.report(), "Accuracy by modality")] == ["4", "4"]


def test_passes_of_a_file_under_two_names_are_one_row_with_its_baseline(book: Book) -> None:
    book.one_pass(TINYVIT, 20.0, protocol("per_object"))
    book.one_pass(REPVIT, 10.0, protocol("cached"), case=renamed(CT_0860))
    slow, fast = rows_of(book.report(), "3D cases")
    assert (slow["case"], fast["case"]) == ("phantom_3DBox_CT_0860", ""), "a name that says it was drawn is kept"
    assert fast["speed-up [95 % CI]"] == "2.00x (n=1)"


def test_what_another_version_calls_otherwise_is_compared(tmp_path: Path) -> None:
    one, other = Book(tmp_path / "one.jsonl"), Book(tmp_path / "other.jsonl")
    for book, case, seconds in ((one, CT_0860, 1.0), (other, renamed(CT_0860), 2.0)):
        for index in range(8):
            book.one_pass(TINYVIT, seconds, protocol("cached"), case, index)
    result = compare([one.path], [other.path])
    assert [row.ratio.value for row in result.latencies] == [pytest.approx(2.0)]
    assert not result.unmatched


# What a later run takes the place of


@pytest.mark.parametrize("fields", [{}, {"weights_name": "renamed.pth"}, {"case": renamed(CT_0860)}])
def test_passes_of_a_later_run_are_not_averaged_with_those_of_an_earlier(book: Book, fields: dict[str, Any]) -> None:
    case, later = fields.get("case", CT_0860), TRAINED
    if name := fields.get("weights_name"):
        later = {**TRAINED, "weights": {**TRAINED["weights"], "name": name}}
    for index in range(5):
        book.one_pass(TRAINED, 10.0, protocol("cached"), index=index, run_id="old")
    for index in range(2):
        book.one_pass(later, 4.0, protocol("cached"), case, index, run_id="new")
    (row,) = rows_of(book.report(), "3D cases")
    assert row["warm (s), median (n)"] == "4.00 (2)"
    assert "5 records were measured again later" in book.report()


def test_passes_of_a_sweep_that_went_on_later_stay_together(book: Book) -> None:
    for index, run_id in enumerate(("begun", "begun", "resumed")):
        book.one_pass(TRAINED, 10.0 + index, protocol("cached"), index=index, run_id=run_id)
    (row,) = rows_of(book.report(), "3D cases")
    assert row["warm (s), median (n)"] == "11.0 (3)"


def test_a_case_that_was_mended_was_measured_since(book: Book) -> None:
    book.add("error", {}, {}, case={"case_id": "skin", "source": "skin.png"}, error={"type": "E", "message": "torn"})
    assert [row["measured since"] for row in rows_of(book.report(), "Failures")] == ["no"]
    book.scores(TRAINED, [0.9])
    assert [row["measured since"] for row in rows_of(book.report(), "Failures")] == ["yes"]


# Different cases of one name


def test_cuts_of_a_case_are_not_averaged(book: Book) -> None:
    book.scores(TRAINED, [0.9, 0.7], CT_0860)
    book.scores(TRAINED, [0.2], {**CT_0860, "shape": [4, 512, 512], "sha256": "cut"})
    rows = [row for row in rows_of(book.report(), "Accuracy by case") if "ellipse" not in row["candidate"]]
    assert {row["case"]: row["labels"] for row in rows} == {
        "phantom_3DBox_CT_0860 246x512x512": "2",
        "phantom_3DBox_CT_0860 4x512x512": "1",
    }


def test_cases_of_one_name_and_size_are_told_apart_in_every_table(book: Book) -> None:
    other = {**CT_0860, "sha256": "0123456789"}
    for run_id in ("run1", "run2"):
        for case in (CT_0860, other):
            book.one_pass(TINYVIT, 10.0, protocol("cached"), case, run_id=run_id, key=f"{run_id}{case['sha256']}")
    text = book.report()
    names = ["phantom_3DBox_CT_0860 (01234567)", "phantom_3DBox_CT_0860 (c860)"]
    assert sorted(row["case"] for row in rows_of(text, "3D cases")) == names
    told = {row["what"].split(": ")[0] for row in rows_of(text, "History") if row["what"]}
    assert told == {f"{name} 246x512x512" for name in names}


def test_cuts_that_differ_in_objects_alone_are_not_averaged(book: Book) -> None:
    for objects, digest, dsc in ((3, "c2d", 0.9), (1, "0a1b", 0.5)):
        case = {**SKIN, "objects": objects, "sha256": digest}
        book.scores(FLOOR, [0.4], case)
        book.scores(TRAINED, [dsc], case)
    rows = rows_of(book.report(), "Accuracy by case")
    assert {row["case"] for row in rows if row["case"]} == {"skin (c2d)", "skin (0a1b)"}
    assert [row["labels"] for row in rows] == ["1"] * len(rows)


def test_what_was_drawn_stays_so_under_another_name(book: Book) -> None:
    drawn = {**SKIN, "case_id": "phantom_skin"}
    book.scores(TRAINED, [0.9], drawn)
    book.scores(TRAINED, [0.9], renamed(SKIN))
    assert {row["modality"] for row in rows_of(book.report(), "Accuracy by modality")} == {"Dermoscopy phantom"}


def test_given_masks_do_not_mark_models_as_incomplete(book: Book) -> None:
    given = {"encoder": "segmentations segs", "variant": "plain", "weights": {"name": "given", "trained": True}}
    book.scores(TRAINED, [0.9])
    book.scores(given, [0.8], {**SKIN, "sha256": "of the labels alone"})
    dsc = {row["candidate"]: row["DSC, mean ± std"] for row in rows_of(book.report(), "Accuracy by modality")}
    assert not any("*" in cell for cell in dsc.values()), dsc
    assert "given" not in book.report().split("# Weights")[1].split("\n#")[0]
