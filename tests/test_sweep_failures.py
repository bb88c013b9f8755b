"""A sweep of which something fails: it goes on, and a record tells of what failed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sweeps import build, small_sources

from bench.candidate import Candidate, Recipe
from bench.record import read_records
from bench.runner import Sweep
from zoo.data.cases import find_cases


def test_a_runtime_that_fails_in_a_later_round_does_not_end_the_sweep(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise MemoryError("in round 7")

    monkeypatch.setattr("bench.runner.measure_parts", fail)
    sweep.run(small_sources("mr2d"))
    records = list(read_records([sweep.out], strict=True))
    (lost,) = [record for record in records if record.kind == "error"]
    assert lost.error is not None
    assert (lost.error["type"], lost.case) == ("MemoryError", None)
    assert [record.kind for record in records].count("latency") == 1 + 2, "cold and warm passes of the image"


def test_a_candidate_that_fails_at_its_first_call_stops_no_other(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    """As torch.compile does without a compiler; a rerun finds the others timed, and tries the one again."""

    def refuse(*_: object) -> None:
        raise RuntimeError("no compiler")

    def build_both(recipe: Recipe) -> Candidate:
        made = build(recipe)
        if recipe.encoder == "late":
            monkeypatch.setattr(made.backend, "decode", refuse)
        return made

    recipes = [Recipe("late"), Recipe("light_repvit_m0_9")]
    sweep = replace(sweep, recipes=recipes, build=build_both, settings=replace(sweep.settings, cold=False))
    sweep.run(small_sources("mr2d"))
    records = list(read_records([sweep.out], strict=True))
    (failed,) = [record for record in records if record.error]
    assert (failed.candidate["encoder"], failed.error["message"]) == ("late", "no compiler")
    timed = {record.candidate["encoder"] for record in records if record.kind == "latency"}
    assert timed == {"light_repvit_m0_9"}
    again = replace(sweep, run_id="again")
    again.run(small_sources("mr2d"))
    more = list(read_records([sweep.out]))[len(records) :]
    assert [record.kind for record in more] == ["error"]
    assert again.failures == 1


def test_a_candidate_that_memory_has_no_room_for_is_told_of(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the system ends the process, and all that were started are timed."""
    sweep = replace(sweep, recipes=[Recipe("light_repvit_m0_9"), Recipe("another")])
    free_gib = iter([8, 8, 8, 1])  # before each of the two is built, and before each is started
    monkeypatch.setattr(
        "psutil.virtual_memory", lambda: SimpleNamespace(available=next(free_gib) * 2**30, total=16 * 2**30)
    )
    sweep.run([])
    records = list(read_records([sweep.out], strict=True))
    (failed,) = [record for record in records if record.error]
    assert failed.candidate["encoder"] == "another"
    assert failed.error is not None
    assert failed.error["message"].startswith("found 1.0 of 16.0 GiB of memory available; expected more")
    assert [record.candidate["encoder"] for record in records if record.kind == "latency"] == ["light_repvit_m0_9"]


def test_a_candidate_that_no_longer_runs_is_told_of_case_by_case(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its parts were timed in an earlier run."""
    sweep.run([])
    made = build(sweep.recipes[0])
    monkeypatch.setattr(made.backend, "encode", lambda images: 1 / 0)
    again = replace(sweep, build=lambda recipe: made, settings=replace(sweep.settings, cold=False))
    again.run(small_sources("mr2d"))
    (failed,) = [record for record in read_records([sweep.out]) if record.error]
    assert failed.case is not None
    assert failed.case["case_id"] == "phantom_mr2d"


def test_what_cannot_be_made_is_told_apart(sweep: Sweep) -> None:
    recipes = [
        Recipe("broken"),
        Recipe("broken", threads=1),
        Recipe("broken", "folder/w.pth"),
        Recipe("broken", cpus=(0,)),
    ]
    replace(sweep, recipes=recipes).run([])
    records = list(read_records([sweep.out]))
    assert len({record.key for record in records}) == 4
    assert records[2].candidate == {
        "encoder": "broken",
        "weights": {"name": "w.pth"},
        "variant": "reparam",
        "backend": "torch",
        "precision": "fp32",
        "threads": 2,
        "cpus": None,
    }


def test_failures_are_records_and_the_sweep_goes_on(sweep: Sweep, tmp_path: Path) -> None:
    (tmp_path / "bad.npz").write_bytes(b"no archive")
    sources = find_cases(str(tmp_path / "bad.npz")) + small_sources("mr2d")
    sweep = replace(sweep, recipes=[Recipe("broken"), Recipe("light_repvit_m0_9")])
    sweep.run(sources)
    records = list(read_records([sweep.out], strict=True))
    errors = [record.error["message"] for record in records if record.error]
    assert len(errors) == sweep.failures == 2
    assert errors[0] == "no such thing"
    assert "bad.npz: found no readable npz archive" in errors[1]
    assert any(r.kind == "accuracy" and "weights" in r.candidate for r in records)
    assert len(sweep.progress.messages) == 2  # type: ignore[attr-defined]


def test_every_pass_that_fails_is_a_record_of_its_own(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any, **__: Any) -> Any:
        raise RuntimeError("killed")

    monkeypatch.setattr("bench.runner.run_case", fails)
    sweep = replace(sweep, cold_run=fails, settings=replace(sweep.settings, passes=2))
    sweep.run(small_sources("mr2d"))
    failed = [record for record in read_records([sweep.out], strict=True) if record.error]
    asked = [
        {"kind": "latency", "temperature": "cold"},
        {"kind": "latency", "temperature": "warm", "pass_index": 0},
        {"kind": "latency", "temperature": "warm", "pass_index": 1},
    ]
    assert [record.measurements for record in failed] == asked
    assert len({record.key for record in failed}) == 3
    monkeypatch.undo()
    replace(sweep, run_id="again").run(small_sources("mr2d"))
    measured = {record.key for record in read_records([sweep.out], strict=True) if not record.error}
    assert {record.key for record in failed[1:]} <= measured, "the keys of what they failed to measure"
    monkeypatch.undo()
    cold = replace(sweep, cold_run=lambda *_: {"total_s": 1.0}, run_id="cold")
    cold.run(small_sources("mr2d"))
    assert failed[0].key in {record.key for record in read_records([sweep.out]) if not record.error}


def test_a_peak_and_a_floor_that_fail_stop_nothing_else(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any, **__: Any) -> Any:
        raise MemoryError("no room")

    monkeypatch.setattr("bench.runner.measure_peak", fails)
    monkeypatch.setattr("bench.runner.ellipse_segmentation", fails)
    sweep = replace(sweep, settings=replace(sweep.settings, calibrate=True, passes=1))
    sweep.run(small_sources("mr2d"))
    records = list(read_records([sweep.out], strict=True))
    assert [record.error["message"] for record in records if record.error] == ["no room"] * 2
    assert any(record.kind == "accuracy" for record in records)
