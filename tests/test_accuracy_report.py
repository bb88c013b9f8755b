"""Accuracy tables: whose scores are averaged over what, what stands beside the ellipse, and what is no accuracy."""

from __future__ import annotations

import pytest
from record_book import CT_0860, FLOOR, REPVIT, SKIN, Book, candidate, rows_of

from reports.accuracy import LACKING_NOTE, PIXELS_NOTE, RANDOM


def test_accuracy_by_hand_with_undefined_scores_left_out(book: Book) -> None:
    book.scores(FLOOR, [0.5, 0.7, None])
    book.scores(candidate("repvit", trained=True), [0.8, 0.9, None])
    floor, row = rows_of(book.report(), "Accuracy by modality")
    assert (floor["candidate"], floor["DSC, mean ± std"], floor["remark"]) == (
        "box ellipse",
        "0.600 ± 0.141",
        "reference",
    )
    assert (row["modality"], row[""], row["labels"]) == ("Dermoscopy", "2D", "2")
    assert row["DSC, mean ± std"] == row["NSD at 2 mm, mean ± std"] == "0.850 ± 0.071"
    assert (row["DSC over ellipse"], row["remark"]) == ("+0.250", "")
    assert row["weights"] == "repvit.pth 0123456789ab"


def test_random_weights_are_never_an_accuracy(book: Book) -> None:
    book.parts(REPVIT, [1.0])
    book.scores(FLOOR, [0.5])
    book.scores(REPVIT, [0.98765])
    out = book.path.parent / "report"
    text = book.report(out)
    for heading in ("Accuracy by modality", "Accuracy by case"):
        row = rows_of(text, heading)[1]
        assert row["weights"] == "random:0 0123456789ab"
        assert row["remark"] == RANDOM == "random weights: not an accuracy"
    for file in [out / "report.md", *out.glob("*.csv")]:
        assert not any(score in file.read_text() for score in ("0.988", "0.9877", "0.98765")), file.name


def test_trained_candidate_under_the_ellipse_is_marked(book: Book) -> None:
    book.scores(FLOOR, [0.5, 0.9])
    # Scored on the first label only: the ellipse's 0.9 must not count against it.
    book.scores(candidate("repvit", trained=True), [0.6, None])
    book.scores(candidate("tinyvit", trained=True), [0.5, 0.9])
    rows = {row["candidate"]: row for row in rows_of(book.report(), "Accuracy by modality")}
    assert (rows["repvit"]["DSC over ellipse"], rows["repvit"]["remark"]) == ("+0.100", "")
    assert (rows["tinyvit"]["DSC over ellipse"], rows["tinyvit"]["remark"]) == ("+0.000", "NOT ABOVE THE ELLIPSE")


def test_the_ellipse_has_a_row_even_where_nobody_measured_it(book: Book) -> None:
    book.scores(candidate("repvit", trained=True), [0.6])
    floor, row = rows_of(book.report(), "Accuracy by modality")
    assert (floor["candidate"], floor["remark"]) == ("box ellipse", "reference, not measured")
    assert row["remark"] == "not compared with the ellipse"


def test_accuracy_is_averaged_over_labels_by_modality_and_case(book: Book) -> None:
    who = candidate("repvit", trained=True)
    book.scores(who, [0.2, 0.4])
    book.scores(who, [0.9], case={**SKIN, "case_id": "skin2", "sha256": "x"})
    book.scores(who, [1.0], case={**SKIN, "case_id": "ct", "modality": "CT", "sha256": "y"})
    by_modality, by_case = book.csv("accuracy"), book.csv("accuracy_cases")
    trained = by_modality[by_modality.candidate_trained].set_index("group").dsc_mean.to_dict()
    assert trained == pytest.approx({"CT": 1.0, "Dermoscopy": 0.5})
    assert by_case[by_case.candidate_trained].set_index("group").dsc_mean.to_dict() == pytest.approx(
        {"ct": 1.0, "skin": 0.3, "skin2": 0.9}
    )


def test_drawn_images_are_no_images_of_their_modality(book: Book) -> None:
    who = candidate("repvit", trained=True)
    book.scores(who, [0.9], CT_0860)
    book.scores(who, [0.5], {**CT_0860, "case_id": "scan", "sha256": "scan"})
    book.scores(who, [0.7], {**CT_0860, "case_id": "2DBox_CT_synthetic_3", "sha256": "3"})
    rows = [row for row in rows_of(book.report(), "Accuracy by modality") if row["candidate"] == "repvit"]
    dsc = [(row["modality"], row["DSC, mean ± std"]) for row in rows]
    assert dsc == [("CT", "0.500"), ("CT phantom", "0.900"), ("CT synthetic", "0.700")]


def test_who_was_scored_on_fewer_labels_is_marked_and_stands_below(book: Book) -> None:
    easy, all_of_them = candidate("easy", trained=True), candidate("all", trained=True)
    other = {**SKIN, "case_id": "skin2", "sha256": "x"}
    book.scores(easy, [0.9])
    book.scores(all_of_them, [0.8])
    book.scores(all_of_them, [0.4], other)
    book.scores(REPVIT, [0.99], {**SKIN, "case_id": "skin3", "sha256": "y"})
    text = book.report()
    rows = {row["candidate"]: row["labels"] for row in rows_of(text, "Accuracy by modality")}
    assert list(rows) == ["box ellipse", "all", "easy", "repvit"]
    assert (rows["all"], rows["easy"]) == ("2", "1 *")
    assert LACKING_NOTE in text
    book.scores(easy, [0.4], other)
    assert LACKING_NOTE not in book.report()


def test_pixels_of_no_size_are_told_of(book: Book) -> None:
    book.scores(candidate("repvit", trained=True), [0.9], {**SKIN, "spacing_mm": [0.5, 0.5]})
    assert PIXELS_NOTE not in book.report()
    book.scores(candidate("repvit", trained=True), [0.9], {**SKIN, "spacing_mm": [1.0, 1.0], "sha256": "other"})
    assert f"- {PIXELS_NOTE}\n" in book.report()
