"""Recommending a candidate: limits, the Pareto front, and what cannot be said."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from record_book import CT_0860, FLOOR, SKIN, Book, candidate, protocol

from bench import machine
from cli import main
from reports.recommend import NOT_SHARED, SEVERAL_RUNS, recommend

SLOW, FAST, WORSE = (candidate(name, trained=True) for name in ("slow", "fast", "worse"))


@pytest.fixture
def book(tmp_path: Path) -> Book:
    """A box among others takes 15 ms in all of them; `worse` is slower than `fast` and less accurate."""
    book = Book(tmp_path / "records.jsonl")
    for who, encode_s, dsc in ((SLOW, 0.4, 0.9), (FAST, 0.1, 0.8), (WORSE, 0.2, 0.7)):
        book.parts(who, [encode_s] * 8)
        book.scores(who, [dsc, dsc])
    book.scores(FLOOR, [0.6, 0.6])
    return book


def chosen(book: Book, max_latency_s: float = float("inf"), min_dsc: float = 0.0) -> str | None:
    best, _ = recommend([book.path], "m1", max_latency_s, min_dsc)
    return best and best.candidate.encoder


def test_the_most_accurate_within_the_limit(book: Book) -> None:
    assert chosen(book) == "slow"
    assert chosen(book, max_latency_s=0.416) == "slow", "0.4 s of the encoder and 0.06 s of four boxes"
    assert chosen(book, max_latency_s=0.41) == "fast"
    assert chosen(book, max_latency_s=0.41, min_dsc=0.85) is None
    assert chosen(book, max_latency_s=0.1) is None


def test_a_box_is_timed_as_it_is_decoded_by_default_where_all_were(book: Book) -> None:
    for who, encode_s in ((SLOW, 0.4), (FAST, 0.1)):
        book.parts(who, [encode_s] * 8, foveated_s=0.02)
    assert "encoder + a box among others (ms)" in recommend([book.path], "m1", float("inf"), 0.0)[1]
    assert chosen(book, max_latency_s=0.406) == "fast", "one has no time with a fovea"
    book.parts(WORSE, [0.2] * 8, foveated_s=0.02)
    assert "encoder + a box with a fovea (ms)" in recommend([book.path], "m1", float("inf"), 0.0)[1]
    assert chosen(book, max_latency_s=0.406) == "slow"


def test_the_table_tells_what_is_dominated(book: Book) -> None:
    _, table = recommend([book.path], "m1", float("inf"), 0.0)
    on_front = {line.split("|")[2].strip(): "yes" in line for line in table.splitlines()[2:] if "|" in line}
    assert on_front == {"fast": True, "worse": False, "slow": True}


def test_what_was_not_timed_is_not_on_the_front(book: Book) -> None:
    encoder_alone = {"encode_s": [0.01] * 8, "encode_first_s": 1.0, "decode_s": [], "input_px": 256}
    untimed = candidate("untimed", trained=True)
    book.add("latency", untimed, encoder_alone)
    book.scores(untimed, [0.99, 0.99])
    _, table = recommend([book.path], "m1", float("inf"), 0.0)
    assert [line for line in table.splitlines() if "untimed" in line and "yes" in line] == []


def test_the_table_says_what_its_means_go_over(book: Book) -> None:
    book.scores(WORSE, [1.0] * 20, CT_0860, protocol=protocol("batched"))
    _, table = recommend([book.path], "m1", float("inf"), 0.0)
    assert "DSC: mean over 1 case of 2 labels, which all rows with a DSC share; of each case" in table


def test_drawn_cases_count_where_no_real_one_was_scored(book: Book) -> None:
    for who, dsc in ((SLOW, 0.1), (FAST, 0.2), (WORSE, 1.0)):
        for number in range(4):
            drawn = {**SKIN, "case_id": f"skin_synthetic_{number}", "sha256": f"{number}"}
            book.scores(who, [dsc, dsc], drawn)
    assert chosen(book) == "slow"
    for who in (SLOW, FAST):
        book.scores(who, [0.5] * 20, CT_0860, protocol=protocol("batched"))
    book.scores(WORSE, [0.5] * 20, CT_0860, protocol=protocol("batched"))
    _, table = recommend([book.path], "m1", float("inf"), 0.0)
    assert "DSC: mean over 2 cases of 22 labels (1 of them drawn, no real ones)" in table


def test_records_without_a_timed_encoder(tmp_path: Path) -> None:
    book = Book(tmp_path / "records.jsonl")
    book.scores(SLOW, [0.9])
    with pytest.raises(ValueError, match="found no timed encoder; expected those of bench with --rounds above 0"):
        recommend([book.path], "m1", float("inf"), 0.0)


def test_candidates_that_look_alike_are_told_apart(book: Book) -> None:
    assert "weights" not in recommend([book.path], "m1", float("inf"), 0.0)[1]
    newer = {**FAST, "backend_version": "3"}
    book.parts(newer, [0.1] * 6, run_id="later")
    _, table = recommend([book.path], "m1", float("inf"), 0.0)
    assert [row.count("fast.pth 0123456789ab") for row in table.splitlines() if "| fast" in row] == [1, 1]
    assert "3" in {cell.strip() for cell in table.split("|")}
    assert SEVERAL_RUNS in table


def test_random_weights_are_chosen_by_speed_alone(tmp_path: Path) -> None:
    book = Book(tmp_path / "records.jsonl")
    for name, encode_s in (("slow", 0.4), ("fast", 0.1)):
        book.parts(candidate(name), [encode_s] * 8)
        book.scores(candidate(name), [0.9])
    assert chosen(book) == "fast"
    assert chosen(book, min_dsc=0.5) is None, "random weights have no accuracy"


def test_accuracy_is_compared_on_labels_that_all_have(book: Book) -> None:
    """`worse` has an easy case of its own, and volumes that the others lack."""
    easy = {**SKIN, "case_id": "easy", "sha256": "easy"}
    book.scores(WORSE, [1.0] * 20, easy)
    book.scores(WORSE, [1.0] * 20, CT_0860, protocol=protocol("batched"))
    assert chosen(book) == "slow"
    _, table = recommend([book.path], "m1", float("inf"), 0.0)
    assert "| 0.700 " in next(line for line in table.splitlines() if "worse" in line)


def test_accuracies_of_different_labels_are_not_compared(tmp_path: Path) -> None:
    book = Book(tmp_path / "records.jsonl")
    for who, encode_s, case in ((SLOW, 0.4, SKIN), (FAST, 0.1, {**SKIN, "case_id": "other", "sha256": "other"})):
        book.parts(who, [encode_s] * 8)
        book.scores(who, [0.9], case)
    best, table = recommend([book.path], "m1", float("inf"), 0.0)
    assert best is not None
    assert best.candidate.encoder == "fast", "by speed alone"
    assert NOT_SHARED in table


def test_nothing_is_compared_where_only_one_shares_with_two_others(tmp_path: Path) -> None:
    book = Book(tmp_path / "records.jsonl")
    other = {**SKIN, "case_id": "other", "sha256": "other"}
    for who, cases in ((SLOW, [SKIN]), (WORSE, [SKIN, other]), (FAST, [other])):
        book.parts(who, [0.1] * 8)
        for case in cases:
            book.scores(who, [0.9], case)
    _, table = recommend([book.path], "m1", float("inf"), 0.0)
    assert NOT_SHARED in table


def test_records_of_another_machine_are_no_advice(book: Book) -> None:
    with pytest.raises(ValueError, match="found those of m1; expected some of this machine, m2"):
        recommend([book.path], "m2", float("inf"), 0.0)


def test_command(book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "describe_machine", lambda: {"id": "m1"})
    result = CliRunner().invoke(main, ["recommend", str(book.path), "--max-latency", "200"])
    assert result.exit_code == 0, result.output
    assert result.output.splitlines()[-1] == "fast (reparam) in torch 2 fp32, weights fast.pth 0123456789ab"
    result = CliRunner().invoke(main, ["recommend", str(book.path), "--min-dsc", "0.95"])
    assert result.exit_code == 1
    assert "no candidate is within the limits" in result.output
