"""The table that a page begins with: volumes by each encoder's fastest way."""

from __future__ import annotations

from record_book import CT_0860, SKIN, Book, candidate, protocol, rows_of

from reports.headline import TITLE as HEADLINE
from reports.rules import SCRIPT_RULE

TINYVIT, REPVIT = candidate("tinyvit"), candidate("repvit")


def test_each_volume_has_a_row_with_the_fastest_way_of_each_encoder(book: Book) -> None:
    int8 = candidate("repvit", backend="openvino", precision="int8")
    for who, total_s, name in (
        (TINYVIT, 60.0, "per_object"),
        (TINYVIT, 30.0, "batched"),
        (REPVIT, 12.0, "cached"),
        (int8, 4.0, "batched"),
        (int8, 5.0, "cached"),
    ):
        book.one_pass(who, total_s, protocol(name))
    book.one_pass(TINYVIT, 1.0, case=SKIN)
    text = book.report()
    assert rows_of(text, HEADLINE) == [
        {
            "case": "phantom_3DBox_CT_0860",
            "shape": "246x512x512",
            "objects": "1",
            "baseline (s)": "60.0",
            "updated (s)": "12.0 (5.00x), quoted 2.66x",
            "tinyvit (s)": "30.0 (2.00x) torch fp32",
            "repvit (s)": "4.00 (15.0x) openvino int8",
        }
    ]
    assert "Baseline: tinyvit, torch, fp32, per_object." in text


def test_what_is_quoted_of_a_whole_volume_is_marked_beside_a_cut_one(book: Book) -> None:
    cut = {**CT_0860, "shape": [16, 512, 512], "sha256": "cut"}
    for case in (CT_0860, cut):
        book.one_pass(TINYVIT, 60.0, protocol("per_object"), case)
        book.one_pass(REPVIT, 12.0, protocol("cached"), case)
    text = book.report()
    cells = {row["shape"]: row["updated (s)"] for row in rows_of(text, HEADLINE)}
    assert cells == {"246x512x512": "12.0 (5.00x), quoted 2.66x", "16x512x512": "12.0 (5.00x), quoted 2.66x *"}
    assert "\\* of the whole published case" in text


def test_what_goes_by_the_updated_scripts_rule_is_what_it_does(book: Book) -> None:
    """Where its way was gone by another rule, too."""
    book.one_pass(TINYVIT, 60.0, protocol("per_object"))
    book.one_pass(REPVIT, 20.0, protocol("cached"))
    book.one_pass(REPVIT, 12.0, {**SCRIPT_RULE, "name": "cached"})
    assert rows_of(book.report(), HEADLINE)[0]["updated (s)"] == "12.0 (5.00x), quoted 2.66x"


def test_cold_passes_do_not_stand_among_warm_ones(book: Book) -> None:
    book.one_pass(TINYVIT, 60.0, protocol("per_object"))
    book.one_pass(REPVIT, 12.0, protocol("cached"), temperature="cold")
    assert HEADLINE not in book.report(), "of warm ones there is one encoder's alone"


def test_a_case_of_cold_passes_alone_does_not_make_warm_ones_cold(book: Book) -> None:
    for who, rule in ((TINYVIT, "per_object"), (REPVIT, "batched")):
        book.one_pass(who, 12.0, protocol(rule))
        book.one_pass(who, 30.0, protocol(rule), {**CT_0860, "case_id": "b", "sha256": "b"}, temperature="cold")
    text = book.report()
    assert [row["baseline (s)"] for row in rows_of(text, HEADLINE)] == ["12.0"]
    assert "- Medians of 1 passes." in text
    assert "- 1 more volume was timed" in text


def test_a_table_of_cold_passes_says_so(book: Book) -> None:
    for who, rule in ((TINYVIT, "per_object"), (REPVIT, "batched")):
        book.one_pass(who, 12.0, protocol(rule), temperature="cold")
    text = book.report()
    assert rows_of(text, HEADLINE)[0]["repvit (s)"] == "12.0 (1.00x) torch fp32"
    assert "Medians of 1 cold passes." in text


def test_what_the_headline_leaves_out_is_told(book: Book) -> None:
    for who, rule in ((TINYVIT, "per_object"), (REPVIT, "batched")):
        book.one_pass(who, 12.0, protocol(rule))
        book.one_pass(who, 2.0, protocol("batched"), {**CT_0860, "case_id": "other", "sha256": "other"})
        book.one_pass({**who, "threads": 4}, 1.0, protocol(rule))
    text = book.report()
    assert len(rows_of(text, HEADLINE)) == 1
    assert (
        "- 1 more volume was timed with fewer encoders or protocols, or cold alone: see the table of 3D cases.\n"
        in text
    )
    assert "- Rows of other numbers of threads than the baseline's are in that table, too.\n" in text


def test_threads_are_not_mixed(book: Book) -> None:
    for threads, factor in ((1, 1.0), (8, 0.2)):
        book.one_pass({**TINYVIT, "threads": threads}, 100 * factor, protocol("per_object"))
        book.one_pass({**REPVIT, "threads": threads}, 50 * factor, protocol("cached"))
    (row,) = rows_of(book.report(), HEADLINE)
    assert (row["baseline (s)"], row["repvit (s)"]) == ("100", "50.0 (2.00x) torch fp32")


def test_what_another_run_timed_is_marked(book: Book) -> None:
    book.one_pass(TINYVIT, 60.0, protocol("per_object"))
    book.one_pass(REPVIT, 12.0, protocol("batched"), run_id="run2")
    assert rows_of(book.report(), HEADLINE)[0]["repvit (s)"] == "12.0 (5.00x u) torch fp32"


def test_what_was_timed_beside_the_baseline_comes_first(book: Book) -> None:
    book.one_pass(TINYVIT, 60.0, protocol("per_object"))
    book.one_pass(REPVIT, 12.0, protocol("cached"))
    book.one_pass(REPVIT, 10.0, protocol("batched"), run_id="run2")
    assert rows_of(book.report(), HEADLINE)[0]["repvit (s)"] == "12.0 (5.00x) torch fp32"


def test_one_encoder_alone_makes_no_headline(book: Book) -> None:
    book.one_pass(REPVIT, 12.0, protocol("cached"))
    assert HEADLINE not in book.report()
