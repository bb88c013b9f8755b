"""What a person is told who makes or opens a quantised candidate: limits that do not hold, CPUs that saturate."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from conftest import ENCODER

from bench.machine import describe_machine, lacks_vnni
from cli import main
from compress.card import CandidateCard, read_card, write_card
from compress.deploy import recipe_of

ONLY_AVX2, SERVER, LAPTOP = ["avx2", "fma"], ["avx2", "avx512f", "avx512_vnni"], ["avx2", "fma", "avx_vnni"]
VERDICT = "not worth it: the gate does not hold with 2 of 5 layers in float"
Isa = Callable[[list[str]], None]


@pytest.fixture
def isa(monkeypatch: pytest.MonkeyPatch) -> Isa:
    """Makes this machine one with other instruction sets."""

    machine = describe_machine()

    def change(flags: list[str]) -> None:
        described = machine | {"isa": flags}
        monkeypatch.setattr("bench.machine.describe_machine", lambda: described)

    return change


def int8(graphs: Path, folder: Path, *, holds: bool = True, reduced: bool = False) -> Path:
    """A candidate whose card says that it is quantised."""
    shutil.copytree(graphs, folder)
    told: dict[str, Any] = {"gate": {"holds": holds}, "verdict": VERDICT, "reduced_range": reduced}
    card: CandidateCard = replace(read_card(folder), precision="int8", quantisation=told)
    write_card(card, folder)
    return folder


@pytest.mark.parametrize(
    ("flags", "reduced"), [(ONLY_AVX2, True), (SERVER, False), (LAPTOP, False), (["asimd"], False)]
)
def test_either_form_of_vnni_takes_weights_of_8_bits(isa: Isa, flags: list[str], reduced: bool) -> None:
    isa(flags)
    assert lacks_vnni() is reduced


@pytest.mark.parametrize(("avx_vnni", "reduced"), [(True, False), (False, True)])
def test_where_the_system_lists_no_flags(
    isa: Isa, avx_vnni: bool, reduced: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    isa([])
    monkeypatch.setattr(torch.cpu, "_is_avx2_supported", lambda: True)
    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx_vnni": avx_vnni}, raising=False)
    assert lacks_vnni() is reduced


def test_quantize_tells_of_a_cpu_without_vnni(isa: Isa, tmp_path: Path) -> None:
    isa(ONLY_AVX2)
    refused = ["--calib", "phantom:rgb2d", "--modality", "CT"]
    arguments = ["--encoder", ENCODER, *refused, "-o", str(tmp_path / "int8")]
    assert "lacks VNNI: weights of 7 bits" in CliRunner().invoke(main, ["quantize", *arguments]).output


@pytest.mark.parametrize(
    ("flags", "reduced", "doubts"), [(ONLY_AVX2, False, 1), (ONLY_AVX2, True, 0), (LAPTOP, False, 0)]
)
def test_weights_of_8_bits_on_a_cpu_without_vnni(
    graphs: Path, tmp_path: Path, isa: Isa, flags: list[str], reduced: bool, doubts: int
) -> None:
    isa(flags)
    found = recipe_of(int8(graphs, tmp_path / "int8", reduced=reduced)).doubts
    assert len(found) == doubts
    assert all("may saturate on this CPU, which lacks VNNI" in doubt for doubt in found)
    assert recipe_of(graphs).doubts == (), "in float"


@pytest.mark.parametrize("command", ["segment", "bench"])
def test_a_candidate_whose_gate_did_not_hold_is_told_of(graphs: Path, tmp_path: Path, isa: Isa, command: str) -> None:
    isa(SERVER)
    assert recipe_of(int8(graphs, tmp_path / "good")).doubts == ()
    folder = int8(graphs, tmp_path / "bad", holds=False)
    arguments = {
        "segment": ["-i", "phantom:rgb2d", "-o", str(tmp_path / "out"), "--jobs", "1", "--threads", "1"],
        "bench": [
            "--cases",
            "phantom:rgb2d",
            "--rounds",
            "0",
            "--passes",
            "0",
            "--no-cold",
            "--out",
            str(tmp_path / "b"),
        ],
    }
    result = CliRunner().invoke(main, [command, "--candidate", str(folder), *arguments[command]])
    assert result.exit_code == 0, result.output
    assert " ".join(result.output.split()).count(f"its card says: {VERDICT}") == 1
