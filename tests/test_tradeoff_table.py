"""The table of accuracy beside the speed of one run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from record_book import CT_0860, FLOOR, SKIN, Book, candidate, protocol, rows_of

from reports.render import renew_page
from reports.rules import SCRIPT_RULE
from reports.tradeoff import TITLE as TRADEOFF

TINYVIT, REPVIT = candidate("tinyvit"), candidate("repvit")
FLOAT = candidate("repvit", trained=True)
INT8 = candidate("repvit", trained=True, variant="int8-minmax-0a1b", backend="openvino", precision="int8")
LOST = candidate("repvit", trained=True, variant="int8-minmax-2c3d", backend="openvino", precision="int8")
HIP = {**SKIN, "case_id": "hip", "modality": "XRay", "sha256": "41f"}


def score_run(book: Book, who: dict[str, Any], encode_s: float, skin: float, hip: float, volume: float) -> None:
    book.parts(who, [encode_s] * 6)
    for case, dsc in ((SKIN, skin), (HIP, hip), (CT_0860, volume)):
        book.scores(who, [dsc], case)


def test_threads_have_a_column_where_they_differ(book: Book) -> None:
    for threads in (1, 8):
        score_run(book, {**FLOAT, "threads": threads}, 0.4 / threads, 0.9, 0.8, 0.6)
    rows = rows_of(book.report(), TRADEOFF)
    assert {row["threads"] for row in rows if row["runtime"] != "-"} == {"1", "8"}


def test_weights_have_a_column_where_rows_look_alike(book: Book) -> None:
    other = {**FLOAT, "weights": {"name": "mine.pth", "sha256": "fedcba9876543210" * 4, "trained": True}}
    score_run(book, FLOAT, 0.4, 0.9, 0.8, 0.6)
    score_run(book, INT8, 0.1, 0.9, 0.8, 0.6)
    assert "weights" not in rows_of(book.report(), TRADEOFF)[1]
    score_run(book, other, 0.4, 0.7, 0.6, 0.5)
    rows = rows_of(book.report(), TRADEOFF)[1:]
    assert {row["weights"] for row in rows} == {"repvit.pth 0123456789ab", "mine.pth fedcba987654"}


def test_the_ellipse_of_an_earlier_run_stands_beside_a_later_one(book: Book) -> None:
    """It was not scored again: no model changes it."""
    book.scores(FLOOR, [0.6], run_id="run0")
    book.scores(FLOOR, [0.1], HIP, run_id="run0")
    for who in (FLOAT, INT8):
        book.parts(who, [0.4] * 6)
        book.scores(who, [0.9])
    floor, *_ = rows_of(book.report(), TRADEOFF)
    assert (floor["encoder"], floor["DSC, images"]) == ("box ellipse", "0.600")


def test_labels_of_volumes_are_counted_where_the_slowest_was_not_scored_on_them(book: Book) -> None:
    score_run(book, INT8, 0.1, 0.9, 0.8, 0.6)
    score_run(book, LOST, 0.05, 0.9, 0.8, 0.6)
    book.parts(FLOAT, [0.4] * 6)
    for case in (SKIN, HIP):
        book.scores(FLOAT, [0.9], case)
    assert "DSC: means over 2 images of 2 labels and 1 volume of 1 label, the same for all" in book.report()


def test_a_picture_of_many_labels_is_one_case(book: Book) -> None:
    """A hundred nuclei in one picture would outweigh all other images."""
    for who, nuclei in ((FLOAT, 0.9), (INT8, 0.8)):
        book.parts(who, [0.4] * 6)
        book.scores(who, [nuclei] * 100, SKIN)
        book.scores(who, [0.5], HIP)
    report = book.report()
    assert [row["DSC, images"] for row in rows_of(report, TRADEOFF)[1:]] == ["0.700", "0.650"]
    assert "DSC: means over 2 images of 101 labels," in report


@pytest.mark.parametrize(("gain", "told"), [(0.1, "repvit and tinyvit (images: differ)"), (0.0, "no difference shown")])
def test_encoders_are_told_apart_by_their_cases_alone(book: Book, gain: float, told: str) -> None:
    for who, more in ((candidate("tinyvit", trained=True), 0.0), (FLOAT, gain)):
        book.parts(who, [0.4] * 6)
        for number in range(8):
            name = f"case{number}"
            book.scores(who, [0.5 + more + number / 100], {**SKIN, "case_id": name, "sha256": name})
    assert f"DSC of the encoders in fp32, tested over cases: {told}." in book.report()


def test_a_case_of_many_labels_decides_nothing_alone(book: Book) -> None:
    """Of a hundred labels in one case of eight, all gains, and one loss each in the others."""
    for who, many_gain, loss in ((candidate("tinyvit", trained=True), 0.0, 0.0), (FLOAT, 0.01, 0.1)):
        book.parts(who, [0.4] * 6)
        for number in range(8):
            name, many = f"case{number}", number == 0
            dsc = 0.5 + (many_gain if many else -loss * (1 + number / 100))
            book.scores(who, [dsc] * (100 if many else 1), {**SKIN, "case_id": name, "sha256": name})
    assert "tested over cases: repvit and tinyvit (images: differ)." in book.report()


def test_accuracy_stands_beside_the_speed_of_the_same_run(book: Book) -> None:
    score_run(book, FLOAT, 0.4, 0.9, 0.8, 0.6)
    score_run(book, INT8, 0.1, 0.91, 0.79, 0.6)
    score_run(book, LOST, 0.05, 0.9, 0.8, 0.5)
    for case, dsc in ((SKIN, 0.7), (HIP, 0.6), (CT_0860, 0.4)):
        book.scores(FLOOR, [dsc], case)
    rows = rows_of(book.report(), TRADEOFF)
    shown = [
        (row["encoder"], row["precision"], row["encoder (ms)"], row["DSC, images"], row["DSC, volumes"]) for row in rows
    ]
    assert shown == [
        ("box ellipse", "-", "-", "0.650", "0.400"),
        ("repvit", "fp32", "400", "0.850", "0.600"),
        ("", "int8", "100", "0.850", "0.600"),
        ("", "int8", "50.0", "0.850", "0.500"),
    ]
    assert [row["worst set (points)"] for row in rows] == ["-", "-", "-1.00 XRay 2D (1)", "-10.00 CT phantom 3D (1)"]
    assert [row["speed-up"].split()[0] for row in rows] == ["-", "1.00x", "4.00x", "8.00x"]
    assert "DSC: means over 2 images of 2 labels and 1 drawn volume of 1 label" in book.report()


def test_a_sweep_that_was_gone_on_with_is_one(book: Book) -> None:
    """Stopped after the first case, in the middle of its candidates: what goes on times nothing again."""
    for who in (FLOAT, INT8):
        book.parts(who, [0.4] * 6)
    book.scores(FLOAT, [0.9])
    book.scores(INT8, [0.8], run_id="run2")
    for who, dsc in ((FLOAT, 0.5), (INT8, 0.4), (FLOOR, 0.3)):
        book.scores(who, [dsc], HIP, run_id="run2")
    book.scores(LOST, [0.1], HIP, run_id="run2")
    book.scores(INT8, [0.0], {**HIP, "case_id": "half done", "sha256": "half done"}, run_id="run2")
    text = book.report()
    assert [row["DSC, images"] for row in rows_of(text, TRADEOFF)] == ["0.300", "0.700", "0.600"]
    assert "Run run1: each candidate was timed in this one run, the same weights in the same runtimes" in text
    assert "scored in run1, run2: medians of 6 calls" in text


@pytest.mark.parametrize("timed_first", [True, False])
def test_a_sweep_that_was_stopped_before_its_first_score_is_one(book: Book, timed_first: bool) -> None:
    def time() -> None:
        for who in (FLOAT, INT8):
            book.parts(who, [0.4] * 6)

    if timed_first:
        time()
    for who in (FLOAT, INT8):
        book.scores(who, [0.9], run_id="run2")
    if not timed_first:
        time()
    assert [row["DSC, images"] for row in rows_of(book.report(), TRADEOFF)][1:] == ["0.900", "0.900"]


def test_scores_by_another_rule_are_another_sweeps(book: Book) -> None:
    """As many cases as there may be of it."""
    for who in (FLOAT, INT8):
        book.parts(who, [0.4] * 6)
        book.scores(who, [0.9], protocol={"overlap": "density"})
        for case in (SKIN, HIP):
            book.scores(who, [0.1], case, protocol={"overlap": "last"}, run_id="run2")
    assert [row["DSC, images"] for row in rows_of(book.report(), TRADEOFF)][1:] == ["0.900", "0.900"]


def test_cases_that_some_alone_were_scored_on_take_no_row_from_others(book: Book) -> None:
    """As where quantised ones alone were scored on more."""
    for who in (FLOAT, INT8, LOST):
        book.parts(who, [0.4] * 6)
        book.scores(who, [0.9])
    for who in (INT8, LOST):
        for number in range(9):
            name = f"case{number}"
            book.scores(who, [0.1], {**SKIN, "case_id": name, "sha256": name}, run_id="run2")
    assert [row["DSC, images"] for row in rows_of(book.report(), TRADEOFF)][1:] == ["0.900"] * 3


def test_random_weights_keep_no_case_from_trained_ones(book: Book) -> None:
    for who in (FLOAT, INT8, REPVIT):
        book.parts(who, [0.4] * 6)
        book.scores(who, [0.9])
    for who in (FLOAT, INT8):
        book.scores(who, [0.5], HIP, run_id="run2")
    assert [row["DSC, images"] for row in rows_of(book.report(), TRADEOFF)][1:] == ["0.700", "0.700"]


def test_a_candidate_that_joins_others_stands_beside_their_scores(book: Book) -> None:
    """Timed with them anew, but scored alone: theirs were there."""
    book.parts(FLOAT, [0.4] * 6)
    book.scores(FLOAT, [0.9])
    book.scores(FLOAT, [0.1], HIP)
    for who in (FLOAT, INT8):
        book.parts(who, [0.5] * 6, run_id="run2")
    book.scores(INT8, [0.8], run_id="run2")
    rows = rows_of(book.report(), TRADEOFF)[1:]
    assert [(row["encoder (ms)"], row["DSC, images"]) for row in rows] == [("500", "0.900"), ("500", "0.800")]


def test_volumes_are_of_the_defaults_where_a_script_scored_them_too(book: Book) -> None:
    """As `make demo` does: the script first, all labels by both."""
    for who in (FLOAT, INT8):
        book.parts(who, [0.4] * 6)
        book.scores(who, [0.2], CT_0860, protocol={"name": "per_object", **SCRIPT_RULE})
        book.scores(who, [0.6], CT_0860, protocol=protocol("batched", overlap="density"))
    text = book.report()
    assert [row["DSC, volumes"] for row in rows_of(text, TRADEOFF)][1:] == ["0.600", "0.600"]
    assert "the mean over its labels, volumes by batched. " in text


def test_volumes_are_not_of_what_goes_on_across_slices_where_others_were_scored_too(book: Book) -> None:
    """Whichever came first: times beside them are of the default."""
    for who in (FLOAT, INT8):
        book.parts(who, [0.4] * 6)
        book.scores(who, [0.9], CT_0860, protocol=protocol("multiplanar", overlap="density"))
        book.scores(who, [0.6], CT_0860, protocol=protocol("batched", overlap="density"))
    assert [row["DSC, volumes"] for row in rows_of(book.report(), TRADEOFF)][1:] == ["0.600", "0.600"]


def test_a_later_run_of_the_same_candidates_does_not_split_what_one_run_measured(book: Book) -> None:
    """Encoders that are timed again, and are the latest of their key, without accuracy."""
    score_run(book, FLOAT, 0.4, 0.9, 0.8, 0.6)
    score_run(book, INT8, 0.1, 0.9, 0.8, 0.6)
    for who in (FLOAT, INT8):
        book.parts(who, [9.0] * 6, run_id="run2")
    text = book.report()
    assert [row["encoder (ms)"] for row in rows_of(text, TRADEOFF)][1:] == ["400", "100"]
    assert "Run run1:" in text
    assert rows_of(text, "Encoders")[0]["encoder (ms), median [IQR]"].startswith("9000")


def test_of_several_runs_the_one_with_most_candidates_is_shown_and_of_equals_the_latest(book: Book) -> None:
    for run, seconds, candidates in (("a", 0.4, (FLOAT, INT8)), ("b", 0.5, (FLOAT, INT8)), ("c", 0.6, (FLOAT,))):
        for who in candidates:
            book.parts(who, [seconds] * 6, run_id=run)
            book.scores(who, [0.9], run_id=run)
    assert [row["encoder (ms)"] for row in rows_of(book.report(), TRADEOFF)][1:] == ["500", "500"]


def test_random_weights_have_no_row(book: Book) -> None:
    for who in (FLOAT, INT8, REPVIT, FLOOR):
        book.scores(who, [0.9])
    for who in (FLOAT, INT8, REPVIT):
        book.parts(who, [0.4] * 6)
    rows = rows_of(book.report(), TRADEOFF)
    assert [row["variant"] for row in rows] == ["-", "reparam", "int8-minmax-0a1b"]


def test_a_run_of_random_weights_does_not_hide_one_of_trained_ones(book: Book) -> None:
    for who in (FLOAT, INT8):
        book.parts(who, [0.4] * 6, run_id="trained")
        book.scores(who, [0.9], run_id="trained")
    for who in (REPVIT, TINYVIT, candidate("repvit", backend="openvino")):
        book.parts(who, [0.4] * 6, run_id="random")
        book.scores(who, [0.1], run_id="random")
    text = book.report()
    assert len(rows_of(text, TRADEOFF)) == 3
    assert "Worst set" in text
    assert "Updated:" not in text


def test_without_torch_the_slowest_float_is_the_reference(book: Book) -> None:
    slow, fast = (candidate("repvit", trained=True, backend=name) for name in ("onnxruntime", "openvino"))
    score_run(book, slow, 0.4, 0.9, 0.8, 0.6)
    score_run(book, fast, 0.2, 0.9, 0.8, 0.6)
    assert [row["speed-up"].split()[0] for row in rows_of(book.report(), TRADEOFF)][1:] == ["1.00x", "2.00x"]


def test_a_page_says_what_it_was_measured_on(book: Book, tmp_path: Path) -> None:
    score_run(book, FLOAT, 0.4, 0.9, 0.8, 0.6)
    score_run(book, INT8, 0.1, 0.9, 0.8, 0.6)
    page = tmp_path / "page.md"
    page.write_text("<!-- generated tables measured_on tradeoff by: me -->\n<!-- end -->\n")
    renew_page(page, [book.path])
    text = page.read_text()
    assert "Measured on Test CPU (avx2), 2 cores, 8 GiB;" in text
    assert "Weights: repvit.pth 0123456789ab." in text


def test_a_box_is_timed_as_segment_decodes_it(book: Book) -> None:
    """With a fovea, where a run has timed that."""
    for who, encode_s in ((FLOAT, 0.4), (INT8, 0.1)):
        book.parts(who, [encode_s] * 6)
        book.scores(who, [0.9])
    *_, row = rows_of(book.report(), TRADEOFF)
    assert (row["fast path, a box (ms)"], "fovea, a box (ms)" in row) == ("15.0", False)
    for who, encode_s in ((FLOAT, 0.4), (INT8, 0.1)):
        book.parts(who, [encode_s] * 6, foveated_s=0.02, run_id="run2")
        book.scores(who, [0.9], run_id="run2")
    *_, row = rows_of(book.report(), TRADEOFF)
    assert (row["fovea, a box (ms)"], "fast path, a box (ms)" in row) == ("5.00", False)


def test_what_clicks_made_of_a_candidate_is_not_what_it_scores(book: Book) -> None:
    """A later run of the same records has a third one, and scored the first two with clicks alone."""
    score_run(book, FLOAT, 0.4, 0.8, 0.8, 0.8)
    score_run(book, INT8, 0.1, 0.7, 0.7, 0.7)
    for who in (FLOAT, INT8, LOST):
        book.parts(who, [0.3] * 6, run_id="run2")
        for case in (SKIN, HIP):
            book.scores(who, [0.95], case, protocol={"clicks": 1}, run_id="run2")
    book.scores(LOST, [0.6], SKIN, run_id="run2")
    rows = rows_of(book.report(), TRADEOFF)
    assert [row["DSC, images"] for row in rows][1:] == ["0.800", "0.700", "0.600"]
