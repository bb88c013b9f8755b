"""A records file that tests of reports fill, and what its records are of."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from bench.record import Record, append_record, record_key
from reports.load import load_records
from reports.machine import machine_reports
from reports.render import readme_block, render_report

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

    def parts(
        self, who: dict[str, Any], encode_s: list[float | None], foveated_s: float | None = None, **fields: Any
    ) -> None:
        """Four boxes are decoded together; `foveated_s` of records of before is None."""
        decode_s = [0.08] * len(encode_s)
        measurements = {"encode_s": encode_s, "encode_first_s": 1.5, "decode_s": decode_s, "input_px": 256}
        measurements |= {"decode_boxes_s": [0.06] * len(encode_s), "boxes": 4}
        if foveated_s is not None:
            measurements["decode_foveated_s"] = [foveated_s] * len(encode_s)
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
        encoded_slices: int = 246,
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
            "encoded_slices": encoded_slices,
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


TINYVIT, REPVIT = candidate("tinyvit"), candidate("repvit")


def rows_of(text: str, heading: str) -> list[dict[str, str]]:
    """The markdown table below a heading, as rows of stripped cells."""
    lines = text.split(f"# {heading}\n", 1)[1].split("\n#", 1)[0].splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split(" |")] for line in lines if line.startswith("|")]
    return [dict(zip(cells[0], row, strict=True)) for row in cells[2:]]


def readme_of(paths: Sequence[Path]) -> str:
    """What a README shows of some files of records."""
    return readme_block(machine_reports(load_records(paths)))
