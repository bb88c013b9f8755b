"""Measuring: interleaving, counting, and the sweep that goes on."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from box_backend import BoxBackend
from sweeps import small_sources
from torch import nn

from bench.accuracy import measure_accuracy
from bench.candidate import Recipe
from bench.cold import MARK, cold_request, run_cold_pass
from bench.cost import count_macs, count_parameters
from bench.latency import PARTS, start_parts, warm_up
from bench.machine import describe_machine, git_state, package_versions, peak_rss_mib
from bench.progress import TerminalProgress
from bench.record import MEASUREMENTS, read_records
from bench.runner import Sweep
from bench.sweep_records import describe_case
from bench.timing import interleave
from zoo.data.case import Case
from zoo.data.cases import CaseSource, find_cases
from zoo.data.npz import save_challenge_npz
from zoo.data.phantom import load_phantom
from zoo.encoders.tinyvit import WindowAttention
from zoo.sam.rule import PUBLISHED_3D, Protocol2D, Protocol3D


def test_interleave_goes_round_by_round() -> None:
    calls: list[str] = []
    samples = interleave({name: lambda n=name: calls.append(n) for name in "abc"}, rounds=3, warmup=1)  # type: ignore[misc]
    assert calls[:6] == list("aabbcc")
    assert calls[6:] == list("aabbccbbccaaccaabb")
    assert all(len(s.seconds) == 3 and s.first_s >= 0 for s in samples.values())


def test_both_decoders_are_warm_before_a_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    paths: list[str] = []
    for path in ("encode", "decode", "decode_boxes", "decode_foveated"):
        run = getattr(BoxBackend, path)
        monkeypatch.setattr(
            BoxBackend, path, lambda *given, path=path, run=run: paths.append(f"{path} {len(given) - 1}") or run(*given)
        )
    warm_up(BoxBackend(), masks=False)
    assert {"encode 1", "decode 2", "decode_boxes 2", "decode_boxes 3", "decode_foveated 3"} <= set(paths)
    assert "decode_foveated 4" not in paths, "no masks beside boxes where none will be"
    warm_up(BoxBackend(), masks=True)
    assert "decode_foveated 4" in paths


def test_each_part_is_timed_by_its_own_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fovea of the box that a random embedding is decoded for: the middle half of both."""
    seen: list[object] = []
    monkeypatch.setattr(BoxBackend, "decode_foveated", lambda self, embedding, boxes, windows: seen.append(windows))
    calls = start_parts(BoxBackend(), warmup=0).calls
    assert tuple(calls) == PARTS
    seen.clear()
    calls["decode_foveated"]()
    (windows,) = seen
    assert np.asarray(windows).tolist() == [[16, 16, 48, 48]] * 4


def test_macs_by_hand() -> None:
    """A 3x3 convolution of 4 to 8 channels on 5x5 and a linear layer: both counters must agree to the last product."""
    convolution = nn.Conv2d(4, 8, 3, padding=1, bias=False)
    macs = count_macs(convolution, torch.zeros(1, 4, 5, 5))
    assert macs.macs == macs.second_macs == 5 * 5 * 8 * 4 * 9
    assert count_parameters(convolution) == 8 * 4 * 9


def test_attention_is_not_counted_as_zero() -> None:
    """q k^T and the product with v, 2 heads of 8 channels over 9 positions, beside the two projections."""
    macs = count_macs(WindowAttention(16, 2, 3).eval(), torch.zeros(1, 9, 16))
    products = 2 * 9 * 9 * (8 + 8)
    linear = 9 * 16 * 48 + 9 * 16 * 16
    assert macs.second_macs == products + linear
    assert macs.macs == pytest.approx(products + linear, rel=0.1)
    assert macs.macs >= products + linear


def test_counting_leaves_the_module_as_it_was() -> None:
    layer = nn.Linear(3, 3)
    layer.bias.requires_grad_(False)
    count_macs(layer, torch.zeros(1, 3))
    assert layer.weight.requires_grad
    assert not layer.bias.requires_grad


def test_machine_is_described_the_same_twice() -> None:
    machine = describe_machine()
    assert machine["id"] == describe_machine()["id"]
    assert machine["cores"] >= 1
    assert package_versions()["torch"] in (torch.__version__.split("+")[0], torch.__version__)
    assert peak_rss_mib() > 50
    state = git_state()
    assert state is None or len(state["commit"]) == 40


def test_macs_of_one_family_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """`platform` calls all of them `arm`, so that records of two would be one machine's."""
    said = SimpleNamespace(stdout="Apple M3\n")
    monkeypatch.setattr("bench.machine.platform.system", lambda: "Darwin")
    monkeypatch.setattr("bench.machine.subprocess.run", lambda *_, **__: said)
    monkeypatch.setattr("bench.machine._first_cpu", lambda text: {})
    monkeypatch.setattr("bench.machine._gpu", lambda: None)
    assert describe_machine.__wrapped__()["cpu"] == "Apple M3"


def test_accuracy_of_the_labels_themselves_is_one() -> None:
    case = load_phantom("ct2d")
    assert case.labels is not None
    scores = measure_accuracy(case, case.labels)
    assert scores["dsc"] == [1.0] * 5
    assert scores["nsd"] == [1.0] * 5
    nothing = measure_accuracy(case, np.zeros_like(case.labels))
    assert nothing["dsc"] == [0.0] * 5


def test_a_sweep_measures_everything_once(sweep: Sweep) -> None:
    sources = small_sources("mr3d", "mr2d")
    sweep.run(sources)
    records = list(read_records([sweep.out], strict=True))
    kinds = [(r.kind, r.case and r.case["case_id"], r.protocol and r.protocol.get("name", "image")) for r in records]
    volume, image = "phantom_mr3d", "phantom_mr2d"
    assert sorted(map(str, kinds)) == sorted(
        map(
            str,
            [("cost", None, None), ("latency", None, None)]
            + [("accuracy", case, None) for case in (volume, image)]
            + [("accuracy", image, "image")]
            + [("accuracy", volume, name) for name in ("cached", "batched")]
            + [("latency", volume, name) for name in ("cached", "batched")] * 3
            + [("latency", image, "image")] * 3,
        )
    )
    assert sweep.failures == 0
    assert {record.run_id for record in records} == {sweep.run_id}
    for record in records:
        form = {"latency": "latency of a case" if record.case else "latency of parts"}.get(record.kind, record.kind)
        assert record.measurements.keys() <= {*MEASUREMENTS[form]}

    again = replace(sweep, run_id="again")
    again.run(sources)
    assert list(read_records([sweep.out])) == records, "finished work is not repeated"
    assert again.skipped == len(records)
    more = replace(sweep, run_id="more", settings=replace(sweep.settings, passes=4))
    more.run(sources)
    assert more.skipped == len(records), "what is looked for in each pass is counted once"


def test_a_published_script_is_named_as_it_was_asked_for(sweep: Sweep) -> None:
    protocols = (Protocol3D("cached", **PUBLISHED_3D), Protocol3D("cached"))
    replace(sweep, settings=replace(sweep.settings, protocols=protocols, passes=1)).run(small_sources("mr3d"))
    told = [line for line in sweep.progress.started if "pass 1/1" in line]  # type: ignore[attr-defined]
    assert [line.split(",")[-2].split()[-1] for line in told] == ["rep_medsam", "cached"]


def test_a_timed_pass_reads_no_labels_and_is_scored(
    sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = load_phantom("mr2d")
    save_challenge_npz(case, tmp_path / "2DBox_MR_a.npz")
    with_labels: list[bool] = []
    load = CaseSource.load

    def spy(source: CaseSource, **options: Any) -> Case:
        loaded = load(source, **options)
        with_labels.append(loaded.labels is not None)
        return loaded

    monkeypatch.setattr(CaseSource, "load", spy)
    sweep.run(find_cases(str(tmp_path / "2DBox_MR_a.npz")))
    assert with_labels == [True, False, False], "once to describe and score it, then two timed passes"
    (scored,) = [r for r in read_records([sweep.out]) if r.kind == "accuracy" and "weights" in r.candidate]
    assert scored.measurements["labels"] == case.object_labels.tolist()


def test_a_torn_record_is_measured_again(sweep: Sweep) -> None:
    sources = small_sources("mr2d")
    sweep.run(sources)
    before = len(list(read_records([sweep.out])))
    sweep.out.write_bytes(sweep.out.read_bytes()[:-40])
    replace(sweep).run(sources)
    assert len(list(read_records([sweep.out]))) == before


@pytest.mark.parametrize(("zoom", "encoded"), [(True, 2), (False, 1)])
def test_a_fresh_process_goes_by_the_rule_it_is_told(
    zoom: bool, encoded: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two small objects far apart in a large image lie in two tiles of it."""
    boxes = np.array([[0, 0, 20, 20], [480, 480, 500, 500]])
    case = Case("a", "CT", np.zeros((512, 512, 3), np.uint8), boxes, np.array([1, 2], np.uint16), (1.0, 1.0))
    asked = cold_request(Recipe("repvit"), {}, Protocol2D(zoom=zoom)) | {"called_at_s": time.perf_counter() - 7}
    request = json.loads(json.dumps(asked))
    run_cold_pass(request, lambda recipe: BoxBackend(), lambda reference: case)
    measured = json.loads(capsys.readouterr().out.partition(MARK)[2])
    assert measured["encoded_slices"] == encoded
    assert 7 < measured["startup_s"] < measured["total_s"], "start-up counts from the call"


def test_what_is_held_is_not_warmed_up_again(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    """A finished sweep of a thousand cases is read through in seconds."""
    warmed: list[object] = []
    monkeypatch.setattr("bench.runner.warm_up", lambda *_, **__: warmed.append(None))
    sweep = replace(sweep, settings=replace(sweep.settings, cold=False, passes=1))
    for number, tolerance_mm in enumerate((2.0, 2.0, 1.0)):
        again = replace(sweep, settings=replace(sweep.settings, tolerance_mm=tolerance_mm), run_id=str(number))
        again.run(small_sources("mr2d"))
        assert len(warmed) == [1, 1, 2][number], "at another tolerance masks are scored anew"
    records = [record for record in read_records([sweep.out], strict=True) if record.case]
    tolerances = [r.measurements["tolerance_mm"] for r in records if r.kind == "accuracy" and "weights" in r.candidate]
    assert tolerances == [2.0, 1.0]
    assert len([record for record in records if record.kind == "latency"]) == 1


def test_a_task_that_takes_long_says_where_it_is_where_there_is_no_bar(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("bench.progress.LINE_EVERY_S", 0.0)
    with TerminalProgress() as progress:
        advance = progress.start("segmenting a", 3)
        for _ in range(3):
            advance()
    lines = [line.split("] ")[1] for line in capsys.readouterr().err.splitlines() if "]" in line]
    assert lines == ["segmenting a", "segmenting a: 1 of 3", "segmenting a: 2 of 3"]


def test_the_peak_is_measured_with_those_it_is_a_measure_of(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.runner.measure_peak", lambda threads, on_call: {"fp32_s": [0.1]})
    sweep = replace(sweep, settings=replace(sweep.settings, calibrate=True, passes=0, cold=False))
    sweep.run([])
    sweep.run([])
    other = replace(sweep, recipes=[*sweep.recipes, Recipe("another")], run_id="other")
    other.run([])
    replace(sweep, settings=replace(sweep.settings, rounds=2), run_id="longer").run([])
    peaks = [record for record in read_records([sweep.out], strict=True) if record.kind == "peak"]
    assert [record.run_id for record in peaks] == [sweep.run_id, "other", "longer"]
    assert peaks[0].candidate == {"threads": 2, "cpus": None}


def test_an_installation_that_was_cut_off_does_not_hide_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken-1.0.dist-info").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    assert package_versions.__wrapped__()["numpy"] == np.__version__


def test_a_modality_that_a_candidate_was_not_calibrated_with_is_told_of_once(sweep: Sweep) -> None:
    settings = replace(sweep.settings, passes=0, cold=False)
    sweep = replace(sweep, settings=settings, recipes=[Recipe("light_repvit_m0_9", calibrated_with=("CT",))])
    sweep.run(small_sources("mr2d", "ct2d", "mr3d"))
    (told,) = sweep.progress.messages  # type: ignore[attr-defined]
    assert told.startswith("light_repvit_m0_9 (reparam, torch fp32): MR is none of the modalities")


def test_without_rounds_only_cases_are_timed(sweep: Sweep) -> None:
    settings = replace(sweep.settings, rounds=0, passes=1, cold=False)
    replace(sweep, settings=settings, recipes=[Recipe("light_repvit_m0_9")]).run(small_sources("mr2d"))
    timed = [record for record in read_records([sweep.out], strict=True) if record.kind == "latency"]
    assert [record.case and record.case["case_id"] for record in timed] == ["phantom_mr2d"]


def test_a_case_is_known_by_its_content() -> None:
    case = load_phantom("mr2d")
    other = replace(case, boxes=case.boxes + 1)
    assert describe_case(case)["sha256"] != describe_case(other)["sha256"]
    assert describe_case(case)["sha256"] == describe_case(replace(case, case_id="x"))["sha256"]
