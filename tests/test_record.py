"""Records survive crashes, and are found again."""

from __future__ import annotations

import json
import math
import multiprocessing
import resource
from dataclasses import replace
from pathlib import Path

import portalocker
import pytest

import zoo.files
from bench.record import (
    MIGRATIONS,
    SCHEMA_VERSION,
    Record,
    RecordError,
    append_record,
    finished_keys,
    read_records,
    record_key,
)
from reports.render import render_report
from zoo.errors import InputError
from zoo.files import append_json, check_writable


def record(key: str = "k", **changes: object) -> Record:
    fields: dict[str, object] = {
        "kind": "cost",
        "candidate": {"encoder": "repvit"},
        "measurements": {"encoder_gmacs": 31.1},
        "machine": {"id": "m"},
        "run_id": "r",
        "key": key,
    }
    return Record(**(fields | changes))  # type: ignore[arg-type]


def test_round_trip_rounds_nothing(tmp_path: Path) -> None:
    written = record(measurements={"encode_s": [0.1 + 0.2, 1 / 3]})
    append_record(tmp_path / "new" / "a.jsonl", written)
    assert list(read_records([tmp_path / "new" / "a.jsonl"])) == [written]


def test_a_torn_line_costs_only_itself(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    append_record(path, record("one"))
    with path.open("a") as stream:
        stream.write('{"kind": "cost", "candi')
    append_record(path, record("two"))
    assert [r.key for r in read_records([path])] == ["one", "two"]
    with pytest.raises(RecordError, match=r"a\.jsonl:2"):
        list(read_records([path], strict=True))


def test_a_torn_last_line_is_no_error(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    append_record(path, record("one"))
    path.write_text(path.read_text() + '{"kind')
    assert [r.key for r in read_records([path], strict=True)] == ["one"]


def test_errors_are_not_finished_work(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    assert finished_keys(path) == set()
    append_record(path, record("done"))
    append_record(path, record("failed", kind="error", error={"type": "E", "message": "m"}))
    assert finished_keys(path) == {"done"}


def test_a_newer_schema_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    append_record(path, record(schema=99))
    with pytest.raises(RecordError, match="found schema 99"):
        list(read_records([path]))


@pytest.mark.parametrize("part", ["case", "protocol", "candidate"])
def test_an_older_line_of_other_types_is_no_record(part: str, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    append_record(path, record("one"))
    older = json.loads(path.read_text()) | {"schema": 3, "candidate": {"encoder": "a", "threads": 2}, part: "x"}
    path.write_text(json.dumps(older) + "\n" + path.read_text())
    assert [r.key for r in read_records([path])] == ["one"]
    with pytest.raises(RecordError, match=rf"{part}: found 'x'"):
        list(read_records([path], strict=True))


def test_a_place_where_nothing_can_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"file/a\.jsonl: found no room or no right to write \(.*/file"):
        check_writable(tmp_path / "file" / "a.jsonl")
    check_writable(tmp_path / "new" / "a.jsonl")
    append_record(tmp_path / "new" / "a.jsonl", record())
    check_writable(tmp_path / "new" / "a.jsonl")
    assert len(list(read_records([tmp_path / "new" / "a.jsonl"]))) == 1


def test_nan_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        append_record(tmp_path / "a.jsonl", record(measurements={"x": math.nan}))
    assert not (tmp_path / "a.jsonl").exists()


def test_keys_tell_measurements_apart() -> None:
    base = record_key("cost", {"encoder": "a"}, "m")
    assert base == record_key("cost", {"encoder": "a"}, "m")
    others = [
        record_key("latency", {"encoder": "a"}, "m"),
        record_key("cost", {"encoder": "b"}, "m"),
        record_key("cost", {"encoder": "a"}, "n"),
        record_key("cost", {"encoder": "a"}, "m", {"sha256": "1"}),
        record_key("cost", {"encoder": "a"}, "m", None, {"name": "cached"}),
        record_key("cost", {"encoder": "a"}, "m", pass_index=1),
    ]
    assert len({base, *others}) == 7


def _append_many(path: Path, writer: int) -> None:
    for number in range(40):
        append_record(path, record(f"{writer}-{number}", measurements={"pad": "x" * 3000}))


def test_writers_at_once_tear_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_append_many, args=(path, number)) for number in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(list(read_records([path], strict=True))) == 120
    assert all(json.loads(line) for line in path.read_text().splitlines())


SCHEMAS = sorted((Path(__file__).parent / "golden" / "records").glob("schema_*.jsonl"))


def test_every_older_schema_has_a_fixture() -> None:
    assert [path.stem for path in SCHEMAS] == [f"schema_{number}" for number in range(1, SCHEMA_VERSION)]
    assert sorted(MIGRATIONS) == list(range(1, SCHEMA_VERSION))


@pytest.mark.parametrize("path", SCHEMAS, ids=lambda path: path.stem)
def test_older_schemas_are_read_as_the_newest(path: Path) -> None:
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    records = list(read_records([path], strict=True))
    assert {record.kind for record in records} >= {"cost", "latency", "accuracy", "error"}
    assert all(line["schema"] == int(path.stem[-1]) for line in lines)
    assert {record.schema for record in records} == {SCHEMA_VERSION}
    assert [record.measurements for record in records] == [line["measurements"] for line in lines]
    measured = [record.candidate for record in records if record.candidate["encoder"] != "box ellipse"]
    assert all(candidate["cpus"] is None for candidate in measured), "schema 1 pinned nothing"
    walked = [record.protocol for record in records if record.protocol and "name" in record.protocol]
    assert walked or path.stem == "schema_1"
    rules = {(protocol["overlap"], protocol["within_box"]) for protocol in walked}
    assert path.stem == "schema_3" or rules <= {("last", False)}, "schema 2 had no other rule"


@pytest.mark.parametrize(("schema", "overlap"), [(1, "last"), (2, "last"), (3, "logit"), (4, None)])
def test_the_rule_of_images_that_older_schemas_did_not_write(schema: int, overlap: str | None, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    measured = {"encoder": "repvit", "threads": 2}
    cases: list[tuple[dict[str, object], list[int] | None]] = [
        (measured, [64, 64]),
        (measured, [4, 64, 64]),
        (measured, None),
        ({"encoder": "box ellipse"}, [64, 64]),
    ]
    for candidate, shape in cases:
        append_record(path, record(candidate=candidate, case=shape and {"shape": shape}, schema=schema))
    image, *others = (read.protocol for read in read_records([path], strict=True))
    assert others == [None] * 3
    rule = {"box_rounding": "truncate", "resize": None, "overlap": overlap, "within_box": False, "zoom": False}
    assert image == (rule if overlap else None)


@pytest.mark.parametrize("path", SCHEMAS, ids=lambda path: path.stem)
def test_older_schemas_are_reported_beside_the_newest(path: Path, tmp_path: Path) -> None:
    newest = tmp_path / "newest.jsonl"
    older = list(read_records([path]))
    for old in older:
        append_record(newest, replace(old, key=f"{old.key}-new"))
    text = render_report([path, newest])
    measured = {old.case["case_id"] for old in older if old.case and old.kind in ("latency", "accuracy")}
    assert measured
    assert all(case_id in text for case_id in measured)
    assert text.count("Failures") == 1


def test_a_disk_with_room_for_a_part_of_a_record_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "records.jsonl"
    append_json(path, {"number": 1})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 10, limits[1]))
    try:
        with pytest.raises(InputError, match=r"records.jsonl: found no room .*No space left"):
            append_json(path, {"text": "x" * 100})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_text() == '{"number":1}\n'


def test_a_file_system_without_locks_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise portalocker.LockException("[Errno 37] No locks available")

    monkeypatch.setattr(zoo.files.portalocker, "Lock", refuse)
    with pytest.raises(InputError, match=r"records.jsonl: found .*No locks available"):
        append_json(tmp_path / "records.jsonl", {"number": 1})
