"""Where figures come from: machines, packages, commits, runs, weights, files, and what failed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reports.candidates import Candidate, Reading, label_candidates, lasting_name
from reports.case_info import CaseInfo
from reports.fields import listed, mapped
from reports.load import Loaded
from reports.rules import label_protocols
from reports.tables import NOTHING, Table

#: Instruction sets of which a machine's first that it has tell most: products in bfloat16 and int8, then float32.
WIDEST_FIRST = (
    ("amx_bf16", "amx_int8"),
    ("avx512_bf16", "avx512_vnni"),
    ("avx512f",),
    ("avx_vnni",),
    ("avx2",),
    ("bf16", "i8mm"),
    ("asimddp",),
    ("asimd",),
)


def describe_machine(machine: Mapping[str, Any]) -> str:
    """One line: CPU, its widest instruction sets, cores, memory, and GPU if it has one.

    Two CPUs of one name may differ in what decides how fast each precision is.
    """
    known = set(map(str, listed(machine.get("isa"))))
    widest = next((", ".join(found) for sets in WIDEST_FIRST if (found := [one for one in sets if one in known])), "")
    cpu = f"{machine.get('cpu') or 'unknown CPU'}{widest and f' ({widest})'}"
    gpu = f", {machine['gpu']}" if machine.get("gpu") else ""
    return f"{cpu}, {machine.get('cores', '?')} cores, {machine.get('memory_gib', '?')} GiB{gpu}"


def by_machine(records: Iterable[Reading]) -> dict[str, list[Reading]]:
    """Records by machine id, that of the latest record first."""
    machines: dict[str, list[Reading]] = {}
    for record in sorted(records, key=lambda record: record.time_utc, reverse=True):
        machines.setdefault(str(record.machine.get("id", "unknown")), []).append(record)
    return {machine: found[::-1] for machine, found in machines.items()}


def provenance(records: Sequence[Reading]) -> list[str]:
    """Sentences on the machine, packages and commits of the records of one machine."""
    machine = records[-1].machine
    commits = dict.fromkeys(short_commit(record.git) for record in records)
    versions: dict[str, dict[str, None]] = {}
    for record in records:
        for package, version in record.packages.items():
            versions.setdefault(package, {})[str(version)] = None
    packages = [f"{package} {' and '.join(found)}" for package, found in versions.items()]
    return [
        f"CPU: {describe_machine(machine)}; {machine.get('os', 'unknown system')}; id `{machine.get('id')}`",
        f"Instruction sets: {', '.join(map(str, listed(machine.get('isa')))) or 'unknown'}",
        f"Packages: {', '.join(packages) or 'unknown'}",
        f"Toolkit: {', '.join(commits)}",
    ]


def run_tables(records: Sequence[Reading]) -> list[Table]:
    """The runs of one machine."""
    runs: dict[str, list[Reading]] = {}
    for record in records:
        runs.setdefault(record.run_id, []).append(record)
    rows = [
        {
            "run": run_id,
            "first record (UTC)": min(record.time_utc for record in found)[:19],
            "last record (UTC)": max(record.time_utc for record in found)[:19],
            "records": str(len(found)),
            "failures": str(sum(record.kind == "error" for record in found)),
        }
        for run_id, found in runs.items()
    ]
    return [Table("runs", "Runs", rows, rows)]


def weights_tables(records: Iterable[Reading]) -> list[Table]:
    """The weights that candidates of one machine held."""
    candidates = dict.fromkeys(record.who for record in records)
    weights = {
        (who.encoder, who.weights, who.sha256, who.trained): None for who in candidates if who.is_model and who.weights
    }
    rows = [
        {"encoder": encoder, "weights": name, "trained": "yes" if trained else "no, random", "sha256": sha256}
        for encoder, name, sha256, trained in sorted(weights)
    ]
    return [Table("weights", "Weights", rows, rows)] if rows else []


@dataclass(frozen=True)
class Failure:
    """What could not be measured, in words.

    Attributes:
        time_utc: of the failure.
        candidate: what was to be measured.
        case: on which case, if on one.
        protocol: how that was to be segmented.
        error: type of the exception.
        message: of the exception.
        is_measured_since: whether a later record has it all the same.
    """

    time_utc: str
    candidate: str
    case: str
    protocol: str
    error: str
    message: str
    is_measured_since: bool


def failures_of(records: Sequence[Reading]) -> list[Failure]:
    """What failed on one machine, the latest last."""
    failed = [record for record in records if record.kind == "error"]
    labels, _ = label_candidates(record.who for record in failed)
    protocols, _ = label_protocols(failed)
    measured = [record for record in records if record.kind != "error"]
    since = {subject: record.time_utc for record in measured for subject in _subjects(record)}
    return [
        Failure(
            time_utc=record.time_utc,
            candidate=labels[record.who],
            case=record.case_info.case_id,
            protocol=protocols[record.protocol_id],
            error=str(mapped(record.error).get("type", "")),
            message=str(mapped(record.error).get("message", "")),
            is_measured_since=since.get(_subject(record), "") > record.time_utc,
        )
        for record in failed
    ]


def error_tables(records: Sequence[Reading]) -> list[Table]:
    """What failed on one machine; nothing where nothing did."""
    rows = [
        {
            "time (UTC)": failure.time_utc[:19],
            "candidate": failure.candidate,
            "case": failure.case,
            "protocol": failure.protocol,
            "error": failure.error,
            "message": failure.message,
            "measured since": "yes" if failure.is_measured_since else "no",
        }
        for failure in failures_of(records)
    ]
    return [Table("errors", "Failures", rows, rows)] if rows else []


def file_table(loaded: Loaded) -> Table:
    """The files that a report was made of."""
    rows = [
        {"file": file.path.name, "records": str(file.records), "lines skipped": str(file.skipped)}
        for file in loaded.files
    ]
    return Table("files", "Record files", rows, rows)


def reading_notes(loaded: Loaded) -> list[str]:
    """What a reader must know of the records: superseded ones, torn lines."""
    notes = []
    if loaded.superseded:
        notes.append(f"{loaded.superseded} records were measured again later: the latest counts.")
    if loaded.skipped:
        notes.append(f"{loaded.skipped} lines are no records (torn by a crash, or foreign) and were skipped.")
    return notes


def _subject(record: Reading) -> tuple[object, ...]:
    """What a record is about, whatever became of it. What could not be made knows no hash and no version."""
    who = record.who
    if who.sha256:
        told = record.measurements
        kind = str(told.get("kind", "")) if record.kind == "error" else record.kind
        # A cold pass is one alone.
        of_kind = {"accuracy": "tolerance_mm", "latency": "" if record.is_cold else "pass_index"}
        which = str(told.get(of_kind.get(kind, "")))
        return who, record.case_info, record.protocol_id, kind, record.is_cold, which
    return lasting_name(who), who.weights, record.case_info


def _subjects(record: Reading) -> Iterator[tuple[object, ...]]:
    """Of a measurement: itself, that its case was read, and its candidate made, of these weights or by default."""
    yield _subject(record)
    yield record.who, record.case_info, record.protocol_id, "", False, "None"  # errors of before say no kind
    yield lasting_name(Candidate("")), "", CaseInfo(name := record.case_info.case_id, content=name)
    for weights in (record.who.weights, ""):
        yield lasting_name(record.who), weights, CaseInfo("")


def short_commit(git: Mapping[str, Any] | None) -> str:
    """The first 12 digits, and whether there were changes on top."""
    if not git:
        return "no commit known"
    return f"`{str(git.get('commit', NOTHING))[:12]}`{' with uncommitted changes' if git.get('dirty') else ''}"
