"""Comparing two sets of records: what is shown, what is not, and what a CI job is told."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from scipy.stats import wilcoxon

from cli import main
from reports.compare import NOT_SHOWN, compare
from tests.record_book import CT_0860, Book, candidate, protocol

WHO = candidate("repvit", trained=True)
STEADY = [1.00, 1.01, 0.99, 1.02, 0.98, 1.00, 1.01, 0.99]
NOISY = [0.6, 1.5, 0.9, 1.2, 0.7, 1.4, 1.1, 0.8]


def side(tmp_path: Path, name: str, encode_s: list[float], dsc: list[float], **fields: str) -> Path:
    book = Book(tmp_path / f"{name}.jsonl")
    book.parts(WHO, list(encode_s), run_id=name, **fields)
    book.scores(WHO, list(dsc), run_id=name, **fields)
    return book.path


DSC = [0.80, 0.70, 0.90, 0.60, 0.85, 0.75, 0.65, 0.95]


def test_a_latency_that_grew(tmp_path: Path) -> None:
    before = side(tmp_path, "before", STEADY, DSC)
    after = side(tmp_path, "after", [1.2 * s for s in STEADY], DSC)
    result = compare([before], [after])
    (row,) = result.latencies
    assert row.ratio.value == pytest.approx(1.2)
    assert row.verdict == "slower"
    assert result.failures(0.05, None) == ["encoder of repvit (reparam, torch fp32, 2 threads): 20.0 % slower"]
    assert result.failures(0.25, None) == []
    assert result.failures(None, None) == []
    assert compare([after], [before]).latencies[0].verdict == "faster"


def test_noise_is_no_difference(tmp_path: Path) -> None:
    before, after = side(tmp_path, "before", NOISY, DSC), side(tmp_path, "after", NOISY[::-1], DSC)
    result = compare([before], [after])
    assert result.latencies[0].verdict == NOT_SHOWN
    assert result.failures(0.0, 0.0) == []


def test_few_samples_show_nothing(tmp_path: Path) -> None:
    before, after = side(tmp_path, "before", [1.0, 1.0], DSC), side(tmp_path, "after", [9.0, 9.0], DSC)
    result = compare([before], [after])
    assert result.latencies[0].verdict == f"{NOT_SHOWN} (fewer than 6 samples)"
    assert result.failures(0.05, None) == []


def test_dsc_is_compared_label_by_label(tmp_path: Path) -> None:
    worse = [value - 0.01 * (1 + number) for number, value in enumerate(DSC)]
    before, after = side(tmp_path, "before", STEADY, DSC), side(tmp_path, "after", STEADY, worse)
    result = compare([before], [after])
    (row,) = result.accuracies
    assert row.labels == 8
    assert row.drop_points == pytest.approx(4.5)
    assert row.p_value == pytest.approx(float(wilcoxon(DSC, worse).pvalue))
    assert row.verdict == "worse"
    assert result.failures(None, 0.5) == ["repvit (reparam, torch fp32, 2 threads): 4.50 points of DSC lost"]
    assert compare([before], [before]).accuracies[0].verdict == NOT_SHOWN


def test_cases_are_paired_with_their_protocol(tmp_path: Path) -> None:
    paths = []
    for name, factor in (("before", 1.0), ("after", 0.5)):
        book = Book(tmp_path / f"{name}.jsonl")
        for index, seconds in enumerate(STEADY):
            book.one_pass(WHO, factor * seconds, protocol("cached"), index=index, run_id=name)
            book.one_pass(WHO, seconds, protocol("batched"), index=index, run_id=name)
        paths.append(book.path)
    verdicts = {row.what.rpartition(" ")[2]: row.verdict for row in compare(paths[:1], paths[1:]).latencies}
    assert verdicts == {"cached": "faster", "batched": NOT_SHOWN}


def test_other_rules_and_other_cases_are_not_the_same(tmp_path: Path) -> None:
    """Both sides call it `cached`: each has one protocol only."""
    one, other = Book(tmp_path / "one.jsonl"), Book(tmp_path / "other.jsonl")
    for book, rule in ((one, protocol("cached")), (other, protocol("cached", mask_value="label"))):
        book.parts(WHO, STEADY)
        book.one_pass(WHO, 1.0, rule)
    one.one_pass(WHO, 1.0, protocol("batched"))
    other.one_pass(WHO, 1.0, protocol("batched"), case={**CT_0860, "sha256": "other content"})
    result = compare([one.path], [other.path])
    assert [row.what for row in result.latencies] == ["encoder of repvit (reparam, torch fp32, 2 threads)"]
    assert [note.partition(":")[0] for note in result.unmatched] == [
        "2 latencies only before, not compared",
        "2 latencies only after, not compared",
    ]
    assert "only after" in result.to_markdown()


def test_candidates_that_look_alike_are_compared_by_their_weights(tmp_path: Path) -> None:
    sides = []
    for name, factor in (("before", 1.0), ("after", 2.0)):
        book = Book(tmp_path / f"{name}.jsonl")
        for sha256, of_weights in (("a" * 64, 1.0), ("b" * 64, factor)):
            who = {**WHO, "weights": {"name": "w", "sha256": sha256, "trained": True}}
            book.parts(who, [of_weights * seconds for seconds in STEADY], run_id=name)
        sides.append(book.path)
    assert {row.what.split()[-1][:2]: row.verdict for row in compare(sides[:1], sides[1:]).latencies} == {
        "aa": NOT_SHOWN,
        "bb": "slower",
    }


def test_undefined_scores_are_no_drop(tmp_path: Path) -> None:
    before, after = Book(tmp_path / "before.jsonl"), Book(tmp_path / "after.jsonl")
    before.scores(WHO, [0.8, None, 0.6])
    after.scores(WHO, [0.8, 0.1, None])
    (row,) = compare([before.path], [after.path]).accuracies
    assert (row.labels, row.before, row.after, row.verdict) == (1, 0.8, 0.8, NOT_SHOWN)


def test_other_machines_are_refused(tmp_path: Path) -> None:
    before, after = side(tmp_path, "before", STEADY, DSC), side(tmp_path, "after", STEADY, DSC, machine="m2")
    with pytest.raises(ValueError, match="machines m1 and m2; expected one machine, or --across-machines"):
        compare([before], [after])
    assert compare([before], [after], across_machines=True).latencies


def test_nothing_in_common(tmp_path: Path) -> None:
    one, other = Book(tmp_path / "one.jsonl"), Book(tmp_path / "other.jsonl")
    one.parts(candidate("repvit"), STEADY)
    other.parts(candidate("tinyvit"), STEADY)
    with pytest.raises(ValueError, match="no candidate and case that both sides measured"):
        compare([one.path], [other.path])


def test_command(tmp_path: Path) -> None:
    before = str(side(tmp_path, "before", STEADY, DSC))
    after = str(side(tmp_path, "after", [1.2 * s for s in STEADY], DSC))
    result = CliRunner().invoke(main, ["compare", before, after, "--fail-if-slower", "5%"])
    assert result.exit_code == 1
    assert "20.0 % slower" in result.output
    assert "| slower" in result.output
    assert CliRunner().invoke(main, ["compare", before, after, "--fail-if-slower", "30"]).exit_code == 0
    assert (
        "expected a percentage" in CliRunner().invoke(main, ["compare", before, after, "--fail-if-slower", "x"]).output
    )
