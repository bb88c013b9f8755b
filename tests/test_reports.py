"""Reports: what is read from records, compared with what, written how; and what must never be shown."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from bench.record import Record, append_record, record_key
from reports.accuracy import RANDOM
from reports.cases import PROCESS_NOTE
from reports.published import HEADING, read_published
from reports.render import readme_block, render_report
from reports.tables import markdown_table, significant

ROOT = Path(__file__).parent.parent
MACHINE = {"id": "m1", "cpu": "Test CPU", "cores": 2, "isa": ["avx2"], "memory_gib": 8, "os": "Linux x86_64"}
FLOOR = {"encoder": "box ellipse"}
CT_0860 = {
    "case_id": "phantom_3DBox_CT_0860",
    "modality": "CT",
    "shape": [246, 512, 512],
    "objects": 1,
    "spacing_mm": [2.0, 1.0, 1.0],
    "source": "phantom",
    "sha256": "c860",
}
SKIN = {**CT_0860, "case_id": "skin", "modality": "Dermoscopy", "shape": [64, 80], "objects": 3, "sha256": "c2d"}


def candidate(encoder: str, *, trained: bool = False, **fields: Any) -> dict[str, Any]:
    weights = {
        "name": f"{encoder}.pth" if trained else "random:0",
        "sha256": "0123456789abcdef" * 4,
        "trained": trained,
    }
    known = {"variant": "reparam", "backend": "torch", "backend_version": "2", "precision": "fp32", "threads": 2}
    return {"encoder": encoder, "weights": weights, **known, **fields}


def protocol(name: str, **options: Any) -> dict[str, Any]:
    return {"name": name, "z_range": "inclusive", "mask_value": "binary", **options}


class Book:
    """A records file that a test fills."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.written = 0

    def add(self, kind: Any, who: dict[str, Any], measurements: dict[str, Any], **fields: Any) -> str:
        """Appends a record and returns its key."""
        machine = {**MACHINE, "id": fields.pop("machine", "m1")}
        case, rule = fields.get("case"), fields.get("protocol")
        extra = {name: measurements[name] for name in ("temperature", "pass_index") if name in measurements}
        key = fields.pop("key", record_key(kind, who, machine["id"], case, rule, **extra))
        self.written += 1
        time_utc = fields.pop("time_utc", f"2026-01-01T00:00:00.{self.written:03}+00:00")
        known = {"run_id": "run1", "git": {"commit": "c0ffee" * 6, "dirty": True}, "packages": {"torch": "2.6"}}
        filled: dict[str, Any] = {**known, **fields}
        append_record(self.path, Record(kind, who, measurements, machine, key=key, time_utc=time_utc, **filled))
        return key

    def cost(self, who: dict[str, Any], gmacs: float = 31.1, second: float | None = 31.1, **fields: Any) -> None:
        measurements = {
            "encoder_params": 6_460_000,
            "decoder_params": 4_060_000,
            "encoder_gmacs": gmacs,
            "decoder_gmacs": 1.82,
            "encoder_gmacs_second_counter": second,
            "input_px": 256,
            "uncounted_operators": {"aten::gelu": 62},
        }
        self.add("cost", who, measurements, **fields)

    def parts(self, who: dict[str, Any], encode_s: list[float | None], **fields: Any) -> None:
        decode_s = [0.08] * len(encode_s)
        measurements = {"encode_s": encode_s, "encode_first_s": 1.5, "decode_s": decode_s, "input_px": 256}
        measurements |= {"decode_boxes_s": [0.06] * len(encode_s), "boxes": 4}
        self.add("latency", who, measurements, **fields)

    def one_pass(
        self,
        who: dict[str, Any],
        total_s: float | None,
        rule: dict[str, Any] | None = None,
        case: dict[str, Any] = CT_0860,
        index: int = 0,
        temperature: str = "warm",
        process_s: float | None = None,
        **fields: Any,
    ) -> None:
        measurements = {
            "temperature": temperature,
            "pass_index": index,
            "load_s": 1.0,
            "preprocess_s": 1.0,
            "encode_s": 5.0,
            "decode_s": 2.0,
            "postprocess_s": 1.0,
            "total_s": total_s,
            "encoded_slices": 246,
            "decoded_prompts": 246,
            "startup_s": 4.0 if temperature == "cold" else None,
            "process_s": process_s,
            "peak_rss_mib": 900.4 if temperature == "cold" else None,
        }
        self.add("latency", who, measurements, case=case, protocol=rule, **fields)

    def scores(self, who: dict[str, Any], dsc: list[float | None], case: dict[str, Any] = SKIN, **fields: Any) -> None:
        count = len(dsc)
        measurements = {"labels": list(range(1, count + 1)), "dsc": dsc, "nsd": dsc, "voxels": [9] * count}
        self.add("accuracy", who, {**measurements, "tolerance_mm": 2.0}, case=case, **fields)

    def report(self, out: Path | None = None, **options: Any) -> str:
        return render_report([self.path], out, **options)

    def csv(self, name: str, **options: Any) -> pd.DataFrame:
        """One of the report's tables, unrounded."""
        out = self.path.parent / "report"
        self.report(out, **options)
        return pd.read_csv(out / f"{name}.csv")


@pytest.fixture
def book(tmp_path: Path) -> Book:
    return Book(tmp_path / "records.jsonl")


@pytest.fixture(autouse=True)
def _no_figures(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Drawing takes most of the time of a small report; the tests of figures ask for it."""
    if "figures" not in request.node.name:
        monkeypatch.setattr("reports.plots.draw_figures", lambda *_, **__: [])


TINYVIT, REPVIT = candidate("tinyvit"), candidate("repvit")


def rows_of(text: str, heading: str) -> list[dict[str, str]]:
    """The markdown table below a heading, as rows of stripped cells."""
    lines = text.split(f"# {heading}\n", 1)[1].split("\n#", 1)[0].splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split(" |")] for line in lines if line.startswith("|")]
    return [dict(zip(cells[0], row, strict=True)) for row in cells[2:]]


# Encoders


def test_encoder_table_by_hand(book: Book) -> None:
    book.cost(TINYVIT, gmacs=37.8, second=37.8)
    book.cost(REPVIT, second=31.5)
    book.parts(TINYVIT, [0.9, 1.0, 1.1, 1.0, 1.0, 1.0, 1.0])
    book.parts(REPVIT, [0.45, 0.5, 0.55, 0.5, 0.5, 0.5, None])
    slow, fast = rows_of(book.report(), "Encoders")
    assert slow["encoder (ms), median [IQR]"] == "1000 [1000, 1000]"
    assert slow["speed-up [95 % CI]"] == "1.00x (baseline)"
    assert slow["GMACs"] == "37.8"
    assert (fast["encoder"], fast["params (M)"], fast["input (px)"]) == ("repvit", "6.46", "256")
    assert (fast["decoder (ms)"], fast["first call (ms)"]) == ("80.0", "1500")
    assert fast["fast path, a box (ms)"] == "15.0"
    # Six defined samples against seven: no longer the same rounds.
    assert fast["speed-up [95 % CI]"].startswith("2.00x [")
    assert fast["speed-up [95 % CI]"].endswith("] u")


def test_counters_that_differ_are_flagged(book: Book) -> None:
    book.cost(TINYVIT, gmacs=100.0, second=100.9)
    book.cost(REPVIT, gmacs=100.0, second=101.1)
    text = book.report()
    rows = {row["encoder"]: row["GMACs"] for row in rows_of(text, "Encoders")}
    assert rows == {"tinyvit": "100", "repvit": "100 *"}
    assert "differs by more than 1 %: repvit 101 GMACs" in text
    assert "does not count these operators: gelu (" in text


def test_ratios_pair_rounds_of_one_run(book: Book) -> None:
    drift = [0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3]
    book.parts(TINYVIT, [2 * d for d in drift])
    book.parts(REPVIT, list(drift))
    found = book.csv("encoders").set_index("candidate_encoder").loc["repvit"]
    assert (found.speedup_value, found.speedup_low, found.speedup_high) == pytest.approx((2, 2, 2))


def test_slowest_is_the_baseline_without_tinyvit(book: Book) -> None:
    book.parts(candidate("vit"), [3.0])
    book.parts(REPVIT, [1.0])
    slow, fast = rows_of(book.report(), "Encoders")
    assert (slow["encoder"], slow["speed-up [95 % CI]"]) == ("vit", "1.00x (baseline)")
    assert fast["speed-up [95 % CI]"] == "3.00x (n=1)"


def test_tinyvit_is_the_baseline_even_if_not_slowest_and_another_can_be_asked_for(book: Book) -> None:
    book.parts(candidate("vit"), [3.0])
    book.parts(TINYVIT, [2.0])
    book.parts(candidate("tinyvit", backend="onnxruntime"), [4.0])
    default = book.csv("encoders")
    assert default.loc[default.is_baseline, ["candidate_encoder", "candidate_backend"]].values.tolist() == [
        ["tinyvit", "torch"]
    ]
    asked = book.csv("encoders", baseline="vit")
    assert asked.loc[asked.is_baseline, "candidate_encoder"].tolist() == ["vit"]
    assert asked.set_index("encode_s_median").speedup_value.to_dict() == {4.0: 0.75, 3.0: 1.0, 2.0: 1.5}


def test_unknown_baseline_suggests_a_known_one(book: Book) -> None:
    book.parts(REPVIT, [1.0])
    with pytest.raises(ValueError, match=r"'repvitt'; did you mean repvit\? there are: repvit"):
        book.report(baseline="repvitt")


def test_threads_are_not_mixed_in_a_ratio(book: Book) -> None:
    for threads, factor in ((1, 2.0), (2, 1.0)):
        book.parts(candidate("tinyvit", threads=threads), [3 * factor])
        book.parts(candidate("repvit", threads=threads), [factor])
    found = book.csv("encoders")
    assert found.groupby("candidate_threads").is_baseline.sum().to_dict() == {1: 1, 2: 1}
    assert found.loc[~found.is_baseline, "speedup_value"].tolist() == [3.0, 3.0]


def test_a_run_with_the_baseline_is_shown_before_a_later_one_without(book: Book) -> None:
    book.parts(TINYVIT, [4.0], run_id="together", key="t1")
    book.parts(REPVIT, [2.0], run_id="together", key="r1")
    book.parts(REPVIT, [3.0], run_id="alone", key="r2")
    book.parts(candidate("vit"), [1.0], run_id="alone", key="v2")
    rows = {row["encoder"]: row for row in rows_of(book.report(), "Encoders")}
    assert rows["repvit"]["speed-up [95 % CI]"] == "2.00x (n=1)"
    assert (rows["repvit"]["run"], rows["vit"]["run"]) == ("together", "alone")
    assert rows["vit"]["speed-up [95 % CI]"] == "4.00x (n=1) u"


def test_candidates_that_look_alike_show_their_weights(book: Book) -> None:
    book.parts(candidate("repvit", trained=True), [1.0])
    book.parts(REPVIT, [2.0])
    weights = [row["weights"] for row in rows_of(book.report(), "Encoders")]
    assert weights == ["random:0 0123456789ab", "repvit.pth 0123456789ab"]


# Cases


def test_case_table_by_hand(book: Book) -> None:
    for index, total_s in enumerate((21.0, 20.0, 22.0)):
        book.one_pass(TINYVIT, total_s, protocol("per_object"), index=index)
        book.one_pass(REPVIT, total_s / 2, protocol("cached"), index=index)
    book.one_pass(REPVIT, 14.6, protocol("cached"), temperature="cold")
    text = book.report()
    slow, fast = rows_of(text, "3D cases")
    assert (slow["case"], slow["shape"], slow["objects"]) == ("phantom_3DBox_CT_0860", "246x512x512", "1")
    assert fast["case"] == "", "named once"
    assert (slow["candidate"], slow["protocol"]) == ("tinyvit", "per_object")
    assert (slow["warm (s), median (n)"], slow["speed-up [95 % CI]"]) == ("21.0 (3)", "1.00x (baseline)")
    assert (fast["warm (s), median (n)"], fast["speed-up [95 % CI]"]) == ("10.5 (3)", "2.00x (n=3)")
    assert (fast["cold (s), of it start-up"], fast["peak RSS (MiB)"]) == ("14.6, 4.00", "900")
    _, stages = rows_of(text, "3D cases: where the time goes")
    assert [stages[f"{name} (s)"] for name in ("load", "encode", "decode")] == [
        "1.00 (10 %)",
        "5.00 (50 %)",
        "2.00 (20 %)",
    ]
    assert (stages["slices encoded"], stages["prompts decoded"]) == ("246", "246")


def test_published_figures_stand_beside_their_case(book: Book) -> None:
    book.one_pass(TINYVIT, 20.0, protocol("per_object"))
    book.one_pass(REPVIT, 10.0, protocol("per_object"))
    book.one_pass(REPVIT, 5.0, protocol("cached"))
    book.one_pass(TINYVIT, 4.0, protocol("cached"))
    book.one_pass(candidate("repvit", precision="int8"), 3.0, protocol("cached"))
    rows = rows_of(book.report(), "3D cases")
    # 16.6 / 7.96 = 2.085, 16.6 / 6.24 = 2.660
    assert [row["quoted (s)"] for row in rows] == ["16.6 (1.00x)", "7.96 (2.09x)", "6.24 (2.66x)", "-", "-"]


def test_a_case_of_another_size_is_not_passed_off_as_the_published(book: Book) -> None:
    book.one_pass(REPVIT, 1.0, protocol("cached"), case={**CT_0860, "shape": [10, 512, 512]})
    text = book.report()
    (row,) = rows_of(text, "3D cases")
    assert row["quoted (s)"] == "6.24 (2.66x) *"
    assert "another shape or number of objects" in text


def test_other_cases_have_no_published_figures(book: Book) -> None:
    book.one_pass(REPVIT, 1.0, protocol("cached"), case={**CT_0860, "case_id": "mine"})
    assert "quoted (s)" not in rows_of(book.report(), "3D cases")[0]


def test_case_baseline_prefers_per_object_of_tinyvit(book: Book) -> None:
    book.one_pass(TINYVIT, 50.0, protocol("cached"))
    book.one_pass(TINYVIT, 20.0, protocol("per_object"))
    book.one_pass(REPVIT, 10.0, protocol("per_object"))
    found = book.csv("cases_3d")
    assert found.loc[found.is_baseline, ["candidate_encoder", "protocol"]].values.tolist() == [
        ["tinyvit", "per_object"]
    ]
    asked = book.csv("cases_3d", baseline="repvit")
    assert asked.set_index(["candidate_encoder", "protocol"]).speedup_value.to_dict() == {
        ("tinyvit", "cached"): 0.2,
        ("tinyvit", "per_object"): 0.5,
        ("repvit", "per_object"): 1.0,
    }


def test_six_interleaved_passes_carry_a_paired_interval(book: Book) -> None:
    for index, drift in enumerate((0.7, 0.8, 0.9, 1.1, 1.2, 1.3)):
        book.one_pass(TINYVIT, 30 * drift, protocol("per_object"), index=index)
        book.one_pass(REPVIT, 10 * drift, protocol("per_object"), index=index)
    assert rows_of(book.report(), "3D cases")[1]["speed-up [95 % CI]"] == "3.00x [3.00, 3.00]"


def test_warm_and_cold_are_not_mixed_in_a_ratio(book: Book) -> None:
    book.one_pass(TINYVIT, 20.0, protocol("per_object"))
    book.one_pass(REPVIT, 10.0, protocol("per_object"), temperature="cold")
    warm, cold = rows_of(book.report(), "3D cases")
    assert warm["speed-up [95 % CI]"] == "1.00x (baseline)"
    assert (cold["warm (s), median (n)"], cold["speed-up [95 % CI]"]) == ("-", "-")


def test_cold_passes_alone_are_compared(book: Book) -> None:
    book.one_pass(TINYVIT, 20.0, protocol("per_object"), temperature="cold")
    book.one_pass(REPVIT, 10.0, protocol("per_object"), temperature="cold")
    text = book.report()
    assert rows_of(text, "3D cases")[1]["speed-up [95 % CI]"] == "2.00x (n=1)"
    assert "its speed-up is that of the cold ones" in text


def test_the_whole_process_of_a_cold_pass_has_a_column_where_it_was_timed(book: Book) -> None:
    book.one_pass(TINYVIT, 20.0, protocol("per_object"), temperature="cold")
    assert "whole process (s)" not in book.report(), "older records do not know it"
    book.one_pass(REPVIT, 10.0, protocol("per_object"), temperature="cold", process_s=12.5)
    book.one_pass(REPVIT, 11.0, protocol("per_object"), temperature="cold", process_s=13.5, index=1)
    text = book.report()
    older, timed = rows_of(text, "3D cases")
    assert (older["cold (s), of it start-up"], older["whole process (s)"]) == ("20.0, 4.00", "-")
    assert (timed["cold (s), of it start-up"], timed["whole process (s)"]) == ("10.5, 4.00", "13.0")
    assert PROCESS_NOTE in text
    assert book.csv("cases_3d").process_s.dropna().tolist() == [13.0]
    assert "whole process (s)" not in readme_block([book.path])


def test_protocols_that_differ_in_an_option_are_told_apart(book: Book) -> None:
    book.one_pass(REPVIT, 2.0, protocol("cached"))
    book.one_pass(REPVIT, 1.0, protocol("cached", mask_value="label"))
    text = book.report()
    assert [row["protocol"] for row in rows_of(text, "3D cases")] == [
        "cached, mask_value binary",
        "cached, mask_value label",
    ]
    assert "All rows: reparam, torch, fp32, 2 threads; z_range inclusive." in text


def test_images_have_a_table_of_their_own(book: Book) -> None:
    book.one_pass(REPVIT, 0.5, case=SKIN)
    text = book.report()
    (row,) = rows_of(text, "2D cases")
    assert (row["case"], row["shape"]) == ("skin", "64x80")
    assert "protocol" not in row
    assert "# 3D cases\n" not in text


def test_a_pass_without_a_time_is_no_sample(book: Book) -> None:
    book.one_pass(TINYVIT, 20.0, protocol("per_object"), index=0)
    book.one_pass(TINYVIT, None, protocol("per_object"), index=1)
    assert rows_of(book.report(), "3D cases")[0]["warm (s), median (n)"] == "20.0 (1)"


# Accuracy


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


# Where records come from


def test_machines_are_kept_apart(book: Book) -> None:
    for machine, factor in (("m1", 1.0), ("m2", 10.0)):
        book.parts(TINYVIT, [4 * factor], machine=machine)
        book.parts(REPVIT, [factor], machine=machine)
    text = book.report()
    assert "come from 2 machines" in text
    assert "no ratio mixes machines" in text
    assert text.count("### Encoders\n") == 2
    found = book.csv("encoders")
    assert found.groupby("machine").is_baseline.sum().to_dict() == {"m1": 1, "m2": 1}
    assert found.loc[~found.is_baseline, "speedup_value"].tolist() == [4.0, 4.0]


def test_one_machine_is_not_called_several(book: Book) -> None:
    book.parts(REPVIT, [1.0])
    assert "machines" not in book.report()


def test_the_latest_of_equal_keys_counts_and_the_rest_are_told(book: Book) -> None:
    for hour, seconds in ((3, 1.0), (5, 2.0), (4, 3.0)):
        book.parts(REPVIT, [seconds], time_utc=f"2026-01-01T{hour:02}:00:00.000+00:00")
    text = book.report()
    assert rows_of(text, "Encoders")[0]["encoder (ms), median [IQR]"].startswith("2000 ")
    assert "2 records were measured again later" in text


def test_torn_lines_are_skipped_and_counted(book: Book) -> None:
    book.parts(REPVIT, [1.0])
    with book.path.open("a") as file:
        file.write('{"kind":"laten')
    book.parts(TINYVIT, [2.0])
    text = book.report()
    assert len(rows_of(text, "Encoders")) == 2
    assert "1 lines are no records" in text
    assert rows_of(text, "Record files") == [{"file": "records.jsonl", "records": "2", "lines skipped": "1"}]


def test_clean_records_need_no_excuse(book: Book) -> None:
    book.parts(REPVIT, [1.0])
    text = book.report()
    assert "no records" not in text
    assert "measured again" not in text


def test_no_record_at_all_names_the_files(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(ValueError, match=r"no records in: .*empty\.jsonl"):
        render_report([tmp_path / "empty.jsonl"], None)
    with pytest.raises(ValueError, match=r"no such file: .*missing\.jsonl"):
        render_report([tmp_path / "missing.jsonl"], None)
    with pytest.raises(ValueError, match="no files"):
        render_report([], None)


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


def test_provenance_names_machine_packages_commit_and_runs(book: Book) -> None:
    book.parts(REPVIT, [1.0], packages={"torch": "2.6"})
    book.parts(TINYVIT, [1.0], packages={"torch": "2.7"}, git=None, run_id="run2")
    text = book.report()
    for fact in ("Test CPU, 2 cores, 8 GiB", "avx2", "Linux x86_64", "torch 2.6 and 2.7", "`c0ffeec0ffee`"):
        assert fact in text
    assert "with uncommitted changes, no commit known" in text
    assert [row["run"] for row in rows_of(text, "Runs")] == ["run1", "run2"]
    assert {row["trained"] for row in rows_of(text, "Weights")} == {"no, random"}


def test_quoted_figures_stand_apart_as_they_were_printed(book: Book) -> None:
    book.parts(REPVIT, [1.0])
    measured, quoted = book.report().split(f"## {HEADING}")
    assert "LiteMedSAM" not in measured
    cases = rows_of(quoted, "Six 3D cases, as published by Rep-MedSAM (seconds)")
    assert cases[0]["per_object + TinyViT"] == "436.97"
    assert cases[0]["cached + RepViT"] == "73.64 (5.93x)"
    assert rows_of(quoted, "Encoders, as published by Rep-MedSAM")[1]["params_m"] == "6"
    assert all("source" in read_published(file.stem) for file in (ROOT / "reports/published").glob("*.csv"))
    assert len(list((ROOT / "reports/published").glob("*.csv"))) == quoted.count("\n### ")


# Output


def test_figures_are_drawn_where_there_is_data(book: Book) -> None:
    out = book.path.parent / "report"
    who = candidate("repvit", trained=True)
    book.parts(who, [1.0, 1.1])
    assert book.report(out).count("<picture>") == 1
    assert sorted(path.name for path in out.glob("*.png")) == ["encoder_latency.png", "encoder_latency_dark.png"]
    book.one_pass(who, 10.0, protocol("cached"))
    book.scores(FLOOR, [0.5])
    book.scores(REPVIT, [0.9])
    assert "accuracy_latency" not in book.report(out), "random weights"
    book.scores(who, [0.9])
    text = book.report(out)
    pictures = sorted(path.name for path in out.glob("*.png"))
    drawn = ("accuracy_latency", "case_stages", "dsc_distribution", "encoder_latency")
    assert pictures == [f"{name}{theme}.png" for name in drawn for theme in ("", "_dark")]
    assert all(f'="{name}"' in text for name in pictures)
    assert all((out / name).read_bytes().startswith(b"\x89PNG") for name in pictures)
    assert (out / "report.md").read_text() == text
    assert not list(out.glob(".*")), "nothing half written is left"


def test_figures_of_machines_have_their_own_files(book: Book) -> None:
    out = book.path.parent / "report"
    book.parts(REPVIT, [1.0], machine="m1")
    book.parts(REPVIT, [1.0], machine="m2")
    book.report(out)
    light = sorted(path.name for path in out.glob("*.png") if "dark" not in path.name)
    assert light == ["encoder_latency.png", "encoder_latency_m1.png"]


def test_figures_of_scaling_take_several_sizes(book: Book) -> None:
    out = book.path.parent / "report"
    book.one_pass(REPVIT, 10.0, protocol("cached"))
    book.one_pass(REPVIT, 10.0, protocol("batched"))
    book.report(out)
    assert not (out / "case_scaling.png").exists()
    book.one_pass(REPVIT, 20.0, protocol("cached"), case={**CT_0860, "case_id": "long", "objects": 4, "sha256": "l"})
    book.report(out)
    assert (out / "case_scaling.png").exists()


def test_readme_block_is_short(book: Book) -> None:
    book.cost(REPVIT)
    book.parts(TINYVIT, [2.0])
    book.parts(REPVIT, [1.0])
    book.one_pass(REPVIT, 10.0, protocol("cached"))
    text = readme_block([book.path])
    assert text.startswith("Measured on Test CPU, 2 cores, 8 GiB;")
    assert "2.00x (n=1)" in text
    assert "6.24 (2.66x)" in text
    assert max(map(len, text.splitlines())) <= 160


def test_readme_block_is_of_the_machine_measured_on_last(book: Book) -> None:
    book.parts(REPVIT, [1.0], machine="m1", time_utc="2026-01-02T00:00:00.000+00:00")
    book.parts(REPVIT, [1.0], machine="m2", time_utc="2026-01-03T00:00:00.000+00:00")
    text = readme_block([book.path])
    assert "machine `m2`" in text
    assert "m1" not in text


@pytest.mark.parametrize(
    ("value", "text"),
    [(451.23, "451"), (1959.4, "1959"), (0.98, "0.980"), (99.96, "100"), (1e-7, "0.000000100"), (0.0, "0")],
)
def test_three_significant_digits_without_exponents(value: float, text: str) -> None:
    assert significant(value) == text


def test_undefined_numbers_show_as_nothing() -> None:
    assert significant(math.nan) == "-"


def test_markdown_aligns_numbers_right_and_drops_empty_columns() -> None:
    head, rule, *_ = markdown_table(
        [{"id": "3DBox", "s": "1.5 (3)", "none": "-"}, {"id": "x", "s": "-", "none": ""}]
    ).splitlines()
    assert [cell.strip() for cell in head.strip("|").split("|")] == ["id", "s"]
    assert [cell.endswith(":") for cell in rule.strip("|").split("|")] == [False, True]


def test_imports_without_torch() -> None:
    code = "import sys, reports.render, reports.plots; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
