"""Reports: what is read from records, compared with what, written how; and what must never be shown."""

from __future__ import annotations

from pathlib import Path

import pytest
from record_book import CT_0860, REPVIT, SKIN, TINYVIT, Book, candidate, protocol, readme_of, rows_of

from reports.cases import PROCESS_NOTE
from reports.provenance import describe_machine
from reports.published import HEADING, read_published
from reports.render import render_report

ROOT = Path(__file__).parent.parent


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


def test_foveae_have_a_column_where_they_were_timed(book: Book) -> None:
    """Records of before have none; then all of the image is what a box is decoded of."""
    book.parts(TINYVIT, [1.0, 1.0])
    assert "fovea, a box" not in book.report()
    book.parts(REPVIT, [0.5, 0.5], foveated_s=0.02)
    before, now = rows_of(book.report(), "Encoders")
    assert (before["fovea, a box (ms)"], now["fovea, a box (ms)"]) == ("-", "5.00")
    assert now["fast path, a box (ms)"] == "15.0"


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


def test_all_tables_have_the_baseline_of_the_encoders(book: Book) -> None:
    book.parts(candidate("vit"), [3.0])
    book.parts(REPVIT, [1.0])
    book.one_pass(candidate("vit"), total_s=5.0)
    book.one_pass(REPVIT, total_s=9.0)
    cases = book.csv("cases_3d")
    assert cases.loc[cases.is_baseline, "candidate_encoder"].tolist() == ["vit"]


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
    with pytest.raises(ValueError, match=r"baseline: found unknown name 'repvitt'; expected did you mean repvit\?"):
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
    assert "whole process (s)" not in readme_of([book.path])


def test_protocols_that_differ_in_an_option_are_told_apart(book: Book) -> None:
    book.one_pass(REPVIT, 2.0, protocol("cached"))
    book.one_pass(REPVIT, 1.0, protocol("cached", mask_value="label"))
    text = book.report()
    assert [row["protocol"] for row in rows_of(text, "3D cases")] == ["cached", "cached, mask_value label"]
    assert "2 threads; z_range inclusive, mask_value binary where not said." in text
    book.one_pass(REPVIT, 0.5, protocol("cached", propagate=False))
    book.one_pass(REPVIT, 0.4, protocol("batched", propagate=True))
    book.one_pass(REPVIT, 0.3, protocol("batched", propagate=True), index=1)
    assert "cached, no propagate" in [row["protocol"] for row in rows_of(book.report(), "3D cases")]


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
    with pytest.raises(ValueError, match=r"empty\.jsonl: found no records"):
        render_report([tmp_path / "empty.jsonl"], None)
    with pytest.raises(ValueError, match=r"missing\.jsonl: found no such file"):
        render_report([tmp_path / "missing.jsonl"], None)
    with pytest.raises(ValueError, match="no files"):
        render_report([], None)


def test_provenance_names_machine_packages_commit_and_runs(book: Book) -> None:
    book.parts(REPVIT, [1.0], packages={"torch": "2.6"})
    book.parts(TINYVIT, [1.0], packages={"torch": "2.7"}, git=None, run_id="run2")
    text = book.report()
    for fact in ("Test CPU (avx2), 2 cores, 8 GiB", "avx2", "Linux x86_64", "torch 2.6 and 2.7", "`c0ffeec0ffee`"):
        assert fact in text
    assert "with uncommitted changes, no commit known" in text
    assert [row["run"] for row in rows_of(text, "Runs")] == ["run1", "run2"]
    assert {row["trained"] for row in rows_of(text, "Weights")} == {"no, random"}


def test_quoted_figures_stand_apart_as_they_were_printed(book: Book) -> None:
    book.parts(REPVIT, [1.0])
    out = book.path.parent / "out"
    assert HEADING not in book.report(out, figures=False), "a person at a terminal asks for what was measured"
    measured, quoted = (out / "report.md").read_text(encoding="utf-8").split(f"## {HEADING}")
    assert "LiteMedSAM" not in measured
    cases = rows_of(quoted, "Six 3D cases, as published by Rep-MedSAM (seconds)")
    assert cases[0]["per_object + TinyViT"] == "436.97"
    assert cases[0]["cached + RepViT"] == "73.64 (5.93x)"
    assert rows_of(quoted, "Encoders, as published by Rep-MedSAM")[1]["params_m"] == "6"
    assert all("source" in read_published(file.stem)[0] for file in (ROOT / "reports/published").glob("*.csv"))
    assert len(list((ROOT / "reports/published").glob("*.csv"))) == quoted.count("\n### ")


@pytest.mark.parametrize(
    ("isa", "told"),
    [
        (
            ["avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16"],
            "CPU (amx_bf16, amx_int8), 2 cores",
        ),
        (["avx2", "fma", "avx512f", "avx_vnni", "avx512_vnni"], "CPU (avx512_vnni), 2 cores"),
        (["avx2", "avx_vnni"], "CPU (avx_vnni), 2 cores"),
        (["asimd", "asimddp", "i8mm"], "CPU (i8mm), 2 cores"),
        ([], "CPU, 2 cores"),
        (None, "CPU, 2 cores"),
    ],
)
def test_a_machine_is_told_by_its_widest_instruction_sets(isa: list[str] | None, told: str) -> None:
    assert describe_machine({"cpu": "CPU", "cores": 2, "isa": isa, "memory_gib": 8}).startswith(told)
