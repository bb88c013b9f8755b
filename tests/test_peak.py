"""The machine's peak: what is measured, shares by hand, and machines side by side."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from record_book import REPVIT, TINYVIT, Book, candidate, rows_of

import bench.calibrate
from bench.calibrate import FP32, SIDE, calibration_calls, measure_peak, product_model
from bench.timing import Samples

REPVIT_BF16 = candidate("repvit", precision="bf16")


def peak(book: Book, fp32_s: float = 0.1, who: dict[str, Any] | None = None, **fields: Any) -> None:
    measurements = {
        "fp32_s": [fp32_s] * 3,
        "bf16_s": None,
        "int8_s": [0.05] * 3,
        "stream_s": [0.02] * 3,
        "product_macs": 10_000_000_000,
        "stream_bytes": 200_000_000,
    }
    book.add("peak", who or {"threads": 2}, measurements, **fields)


@pytest.fixture
def book(tmp_path: Path) -> Book:
    return Book(tmp_path / "records.jsonl")


def test_shares_by_hand(book: Book) -> None:
    peak(book)
    book.cost(REPVIT, gmacs=31.1)
    book.parts(REPVIT, [0.622])
    text = book.report()
    assert "100 [100, 100]" in text, "10 GMAC in 0.1 s"
    assert "200 [200, 200]" in text, "int8"
    assert "10.0 [10.0, 10.0]" in text, "0.2 GB in 0.02 s"
    shares = book.csv("shares", formats=["csv"])
    assert shares["what"].tolist() == ["encoder", "decoder, one box"]
    assert shares["gmacs_per_s"].tolist() == pytest.approx([50.0, 1.82 / 0.08])
    assert shares["of_peak"].tolist() == pytest.approx([0.5, 0.2275])
    assert re.search(r"\| +50 \|", text)
    assert (book.path.parent / "report" / "roofline.png").is_file()


def test_a_share_is_of_the_peak_of_its_own_run(book: Book) -> None:
    """The machine drifts; without a calibration of its own a run has the latest."""
    for run_id, fp32_s in (("run1", 0.1), ("run2", 0.2)):
        peak(book, fp32_s, run_id=run_id, key=run_id)
    for run_id, who in (("run1", REPVIT), ("run2", TINYVIT), ("run3", candidate("edge_sam"))):
        book.cost(who, gmacs=31.1)
        book.parts(who, [0.622], run_id=run_id)
    shares = book.csv("shares", formats=["csv"])
    encoders = shares[shares["what"] == "encoder"].set_index("candidate_encoder")["of_peak"].to_dict()
    assert encoders == pytest.approx({"repvit": 0.5, "tinyvit": 1.0, "edge_sam": 1.0})
    assert [row["run"] for row in rows_of(book.report(), "What this machine can do")] == ["run1", "run2"]


def test_pinned_cores_have_a_peak_of_their_own(book: Book) -> None:
    peak(book)
    pinned = candidate("repvit", cpus=[0, 1])
    book.cost(pinned)
    book.parts(pinned, [0.622])
    assert book.csv("shares", formats=["csv"])["of_peak"].isna().all()
    peak(book, 0.2, who={"threads": 2, "cpus": [0, 1]})
    assert book.csv("shares", formats=["csv"])["of_peak"].tolist()[0] == pytest.approx(1.0)


def test_other_precisions_and_threads_have_no_share(book: Book) -> None:
    peak(book)
    for who in (REPVIT_BF16, candidate("repvit", threads=8), candidate("repvit", backend="cuda")):
        book.cost(who)
        book.parts(who, [0.622])
    assert book.csv("shares", formats=["csv"])["of_peak"].isna().all()


def test_ratios_of_different_runs_are_marked_between_machines_too(book: Book) -> None:
    for machine in ("m1", "m2"):
        book.parts(TINYVIT, [1.0], machine=machine)
        book.parts(REPVIT, [0.5], machine=machine, run_id="run2" if machine == "m2" else "run1")
    row = next(line for line in book.report().splitlines() if line.startswith("| repvit") and line.count(" ms, ") == 2)
    assert "500 ms, 2.00x |" in row
    assert "500 ms, 2.00x u |" in row


def test_of_several_weights_the_fastest_is_shown(book: Book) -> None:
    others = candidate("repvit", trained=True)
    for machine in ("m1", "m2"):
        for who, seconds in ((TINYVIT, 1.0), (REPVIT, 0.5), (others, 0.8)):
            book.parts(who, [seconds], machine=machine)
    (row,) = [line for line in book.report().splitlines() if line.startswith("| repvit") and line.count(" ms, ") == 2]
    assert row.count("500 ms, 2.00x") == 2


def test_no_calibration_no_tables(book: Book) -> None:
    book.cost(REPVIT)
    book.parts(REPVIT, [1.0])
    assert "peak" not in book.report()


def test_machines_stand_side_by_side_by_ratio(book: Book) -> None:
    for machine, factor in (("m1", 1.0), ("m2", 3.0)):
        peak(book, 0.1 * factor, machine=machine)
        for who, seconds in ((REPVIT, 0.622), (TINYVIT, 1.244)):
            book.cost(who, machine=machine)
            book.parts(who, [seconds * factor], machine=machine)
    text = book.report()
    row = next(line for line in text.splitlines() if line.startswith("| repvit") and "of peak" in line)
    assert "622 ms, 2.00x, 50 % of peak" in row
    assert "1866 ms, 2.00x, 50 % of peak" in row


@pytest.mark.parametrize(("of_a", "of_b", "exact"), [("uint8", "int8", np.int64), ("float32", "float32", np.float64)])
def test_products_are_products(of_a: str, of_b: str, exact: type[np.generic]) -> None:
    rng = np.random.default_rng(0)
    a = rng.integers(0, 256, (SIDE, SIDE)).astype(of_a)
    b = rng.integers(-64, 64, (SIDE, SIDE)).astype(of_b)
    model = product_model(a.dtype, b.dtype).SerializeToString()
    (product,) = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"]).run(None, {"a": a, "b": b})
    assert np.array_equal(product[:3], a[:3].astype(exact) @ b.astype(exact))


@pytest.mark.parametrize("faster", FP32)
def test_the_peak_is_the_faster_librarys(monkeypatch: pytest.MonkeyPatch, faster: str) -> None:
    def timed(calls: dict[str, object], *_: object) -> dict[str, Samples]:
        return {name: Samples(9.0, [1.0 if name == faster else 2.0, 9.0, 1.0]) for name in calls}

    monkeypatch.setattr(bench.calibrate, "SIDE", 8)
    monkeypatch.setattr(bench.calibrate, "interleave", timed)
    found = measure_peak(1)
    assert found["fp32_s"] == [1.0, 9.0, 1.0]
    assert not set(FP32) & found.keys()


def test_measuring(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench.calibrate, "SIDE", 64)
    monkeypatch.setattr(bench.calibrate, "STREAM_LENGTH", 1000)
    calls: list[None] = []
    found = measure_peak(1, rounds=2, on_call=lambda: calls.append(None))
    assert len(calls) == calibration_calls(2)
    assert found["product_macs"] == 64**3
    assert found["stream_bytes"] == 12_000
    assert all(len(found[name]) == 2 and min(found[name]) > 0 for name in ("fp32_s", "int8_s", "stream_s"))
    assert found["bf16_s"] is None or len(found["bf16_s"]) == 2


@pytest.mark.parametrize("measured", [False, True])
def test_bf16_is_left_out_where_it_is_emulated(monkeypatch: pytest.MonkeyPatch, measured: bool) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: measured)
    monkeypatch.setattr(bench.calibrate, "SIDE", 8)
    monkeypatch.setattr(bench.calibrate, "STREAM_LENGTH", 8)
    assert (measure_peak(1, rounds=1)["bf16_s"] is not None) is measured


@pytest.mark.parametrize(("precision", "decoder_peak"), [("int8", 100), ("int8+bf16", np.nan)])
def test_a_quantised_encoder_is_held_against_integers_and_its_decoder_against_floats(
    book: Book, precision: str, decoder_peak: float
) -> None:
    peak(book)
    who = candidate("repvit", precision=precision)
    book.cost(who, gmacs=30.0)
    book.parts(who, [0.3])
    of_peak = book.csv("shares", formats=["csv"]).set_index("what")["of_peak"]
    assert of_peak["encoder"] == pytest.approx(30.0 / 0.3 / 200)
    assert of_peak["decoder, one box"] == pytest.approx(1.82 / 0.08 / decoder_peak, nan_ok=True)
