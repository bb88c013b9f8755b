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
    assert (slow["case"], fast["case"]) == ("another_name", "")
    assert fast["speed-up [95 % CI]"] == "2.00x (n=1)"


def test_what_another_version_calls_otherwise_is_compared(tmp_path: Path) -> None:
    one, other = Book(tmp_path / "one.jsonl"), Book(tmp_path / "other.jsonl")
    for book, case, seconds in ((one, CT_0860, 1.0), (other, renamed(CT_0860), 2.0)):
        for index in range(8):
            book.one_pass(TINYVIT, seconds, protocol("cached"), case, index)
    result = compare([one.path], [other.path])
    assert [row.ratio.value for row in result.latencies] == [pytest.approx(2.0)]
    assert not result.unmatched
