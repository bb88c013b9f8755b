"""The command line, as a person and as a script meet it."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from record_book import REPVIT, Book

from bench.record import read_records
from cli import main
from compress.recipes import encoder_names, encoder_recipes, weights_by_encoder
from reports.published import HEADING
from zoo.data.case import Case
from zoo.data.npz import save_challenge_npz
from zoo.data.phantom import PhantomSpec, make_phantom
from zoo.errors import InputError

CLI = [sys.executable, str(Path(__file__).parent.parent / "cli.py")]
QUICK = [
    "--encoder",
    "light_repvit_m0_9",
    "--weights",
    "random:0",
    "--rounds",
    "1",
    "--no-cold",
    "--passes",
    "1",
    "--max-objects",
    "1",
    "--max-slices",
    "1",
]


def invoke(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def save_image(folder: Path, name: str, seed: int = 0) -> Path:
    path = folder / f"{name}.npz"
    save_challenge_npz(make_phantom(PhantomSpec("CT", (64, 64), 1, (1.0, 1.0), seed)), path)
    return path


@pytest.mark.parametrize("command", [[], ["list"], ["bench"], ["report"]])
def test_help_teaches(command: list[str]) -> None:
    result = invoke(*command, "--help")
    assert result.exit_code == 0
    assert "Usage" in result.output


def test_list_shows_every_encoder() -> None:
    from zoo.registry import list_encoders

    result = invoke("list")
    assert result.exit_code == 0
    assert all(name in result.output for name in list_encoders())


def test_bench_then_report(tmp_path: Path) -> None:
    save_image(tmp_path, "2D_CT_a")
    out = tmp_path / "runs" / "a.jsonl"
    result = invoke("bench", *QUICK, "--cases", tmp_path, "--out", out, "--no-zoom", "--overlap", "last")
    assert result.exit_code == 0, result.output
    rules = [record.protocol for record in read_records([out]) if record.protocol]
    assert rules
    assert all((rule["zoom"], rule["overlap"], rule["within_box"]) == (False, "last", True) for rule in rules)
    report = invoke("report", out, "-o", tmp_path / "report")
    assert report.exit_code == 0, report.output
    assert "random weights" in report.output
    measured = (tmp_path / "report" / "report.md").read_text().split(f"\n## {HEADING}")[0]
    assert measured in report.output
    assert HEADING not in report.output


def test_what_is_built_in_is_timed_from_a_file(tmp_path: Path) -> None:
    out = tmp_path / "a.jsonl"
    assert invoke("bench", *QUICK, "--cases", "phantom:ct2d", "--out", out).exit_code == 0
    (case,) = {json.dumps(record.case): record.case for record in read_records([out]) if record.case}.values()
    assert (case["case_id"], case["source"]) == ("phantom_ct2d", "2DBox_CT_phantom_ct2d.npz")


def test_what_cannot_be_drawn_to_a_file_is_measured_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(case: Case, path: Path, values: object) -> None:
        raise InputError(path, "no room", "room")

    monkeypatch.setattr("zoo.data.cases.save_challenge_npz", no_room)
    result = invoke("bench", *QUICK, "--cases", "phantom:ct2d", "--out", tmp_path / "a.jsonl")
    assert result.exit_code == 0, result.output
    assert "phantom_ct2d: its seconds hold drawing it, too:" in result.output
    assert any(record.case for record in read_records([tmp_path / "a.jsonl"]))


def test_one_bad_case_does_not_stop_the_others(tmp_path: Path) -> None:
    save_image(tmp_path, "2D_CT_z")
    (tmp_path / "2D_bad.npz").write_bytes(b"PK")
    out = tmp_path / "a.jsonl"
    result = invoke("bench", *QUICK, "--cases", tmp_path, "--out", out)
    assert result.exit_code == 1
    assert "2D_bad.npz: found no readable npz archive" in result.output
    cases = [record.case["case_id"] for record in read_records([out]) if record.case and not record.error]
    assert "2D_CT_z" in cases


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--encoder", "repvitt"], "did you mean repvit"),
        (["--encoder", "repvit", "--encoder", "tinyvit", "--weights", "w.pth"], "NAME=PATH"),
        (["--encoder", "repvit", "--weights", "tinyvit=w.pth"], "weights for tinyvit"),
        (["--cases", "nowhere/*.npz"], "nowhere"),
        (["--precision", "int3"], "--precision: found unknown name 'int3'; expected one of: bf16, fp32"),
        (["--backend", "torhc"], "--backend: found unknown name 'torhc'; expected did you mean torch"),
        (["--backend", "openvino:int3"], "--backend openvino: found unknown name 'int3'; expected did you mean int8"),
        (["--backend", "nothing:fp32"], "--backend: found unknown name 'nothing'"),
        (["--sweep", "--backend", "torch"], "leave out --backend and --precision"),
        (["--sweep", "--precision", "fp32"], "leave out --backend and --precision"),
        (["--threads", "0"], "--threads"),
    ],
)
def test_bad_options_are_named(tmp_path: Path, arguments: list[str], message: str) -> None:
    result = invoke("bench", *arguments, "--out", tmp_path / "a.jsonl", "--rounds", "1", "--no-cold", "--passes", "0")
    assert result.exit_code != 0
    assert message in result.output
    assert "Traceback" not in result.output


def test_nothing_is_made_for_records_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("compress.build.build_candidate", lambda recipe: pytest.fail("made all the same"))
    newer, file = tmp_path / "newer.jsonl", tmp_path / "file"
    fields = ("kind", "candidate", "measurements", "machine", "run_id", "key")
    newer.write_text(json.dumps(dict.fromkeys(fields) | {"schema": 99}) + "\n")
    file.touch()
    for out, message in (
        (newer, "newer.jsonl:1: found schema 99"),
        (file / "a.jsonl", "found no room or no right to write"),
    ):
        result = invoke("bench", "--encoder", "light_repvit_m0_9", "--cases", "phantom:ct2d", "--out", out)
        assert result.exit_code == 1
        assert message in result.output
        assert not isinstance(result.exception, ValueError | OSError)


def test_a_format_needs_a_folder(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").touch()
    result = invoke("report", tmp_path / "a.jsonl", "--format", "html")
    assert result.exit_code == 2
    assert "--format needs --out" in result.output


@pytest.mark.parametrize("figures", ["--figures", "--no-figures"])
def test_a_report_that_cannot_be_written_is_told_of(tmp_path: Path, figures: str) -> None:
    Book(tmp_path / "a.jsonl").parts(REPVIT, [1.0])
    (tmp_path / "file").touch()
    result = invoke("report", tmp_path / "a.jsonl", "-o", tmp_path / "file" / "report", figures)
    assert result.exit_code == 1
    assert f"Error: {tmp_path / 'file' / 'report'}: found " in result.output


def test_report_without_records_is_told(tmp_path: Path) -> None:
    empty = tmp_path / "empty.jsonl"
    empty.touch()
    result = invoke("report", empty)
    assert result.exit_code == 1
    assert "empty.jsonl" in result.output


def test_a_cold_pass_measures_a_fresh_process(tmp_path: Path) -> None:
    save_image(tmp_path, "2D_CT_a")
    quick = [option for option in QUICK if option != "--no-cold"]
    out = tmp_path / "a.jsonl"
    result = invoke("bench", *quick, "--passes", "0", "--cases", tmp_path, "--out", out)
    assert result.exit_code == 0, result.output
    cold = [r for r in read_records([out]) if r.kind == "latency" and r.case]
    assert [record.measurements["temperature"] for record in cold] == ["cold"]
    measured = cold[0].measurements
    assert measured["process_s"] > measured["total_s"] + measured["save_s"] > measured["startup_s"]
    assert 100 < measured["peak_rss_mib"] < 4000
    assert measured["total_s"] > measured["startup_s"] > 0.5


def test_what_the_system_refuses_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), "/records")

    monkeypatch.setattr("cli.record_files", refuse)
    told = CliRunner().invoke(main, ["recommend", "."])
    assert (told.exit_code, told.output.splitlines()[-1]) == (
        1,
        "Error: /records: found Read-only file system; expected a file that can be read or written",
    )


def test_killed_in_the_middle_and_run_again(tmp_path: Path) -> None:
    """SIGKILL after a few records: what was written stays, is not measured again, and nothing is torn or doubled."""
    for number in range(3):
        save_image(tmp_path, f"2D_CT_{number}", seed=number)
    out = tmp_path / "a.jsonl"
    command = [*CLI, "bench", *QUICK, "--cases", str(tmp_path), "--out", str(out)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while (not out.exists() or out.read_bytes().count(b"\n") < 4) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    before = [json.loads(line) for line in out.read_text().splitlines() if line.endswith("}")]
    assert len(before) >= 4
    result = invoke("bench", *QUICK, "--cases", tmp_path, "--out", out)
    assert result.exit_code == 0, result.output
    records = list(read_records([out], strict=False))
    keys = [record.key for record in records]
    assert len(keys) == len(set(keys)) == 2 + 3 * 3
    assert [record["key"] for record in before] == keys[: len(before)]


def test_random_weights_for_all_or_for_one(tmp_path: Path) -> None:
    def chosen(encoders: tuple[str, ...], weights: tuple[str, ...]) -> list[str | None]:
        names = encoder_names(encoders)
        found = encoder_recipes(names, weights_by_encoder(weights, names), "train", [("torch", "fp32")], 2)
        return [recipe.weights for recipe in found]

    assert chosen(("repvit", "tinyvit"), ("random:3",)) == ["random:3", "random:3"]
    assert chosen(("repvit", "tinyvit"), ("tinyvit=a.pth",)) == [None, "a.pth"]
    several = ("tinyvit=a.pth", "tinyvit=b.pth", "random:1")
    assert chosen(("repvit", "tinyvit"), several) == ["random:1", "a.pth", "b.pth"], "each of an encoder's"
    assert len(chosen(("all", "timm:resnet18"), ())) > 10
    odd = tmp_path / "lr=1e-4" / "random_crop.pth"
    odd.parent.mkdir()
    odd.touch()
    assert chosen(("repvit",), (str(odd),)) == [str(odd)], "a file, whatever signs its path has"
    assert chosen(("repvit",), ("a.pth", "repvit=random:0")) == ["a.pth", "random:0"]
    with pytest.raises(InputError, match=r"found random:0 that no encoder takes.*expected repvit=random:0"):
        chosen(("repvit",), ("a.pth", "random:0"))


def test_a_segmentation_of_the_phantom_is_deterministic(tmp_path: Path) -> None:
    """Two processes' worth of `bench` on one case give equal accuracy records: nothing random is left unseeded."""
    save_image(tmp_path, "2D_CT_a")
    scores = []
    for name in ("one", "two"):
        out = tmp_path / f"{name}.jsonl"
        assert invoke("bench", *QUICK, "--cases", tmp_path, "--out", out).exit_code == 0
        scores.append([r.measurements for r in read_records([out]) if r.kind == "accuracy"])
    np.testing.assert_equal(scores[0], scores[1])


@pytest.mark.parametrize("value", ["inf", "-inf", "nan"])
@pytest.mark.parametrize("option", ["--box-jitter-px", "--minutes", "--lr", "--clip-percentile"])
def test_a_number_without_end_is_refused(option: str, value: str) -> None:
    result = CliRunner().invoke(main, ["train", option, value, "-o", "unused"])
    assert result.exit_code == 2
    assert option in result.output
    assert "is no finite number" in result.output or f"{value} is not in the range" in result.output
