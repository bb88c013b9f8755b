"""The table of what failed, and whether it was measured since."""

from __future__ import annotations

from record_book import CT_0860, REPVIT, Book, candidate, protocol, rows_of

from bench.candidate import Recipe


def test_failures_are_listed_and_do_not_break_a_table(book: Book) -> None:
    told = {"type": "InputError", "message": "a.npz: found a|b\nexpected c"}
    book.add("error", {}, {}, case={"case_id": "broken", "source": "broken.npz"}, error=told)
    book.add("error", REPVIT, {}, key="again", error=told)
    book.parts(REPVIT, [1.0], key="again")
    case, again = rows_of(book.report(), "Failures")
    assert (case["case"], case["candidate"], case["error"]) == ("broken", "-", "InputError")
    assert case["message"] == "a.npz: found a\\|b expected c"
    assert (case["measured since"], again["measured since"]) == ("no", "yes")
    assert (again["candidate"], len(rows_of(book.report(), "Encoders"))) == (
        "repvit, reparam, torch, fp32, 2 threads",
        1,
    )


def test_a_pass_that_failed_is_not_measured_by_another(book: Book) -> None:
    """A cold one that was ended for want of memory, before warm ones that were not; each attempt is told of."""
    told = {"type": "RuntimeError", "message": "killed"}
    cold = {"kind": "latency", "temperature": "cold"}
    rule = protocol("batched")
    for number in range(2):
        book.add("error", REPVIT, cold, case=CT_0860, protocol=rule, error=told, key="cold", run_id=f"run{number}")
    book.one_pass(REPVIT, 1.0, rule)
    text = book.report()
    assert [row["measured since"] for row in rows_of(text, "Failures")] == ["no"]
    assert [(row["run"], row["failures"]) for row in rows_of(text, "Runs")] == [("run0", "1"), ("run1", "1")]
    book.one_pass(REPVIT, 1.0, rule, temperature="cold")
    assert [row["measured since"] for row in rows_of(book.report(), "Failures")] == ["yes"]


def test_a_warm_pass_that_failed_is_not_measured_by_the_next(book: Book) -> None:
    which = {"kind": "latency", "temperature": "warm", "pass_index": 0}
    book.add("error", REPVIT, which, case=CT_0860, protocol=protocol("batched"), error={"type": "E", "message": "m"})
    for index, since in ((1, "no"), (0, "yes")):
        book.one_pass(REPVIT, 1.0, protocol("batched"), index=index)
        assert [row["measured since"] for row in rows_of(book.report(), "Failures")] == [since]


def test_what_could_not_be_made_was_measured_since(book: Book) -> None:
    """A candidate that could not be made has no hash of its weights, and no version of its runtime."""
    told = {"type": "RuntimeError", "message": "no such thing"}
    unmade = Recipe("repvit").as_record()
    asked = Recipe("repvit", "lost.pth", backend="openvino").as_record()
    for who in (unmade, asked):
        book.add("error", who, {}, error=told)
    assert [row["measured since"] for row in rows_of(book.report(), "Failures")] == ["no", "no"]
    book.parts(REPVIT, [1.0])
    book.parts(candidate("repvit", backend="openvino"), [1.0])
    assert [row["measured since"] for row in rows_of(book.report(), "Failures")] == ["yes", "no"]
