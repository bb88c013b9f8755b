"""Records: one JSON object a line, appended atomically, resumed by key. Imports without torch.

Every measured number of this project lives in such a line. A record holds raw samples with their unit in the key;
statistics are computed when reading. See `Record` for the fields and `MEASUREMENTS` for what each kind measures.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from zoo.errors import InputError
from zoo.files import append_json

#: What `bench` writes to, and what other commands read, by default.
DEFAULT_RECORDS = Path("runs/bench.jsonl")
SCHEMA_VERSION = 4
#: The published scripts that records and their readers call protocols by, and how each goes through a volume.
SCRIPTS: Mapping[str, str] = {"litemedsam": "per_object", "rep_medsam": "cached"}

Kind = Literal["cost", "latency", "accuracy", "peak", "error"]

#: What `Record.measurements` holds, by kind. `latency` has two forms: of the parts (case is None) and of a case.
MEASUREMENTS: Mapping[str, tuple[str, ...]] = {
    "cost": (
        "encoder_params",
        "decoder_params",
        "encoder_gmacs",
        "decoder_gmacs",
        "encoder_gmacs_second_counter",
        "decoder_gmacs_second_counter",
        "input_px",
        "uncounted_operators",
        "title",
        "licence",
        "weights_from",
    ),
    "latency of parts": (
        "encode_s",
        "encode_first_s",
        "decode_s",
        "decode_first_s",
        "decode_boxes_s",
        "decode_boxes_first_s",
        "decode_foveated_s",
        "decode_foveated_first_s",
        "boxes",
        "warmup",
        "input_px",
    ),
    "latency of a case": (
        "temperature",
        "pass_index",
        "load_s",
        "preprocess_s",
        "encode_s",
        "decode_s",
        "postprocess_s",
        "total_s",
        "encoded_slices",
        "decoded_prompts",
        "startup_s",
        "save_s",
        "process_s",
        "peak_rss_mib",
    ),
    "accuracy": ("labels", "dsc", "nsd", "voxels", "tolerance_mm"),
    "accuracy of given masks": (
        "labels",
        "dsc",
        "nsd",
        "hd95_mm",
        "volume_ml",
        "reference_ml",
        "tolerance_mm",
        "rules",
    ),
    "peak": ("fp32_s", "bf16_s", "int8_s", "stream_s", "product_macs", "stream_bytes"),
    "error": ("kind", "temperature", "pass_index", "tolerance_mm"),
}


@dataclass(frozen=True)
class Record:
    """One measurement, or one failure.

    Attributes:
        kind: `cost`, `latency`, `accuracy`, `peak` (what the machine can do at best) or `error`.
        candidate: what was measured: `encoder`, `weights` ({`name`, `sha256`, `trained`}), `variant`, `backend`,
            `backend_version`, `precision`, `threads`, `cpus` (pinned to, or None). The floor's
            encoder is called `box ellipse`; a `peak` has `threads` and `cpus` alone.
        measurements: raw samples and counts, by kind: see `MEASUREMENTS`. Lists hold one entry a sample or a label. Of
            an `error` the kind of what failed, and which of several passes it was.
        case: None, or `case_id`, `modality`, `shape`, `objects`, `spacing_mm`, `source` (a file's name), `sha256`.
        protocol: None, or the named options of the rule that segmented the case, in 3D with its `name`.
        machine: `id` (a hash of the rest), `cpu`, `cores`, `isa`, `memory_gib`, `os`.
        packages: name -> version of what computes.
        git: `commit` and `dirty` of the toolkit, or None outside a checkout.
        run_id: the sweep that wrote this; candidates of one run were interleaved.
        time_utc: ISO 8601, of writing.
        error: None, or `type` and `message`.
        key: identity for resuming; see `record_key`.
        schema: `SCHEMA_VERSION`: older lines are brought to it when they are read.
    """

    kind: Kind
    candidate: dict[str, Any]
    measurements: dict[str, Any]
    machine: dict[str, Any]
    run_id: str
    key: str
    case: dict[str, Any] | None = None
    protocol: dict[str, Any] | None = None
    packages: dict[str, str] = field(default_factory=dict)
    git: dict[str, Any] | None = None
    error: dict[str, str] | None = None
    time_utc: str = field(
        default_factory=lambda: datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
    )
    schema: int = SCHEMA_VERSION


class RecordError(InputError):
    """A line that is no record, named by file and line number."""


def record_key(
    kind: str,
    candidate: Mapping[str, Any],
    machine_id: str,
    case: Mapping[str, Any] | None = None,
    protocol: Mapping[str, Any] | None = None,
    **extra: str | int | float,
) -> str:
    """Identity of a measurement: equal keys need not be measured again.

    Args:
        kind: the record's kind (an `error` takes the kind of what it failed to measure).
        candidate: the record's candidate.
        machine_id: `machine["id"]`.
        case: the record's case.
        protocol: the record's protocol.
        extra: what else tells two measurements apart (`pass_index`, `temperature`, ...).
    """
    identity = [kind, dict(candidate), machine_id, case and dict(case), protocol and dict(protocol), extra]
    return hashlib.sha256(json.dumps(identity, sort_keys=True, default=str).encode()).hexdigest()[:20]


def append_record(path: Path, record: Record) -> None:
    """Adds a record to a file, as `append_json` adds lines.

    Raises:
        ValueError: a measurement is NaN or infinite (JSON has no such number).
    """
    append_json(path, asdict(record))


def read_records(paths: Iterable[Path], *, strict: bool = False) -> Iterator[Record]:
    """Records of JSON-lines files, in order.

    Args:
        paths: files that exist.
        strict: raise on a line that is no record instead of skipping it. A torn last line is always skipped.

    Raises:
        RecordError: `strict`, and a line is no record; or a record is of a newer schema than this reader.
    """
    for path in paths:
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                yield _parse_record(line)
            except (TypeError, KeyError, json.JSONDecodeError) as error:
                if strict and number < len(lines):
                    raise RecordError(f"{path}:{number}", f"{line[:60]!r}", f"a record ({error})") from error
            except RecordError as error:
                raise RecordError(f"{path}:{number}", error.found, error.expected) from error


#: What a line must hold to be a record at all.
_TYPES: Mapping[str, tuple[type, ...]] = {
    **dict.fromkeys(("kind", "key", "run_id", "time_utc"), (str,)),
    **dict.fromkeys(("candidate", "measurements", "machine", "packages"), (dict,)),
    **dict.fromkeys(("case", "protocol", "git", "error"), (dict, type(None))),
}


def _parse_record(line: str) -> Record:
    fields = json.loads(line)
    if "\\ud" in line.lower():
        # Names of files need not be text; what cannot be written anywhere becomes a question mark.
        fields = json.loads(json.dumps(fields, ensure_ascii=False).encode(errors="replace"))
    schema = fields["schema"]
    if isinstance(schema, int) and schema > SCHEMA_VERSION:
        expected = f"at most {SCHEMA_VERSION}, as this version reads: update it"
        raise RecordError("a record", f"schema {schema}", expected)
    if not isinstance(schema, int):
        raise TypeError(f"schema: found {schema!r:.40}")
    for name, kinds in _TYPES.items():
        if name in fields and not isinstance(fields[name], kinds):
            raise TypeError(f"{name}: found {fields[name]!r:.40}")
    for older in range(schema, SCHEMA_VERSION):
        MIGRATIONS[older](fields)
    return Record(**fields | {"schema": SCHEMA_VERSION})


#: The one that schema 3 knew.
_IMAGES_RULE = {"box_rounding": "truncate", "resize": None, "overlap": "logit", "within_box": False, "zoom": False}


def _from_1(fields: dict[str, Any]) -> None:
    """Schema 1 knew no pinning: nothing was pinned. What is no measured candidate stays as it is."""
    if "threads" in fields["candidate"]:
        fields["candidate"]["cpus"] = None


def _from_2(fields: dict[str, Any]) -> None:
    """Schema 2 knew the published rule alone: the last object owned a voxel, masks went where they would."""
    if fields["protocol"]:
        fields["protocol"] |= {"overlap": "last", "within_box": False}
    elif _is_segmented_image(fields):
        fields["protocol"] = _IMAGES_RULE | {"overlap": "last"}


def _from_3(fields: dict[str, Any]) -> None:
    """Schema 3 knew one rule for images, and did not write it."""
    if not fields["protocol"] and _is_segmented_image(fields):
        fields["protocol"] = dict(_IMAGES_RULE)


def _is_segmented_image(fields: dict[str, Any]) -> bool:
    """Whether a candidate, not the ellipse, was measured on a case of two dimensions."""
    shape = (fields["case"] or {}).get("shape")
    return "threads" in fields["candidate"] and isinstance(shape, list) and len(shape) == 2


#: How the fields of a record of each older schema become those of the next, in place.
MIGRATIONS: Mapping[int, Callable[[dict[str, Any]], None]] = {1: _from_1, 2: _from_2, 3: _from_3}


def finished_keys(path: Path) -> set[str]:
    """Keys of what `path` already holds measured: errors are not finished work."""
    if not path.exists():
        return set()
    return {record.key for record in read_records([path]) if record.error is None}


def finite(value: float) -> float | None:
    """`value`, or None where it is NaN or infinite: undefined is written as null."""
    return value if math.isfinite(value) else None
