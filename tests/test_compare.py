"""Comparing two sets of records: what is shown, what is not, and what a CI job is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from record_book import CT_0860, SKIN, Book, candidate, protocol
from scipy.stats import wilcoxon

from cli import main
from reports.compare import compare
from reports.paired import MIXED, NOT_SHOWN, TOO_FEW_CASES

WHO = candidate("repvit", trained=True)
STEADY = [1.00, 1.01, 0.99, 1.02, 0.98, 1.00, 1.01, 0.99]
NOISY = [0.6, 1.5, 0.9, 1.2, 0.7, 1.4, 1.1, 0.8]


def side(tmp_path: Path, name: str, encode_s: list[float], dsc: list[float], **fields: str) -> Path:
    book = Book(tmp_path / f"{name}.jsonl")
    book.parts(WHO, list(encode_s), run_id=name, **fields)
    for number, value in enumerate(dsc):
        book.scores(WHO, [value], numbered(number), run_id=name, **fields)
    return book.path


def numbered(number: int) -> dict[str, Any]:
    """A case of its own."""
    return {**SKIN, "case_id": f"skin{number}", "sha256": str(number)}


def scored(path: Path, dsc: list[list[float]]) -> Path:
    """Records of cases with several labels."""
    book = Book(path)
    for number, labels in enumerate(dsc):
        book.scores(WHO, list(labels), numbered(number))
    return path


DSC = [0.80, 0.70, 0.90, 0.60, 0.85, 0.75, 0.65, 0.95]


def test_a_latency_that_grew(tmp_path: Path) -> None:
    before = side(tmp_path, "before", STEADY, DSC)
    after = side(tmp_path, "after", [1.2 * s for s in STEADY], DSC)
    result = compare([before], [after])
    (row, *_) = result.latencies
    assert row.ratio.value == pytest.approx(1.2)
    assert row.verdict == "slower"
    assert result.failures(0.05, None) == ["encoder of repvit (reparam, torch fp32, 2 threads): 20.0 % slower"]
    assert result.failures(0.25, None) == []
    assert result.failures(None, None) == []
    assert compare([after], [before]).latencies[0].verdict == "faster"


def test_a_decoder_that_grew(tmp_path: Path) -> None:
    for name, foveated_s in (("before", 0.02), ("after", 0.06)):
        Book(tmp_path / f"{name}.jsonl").parts(WHO, list(STEADY), foveated_s)
    result = compare([tmp_path / "before.jsonl"], [tmp_path / "after.jsonl"])
    (row,) = [row for row in result.latencies if row.verdict == "slower"]
    assert (row.what.partition(" of ")[0], row.before_s) == ("fovea, a box,", 0.02 / 4)


def test_a_process_that_is_slow_from_start_to_end_is_no_change(tmp_path: Path) -> None:
    """One run a side cannot tell; of several, each with its own speed, no difference is shown."""
    speeds = {"before": (1.0, 1.2, 1.05), "after": (1.2, 1.0, 1.1)}
    runs = {
        name: [side(tmp_path, f"{name}{turn}", [speed * s for s in STEADY], DSC) for turn, speed in enumerate(of_side)]
        for name, of_side in speeds.items()
    }
    alone = compare(runs["before"][:1], runs["after"][:1])
    assert (alone.latencies[0].verdict, alone.latencies[0].runs) == ("slower", 1)
    assert "Fewer than 3 runs a side" in alone.to_markdown()
    assert "Fewer than 3 runs a side" in compare(runs["before"][:2], runs["after"]).to_markdown()
    together = compare(runs["before"], runs["after"])
    assert (together.latencies[0].verdict, together.latencies[0].runs) == (NOT_SHOWN, 3)
    assert together.latencies[0].ratio.n == 3 * len(STEADY), "records of equal keys do not replace each other"
    assert together.failures(0.05, 0.5) == []
    assert "Fewer than" not in together.to_markdown()


def test_a_change_that_all_runs_show(tmp_path: Path) -> None:
    before = [
        side(tmp_path, f"before{turn}", [speed * s for s in STEADY], []) for turn, speed in enumerate((1.0, 1.05))
    ]
    after = [side(tmp_path, f"after{turn}", [speed * s for s in STEADY], []) for turn, speed in enumerate((1.3, 1.25))]
    (row, *_) = compare(before, after).latencies
    assert row.verdict == "slower"
    assert row.ratio.low == pytest.approx(1.25 / 1.05, rel=0.05)
    assert row.ratio.high == pytest.approx(1.3, rel=0.05)


def test_a_file_that_is_there_twice_counts_once(tmp_path: Path) -> None:
    before, after = side(tmp_path, "before", STEADY, DSC), side(tmp_path, "after", STEADY, DSC)
    copies = [path.with_name(f"copied_{path.name}") for path in (before, after)]
    for path, copied in zip((before, after), copies, strict=True):
        copied.write_bytes(path.read_bytes())
    (row, *_) = compare([before, copies[0]], [after, copies[1]]).latencies
    assert (row.ratio.n, row.runs) == (len(STEADY), 1)


def test_cold_passes_are_compared_beside_warm_ones(tmp_path: Path) -> None:
    passes = {"before": {"cold": 9.0, "warm": 1.0}, "after": {"cold": 99.0, "warm": 2.0}}
    books = {name: Book(tmp_path / f"{name}.jsonl") for name in passes}
    for name, seconds in passes.items():
        for temperature in ("cold", "warm"):
            books[name].one_pass(WHO, seconds[temperature], protocol("cached"), temperature=temperature, run_id=name)
    cold, warm = compare([books["before"].path], [books["after"].path]).latencies
    assert (warm.before_s, warm.after_s) == (1.0, 2.0)
    assert (cold.before_s, cold.after_s) == (9.0, 99.0)
    assert [row.what.endswith(", cold") for row in (cold, warm)] == [True, False]


def test_noise_is_no_difference(tmp_path: Path) -> None:
    before, after = side(tmp_path, "before", NOISY, DSC), side(tmp_path, "after", NOISY[::-1], DSC)
    result = compare([before], [after])
    assert result.latencies[0].verdict == NOT_SHOWN
    assert result.failures(0.0, 0.0) == []


def test_few_samples_show_nothing(tmp_path: Path) -> None:
    before, after = side(tmp_path, "before", [1.0, 1.0], DSC), side(tmp_path, "after", [9.0, 9.0], DSC)
    result = compare([before], [after])
    assert result.latencies[0].verdict == f"{NOT_SHOWN} (fewer than 6 samples)"
    (told,) = result.failures(0.05, None)
    assert "no latency with the 6 samples" in told, "a gate that nothing was held against is not passed"


def test_dsc_is_compared_label_by_label(tmp_path: Path) -> None:
    worse = [value - 0.01 * (1 + number) for number, value in enumerate(DSC)]
    before, after = side(tmp_path, "before", STEADY, DSC), side(tmp_path, "after", STEADY, worse)
    result = compare([before], [after])
    (row,) = result.accuracies
    assert (row.difference.labels, row.difference.cases) == (8, 8)
    assert row.drop_points == pytest.approx(4.5)
    assert row.difference.p_value == pytest.approx(float(wilcoxon(DSC, worse).pvalue))
    assert row.verdict == "worse"
    told = "4.50 points of DSC lost (worst set: Dermoscopy 2D)"
    assert result.failures(None, 0.5) == [f"repvit (reparam, torch fp32, 2 threads): {told}"]
    assert compare([before], [before]).accuracies[0].verdict == NOT_SHOWN


def test_a_case_counts_once_however_many_labels_it_has(tmp_path: Path) -> None:
    """Five cases became worse, label for label; the labels of a case are no witnesses of each other."""
    before = scored(tmp_path / "before.jsonl", [[0.8] * 20] * 8)
    five = scored(tmp_path / "five.jsonl", [[0.7 - 0.01 * n] * 20 for n in range(5)] + [[0.8] * 20] * 3)
    six = scored(tmp_path / "six.jsonl", [[0.7 - 0.01 * n] * 20 for n in range(6)] + [[0.8] * 20] * 2)
    (row,) = compare([before], [five]).accuracies
    assert (row.difference.labels, row.difference.cases, row.verdict) == (160, 8, TOO_FEW_CASES)
    assert compare([before], [six]).accuracies[0].verdict == "worse"
    one = scored(tmp_path / "one.jsonl", [[0.1] * 20])
    assert compare([before], [one]).accuracies[0].verdict == TOO_FEW_CASES


def test_many_small_gains_and_few_collapses_are_neither_better_nor_worse(tmp_path: Path) -> None:
    before = side(tmp_path, "before", STEADY, [0.9] * 40)
    after = side(tmp_path, "after", STEADY, [0.91 + 0.0001 * n for n in range(38)] + [0.1, 0.1])
    result = compare([before], [after])
    (row,) = result.accuracies
    assert row.difference.p_value < 0.001
    assert row.drop_points > 2
    assert row.verdict == MIXED
    assert "<0.001" in result.to_markdown()
    assert result.failures(None, 0.5), "the mean is judged all the same"
    assert compare([after], [before]).accuracies[0].verdict == MIXED


def test_labels_of_one_side_alone_are_told(tmp_path: Path) -> None:
    before = scored(tmp_path / "before.jsonl", [[0.8, 0.7, 0.6], [0.9]])
    after = scored(tmp_path / "after.jsonl", [[0.8, 0.7]])
    result = compare([before], [after])
    assert result.accuracies[0].difference.labels == 2
    assert result.unmatched == ("2 labels only before, not compared: repvit (reparam, torch fp32, 2 threads) (2).",)
    with pytest.raises(ValueError, match="no candidate and case that both sides measured"):
        compare([before], [scored(tmp_path / "none.jsonl", [[None]])])  # type: ignore[list-item]


@pytest.mark.parametrize("latest_first", [False, True])
def test_of_two_versions_of_a_runtime_the_later_run_counts(tmp_path: Path, latest_first: bool) -> None:
    before, after = Book(tmp_path / "before.jsonl"), Book(tmp_path / "after.jsonl")
    for version, day, factor in sorted([("2", 1, 4.0), ("3", 2, 1.0)], reverse=latest_first):
        who, when = {**WHO, "backend_version": version}, f"2026-01-0{day}T00:00:00.000+00:00"
        before.parts(who, [factor * s for s in STEADY], run_id=f"run{version}", time_utc=when)
        before.one_pass(who, factor, protocol("cached"), run_id=f"run{version}", time_utc=when)
    after.parts({**WHO, "backend_version": "4"}, STEADY, run_id="after")
    after.one_pass(WHO, 1.0, protocol("cached"), run_id="after")
    assert {row.ratio.value for row in compare([before.path], [after.path]).latencies} == {1.0}
    assert {row.ratio.value for row in compare([after.path], [before.path]).latencies} == {1.0}


def test_weights_are_named_on_both_sides_where_one_has_several(tmp_path: Path) -> None:
    before, after = Book(tmp_path / "before.jsonl"), Book(tmp_path / "after.jsonl")
    of_weights = [{**WHO, "weights": {"name": "w", "sha256": letter * 64, "trained": True}} for letter in "ab"]
    for who in of_weights:
        before.parts(who, STEADY)
    renamed = {**of_weights[1], "weights": {**of_weights[1]["weights"], "name": "another name"}}
    after.parts(renamed, STEADY)
    (row, *_) = compare([before.path], [after.path]).latencies
    assert row.what.endswith("bbbbbbbbbbbb")


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
    assert {row.what.partition(" of ")[2] for row in result.latencies} == {"repvit (reparam, torch fp32, 2 threads)"}
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
    encoders = [row for row in compare(sides[:1], sides[1:]).latencies if row.what.startswith("encoder")]
    assert {row.what.split()[-1][:2]: row.verdict for row in encoders} == {"aa": NOT_SHOWN, "bb": "slower"}


def test_undefined_scores_are_no_drop(tmp_path: Path) -> None:
    before, after = Book(tmp_path / "before.jsonl"), Book(tmp_path / "after.jsonl")
    before.scores(WHO, [0.8, None, 0.6])
    after.scores(WHO, [0.8, 0.1, None])
    (row,) = compare([before.path], [after.path]).accuracies
    assert (row.difference.labels, row.before, row.after, row.verdict) == (1, 0.8, 0.8, NOT_SHOWN)


def test_other_machines_are_refused(tmp_path: Path) -> None:
    before, after = side(tmp_path, "before", STEADY, DSC), side(tmp_path, "after", STEADY, DSC, machine="m2")
    with pytest.raises(ValueError, match="machines m1 and m2; expected one machine, or --across-machines"):
        compare([before], [after])
    assert compare([before], [after], across_machines=True).latencies


def test_of_several_machines_each_is_named(tmp_path: Path) -> None:
    for name, machines in (("before", "ac"), ("after", "ab")):
        for machine in machines:
            side(tmp_path, f"{name}_{machine}", STEADY, DSC, machine=machine)
    paths = [sorted(tmp_path.glob(f"{name}*")) for name in ("before", "after")]
    alone = ("Machine c, not compared: on one side only.", "Machine b, not compared: on one side only.")
    shared = compare(*paths)
    assert shared.unmatched == alone
    assert {row.what.partition(" of ")[0] for row in shared.latencies} >= {"encoder"}
    everything = compare(*paths, across_machines=True)
    assert everything.unmatched == ()
    encoders = [row.what.partition(": ")[0] for row in everything.latencies if "encoder of" in row.what]
    assert sorted(encoders) == ["a", "c and b"], "a machine that both sides have is compared with itself alone"
    assert sorted(row.what.partition(": ")[0] for row in everything.accuracies) == sorted(encoders)


@pytest.mark.parametrize("first", ["2024", "2025"])
def test_scores_of_two_versions_of_a_runtime_are_not_mixed(tmp_path: Path, first: str) -> None:
    """The later version was scored on one of the cases."""
    before = Book(tmp_path / "before.jsonl")
    for number in range(2):
        before.scores(WHO, [0.5], numbered(number))
    after = Book(tmp_path / "after.jsonl")
    second = {"2024": "2025", "2025": "2024"}[first]
    for number in range(2):
        after.scores({**WHO, "backend_version": first}, [0.9], numbered(number))
    after.scores({**WHO, "backend_version": second}, [0.6], numbered(0))
    (row,) = compare([before.path], [after.path]).accuracies
    assert (row.after, row.difference.labels) == (pytest.approx(0.6), 1)


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
    for option, value, expected in (
        ("--fail-if-slower", "x", "a percentage such as 5%"),
        ("--fail-if-slower", "nan", "a percentage such as 5%"),
        ("--fail-if-slower", "-5%", "a percentage such as 5%"),
        ("--fail-if-dsc-drop", "nan", "a number of points such as 5"),
        ("--fail-if-dsc-drop", "inf", "a number of points such as 5"),
    ):
        refused = CliRunner().invoke(main, ["compare", before, after, option, value])
        assert refused.exit_code == 2
        assert f"found '{value}'; expected {expected}" in refused.output
    assert CliRunner().invoke(main, ["compare", before, after, "--fail-if-dsc-drop", "0.5"]).exit_code == 0


def test_warm_passes_are_not_compared_with_cold_ones(tmp_path: Path) -> None:
    before, after = Book(tmp_path / "before.jsonl"), Book(tmp_path / "after.jsonl")
    for run in range(6):
        before.one_pass(WHO, 1.0, protocol("cached"), run_id=f"b{run}")
        after.one_pass(WHO, 9.0, protocol("cached"), temperature="cold", run_id=f"a{run}")
    with pytest.raises(ValueError, match="no candidate and case that both sides measured"):
        compare([before.path], [after.path])
    for book in (before, after):
        book.parts(WHO, [0.1] * 6)
    found = compare([before.path], [after.path])
    assert [row.what.partition(" of ")[0] for row in found.latencies] == [
        "encoder",
        "decoder, one box,",
        "fast path, a box,",
    ]
    assert [", cold" in line for line in sorted(found.unmatched, key=lambda line: "only before" in line)] == [
        True,
        False,
    ]


def test_a_set_that_collapses_is_not_hidden_by_the_labels_of_others(tmp_path: Path) -> None:
    """Six volumes lose 20 points; two pictures of 200 labels each stay as they are."""
    paths = []
    for name, dsc in (("before", 0.8), ("after", 0.6)):
        book = Book(tmp_path / f"{name}.jsonl")
        for number in range(6):
            book.scores(WHO, [dsc], {**CT_0860, "case_id": f"scan{number}", "sha256": f"scan{number}"})
        for number in range(2):
            book.scores(WHO, [0.9] * 200, numbered(number))
        paths.append(book.path)
    result = compare(paths[:1], paths[1:])
    (row,) = result.accuracies
    assert 100 * (row.before - row.after) == pytest.approx(100 * 6 * 0.2 / 406)
    assert (row.worst_set, row.worst_difference, row.worst_cases) == ("CT 3D", pytest.approx(-0.2), 6)
    assert result.failures(None, 0.5) == [f"{row.what}: 20.0 points of DSC lost (worst set: CT 3D)"]
    assert "-20.00 CT 3D (6)" in result.to_markdown()


def test_what_failed_after_does_not_pass_a_limit(tmp_path: Path) -> None:
    before, after = (Book(side(tmp_path, name, STEADY, DSC)) for name in ("before", "after"))
    told = {"type": "RuntimeError", "message": "crash"}
    for book in (before, after):
        book.add("error", WHO, {"kind": "latency"}, case=numbered(0), error=told)
    assert compare([before.path], [after.path]).failures(0.05, 0.5) == [], "it had failed before"
    after.add("error", WHO, {"kind": "latency"}, case=numbered(1), error=told)
    result = compare([before.path], [after.path])
    expected = "1 measurements that failed after, not compared: repvit skin1 (crash)."
    assert (result.failures(0.05, None), result.failures(None, 0.5)) == ([expected], [expected])
    assert result.failures(None, None) == []
    assert f"- {expected}" in result.to_markdown()
