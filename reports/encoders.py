"""The encoder table: cost and latency of the parts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from reports.candidates import Candidate, Reading, choose_baseline
from reports.fields import listed, mapped
from reports.statistics import Ratio, Samples, Spread, number, ratio_of_medians, run_samples, spread_of
from reports.tables import (
    NOTHING,
    SPEEDUP,
    Table,
    flatten,
    milliseconds,
    significant,
    speedup_cell,
    spread_ms,
    whole,
)

#: Headings of `EncoderRow.box_s` and `EncoderRow.foveated_s`.
FAST_PATH = "fast path, a box (ms)"
FOVEA = "fovea, a box (ms)"
#: What a record of parts has seconds of, in words, and the key of how many boxes a call decodes.
PARTS = {
    "encode_s": ("encoder", ""),
    "decode_s": ("decoder, one box,", ""),
    "decode_boxes_s": ("fast path, a box,", "boxes"),
    "decode_foveated_s": ("fovea, a box,", "boxes"),
}
#: The runtime and precision that an encoder's others are compared with: what runs everywhere.
COMMON = ("torch", "fp32")
#: Relative difference between the two counters that is worth a word.
COUNTERS_AGREE = 0.01


@dataclass(frozen=True)
class EncoderRow:
    """Cost and latency of one candidate on one machine; NaN where it was not measured.

    Attributes:
        candidate: what was measured.
        input_px: side of the encoder's input.
        encoder_params: number of parameters.
        encoder_gmacs: multiply-adds of one image, by fvcore, in 1e9.
        second_gmacs: the same by torch's own counter.
        decoder_params: of prompt encoder and mask decoder.
        decoder_gmacs: multiply-adds of one prompt.
        uncounted: operators that fvcore passed over, with how often.
        title: the published model.
        licence: of its weights.
        weights_from: where users get them.
        run_id: the run that timed it.
        encode_samples: seconds of each encoder call.
        encode_s: their spread.
        encode_first_s: the very first call.
        decode_s: spread of the seconds of one prompt by the plain decoder.
        box_s: spread of the seconds of a box among others by the fast path.
        foveated_s: likewise with a fovea.
        speedup: median latency of the baseline's encoder over this one's.
        is_baseline: whether ratios of its number of threads are taken to this row.
    """

    candidate: Candidate
    input_px: float = math.nan
    encoder_params: float = math.nan
    encoder_gmacs: float = math.nan
    second_gmacs: float = math.nan
    decoder_params: float = math.nan
    decoder_gmacs: float = math.nan
    uncounted: str = ""
    title: str = ""
    licence: str = ""
    weights_from: str = ""
    run_id: str = ""
    encode_samples: Samples = field(default_factory=Samples)
    encode_s: Spread = field(default_factory=Spread)
    encode_first_s: float = math.nan
    decode_s: Spread = field(default_factory=Spread)
    box_s: Spread = field(default_factory=Spread)
    foveated_s: Spread = field(default_factory=Spread)
    speedup: Ratio = field(default_factory=Ratio)
    is_baseline: bool = False

    @property
    def protocol_name(self) -> str:
        """Parts have no protocol."""
        return ""

    @property
    def run_ids(self) -> set[str]:
        """The run that timed it."""
        return {self.run_id}

    @property
    def median_s(self) -> float:
        """Median encoder latency."""
        return self.encode_s.median

    @property
    def counters_differ(self) -> bool:
        """Whether the second counter's figure is more than 1 % off."""
        return abs(self.second_gmacs - self.encoder_gmacs) > COUNTERS_AGREE * self.encoder_gmacs


def encoder_rows(records: Iterable[Reading], baseline: str | None = None) -> list[EncoderRow]:
    """A row for each candidate of one machine, by number of threads, the slowest first.

    A candidate that was timed in several runs shows the latest in which its baseline was timed too: interleaved samples
    before others. Ratios are taken within one number of threads.

    Args:
        records: of one machine, without superseded ones.
        baseline: encoder that ratios are taken to; see `reports.candidates.choose_baseline`.
    """
    rows: dict[Candidate, EncoderRow] = {}
    timed: dict[Candidate, list[EncoderRow]] = {}
    for record in records:
        if record.case is not None or record.kind not in ("cost", "latency"):
            continue
        candidate = record.who
        if record.kind == "cost":
            rows[candidate] = _with_cost(rows.get(candidate, EncoderRow(candidate)), record)
        else:
            rows.setdefault(candidate, EncoderRow(candidate))
            timed.setdefault(candidate, []).append(_with_parts(EncoderRow(candidate), record))
    merged: list[EncoderRow] = []
    for threads in sorted({candidate.threads for candidate in rows}):
        same = {who: row for who, row in rows.items() if who.threads == threads}
        merged += _compare(same, {who: timed[who] for who in same if who in timed}, baseline)
    return merged


def timed(rows: Sequence[EncoderRow]) -> list[EncoderRow]:
    """Rows that have a latency."""
    return [row for row in rows if math.isfinite(row.median_s)]


def is_common(candidate: Candidate) -> bool:
    """Whether it runs in `COMMON`."""
    return (candidate.backend, candidate.precision) == COMMON


def encoder_tables(rows: Sequence[EncoderRow]) -> list[Table]:
    """The encoder table, or nothing where there are no rows."""
    if not rows:
        return []
    visible = [(r.candidate.encoder, r.candidate.variant, r.candidate.backend, r.candidate.precision) for r in rows]
    same_looking = len({(*name, row.candidate.threads) for name, row in zip(visible, rows, strict=True)}) < len(rows)
    several_runs = len({row.run_id for row in rows if row.run_id}) > 1
    fovea = any(row.foveated_s.n for row in rows)
    shown = [_shown(row, weights=same_looking, fovea=fovea, run=several_runs) for row in rows]
    return [Table("encoders", "Encoders", shown, [flatten(row) for row in rows], _notes(rows))]


def short_encoder_rows(rows: Sequence[EncoderRow]) -> list[dict[str, str]]:
    """The encoder table's columns that a README has room for."""
    return [
        {
            "encoder": row.candidate.encoder,
            "runtime": f"{row.candidate.backend} {row.candidate.precision}",
            "params (M)": significant(row.encoder_params / 1e6),
            "GMACs": significant(row.encoder_gmacs),
            "encoder (ms), median [IQR]": spread_ms(row.encode_s),
            SPEEDUP: speedup_cell(row.speedup, is_baseline=row.is_baseline),
        }
        for row in rows
    ]


def _with_cost(row: EncoderRow, record: Reading) -> EncoderRow:
    found = record.measurements
    uncounted = mapped(found.get("uncounted_operators"))
    return replace(
        row,
        input_px=number(found.get("input_px")),
        encoder_params=number(found.get("encoder_params")),
        encoder_gmacs=number(found.get("encoder_gmacs")),
        second_gmacs=number(found.get("encoder_gmacs_second_counter")),
        decoder_params=number(found.get("decoder_params")),
        decoder_gmacs=number(found.get("decoder_gmacs")),
        uncounted=", ".join(f"{str(name).removeprefix('aten::')} {count}" for name, count in uncounted.items()),
        title=str(found.get("title") or ""),
        licence=str(found.get("licence") or ""),
        weights_from=str(found.get("weights_from") or ""),
    )


def _with_parts(row: EncoderRow, record: Reading) -> EncoderRow:
    found = record.measurements
    encode, decode, boxes, foveated = (part_samples(record, part) for part in PARTS)
    return replace(
        row,
        input_px=number(found.get("input_px")),
        run_id=record.run_id,
        encode_samples=encode,
        encode_s=spread_of(encode),
        encode_first_s=number(found.get("encode_first_s")),
        decode_s=spread_of(decode),
        box_s=spread_of(boxes),
        foveated_s=spread_of(foveated),
    )


def part_samples(record: Reading, part: str) -> Samples:
    """Seconds of each call of one of `PARTS`, of a box where it decodes several."""
    found, (_, several) = record.measurements, PARTS[part]
    calls_in_one = number(found.get(several)) if several else 1.0
    values = listed(found.get(part))
    return run_samples(record.run_id, [number(value) / calls_in_one for value in values] if calls_in_one else [])


def _compare(
    costs: dict[Candidate, EncoderRow], timed: dict[Candidate, list[EncoderRow]], baseline: str | None
) -> list[EncoderRow]:
    """Rows of one number of threads with their ratios, slowest first, the untimed last."""
    chosen = choose_baseline([runs[-1] for runs in timed.values()], baseline)
    base_runs = {run.run_id: run for run in timed[chosen.candidate]} if chosen else {}
    compared = []
    for candidate, cost in costs.items():
        runs = timed.get(candidate, [])
        run = next((run for run in reversed(runs) if run.run_id in base_runs), runs[-1] if runs else None)
        if run is None or chosen is None:
            compared.append(cost)
            continue
        base = base_runs.get(run.run_id, chosen)
        compared.append(_merge(cost, run, base, is_baseline=candidate == chosen.candidate))
    return sorted(compared, key=lambda row: -row.median_s if math.isfinite(row.median_s) else math.inf)


def _merge(cost: EncoderRow, run: EncoderRow, base: EncoderRow, *, is_baseline: bool) -> EncoderRow:
    return replace(
        cost,
        input_px=run.input_px if math.isfinite(run.input_px) else cost.input_px,
        run_id=run.run_id,
        encode_samples=run.encode_samples,
        encode_s=run.encode_s,
        encode_first_s=run.encode_first_s,
        decode_s=run.decode_s,
        box_s=run.box_s,
        foveated_s=run.foveated_s,
        speedup=ratio_of_medians(base.encode_samples, run.encode_samples),
        is_baseline=is_baseline,
    )


def _shown(row: EncoderRow, *, weights: bool, fovea: bool, run: bool) -> dict[str, str]:
    who = row.candidate
    return (
        {"encoder": who.encoder, "variant": who.variant}
        | ({"weights": who.weights_id} if weights else {})
        | {
            "runtime": who.backend,
            "precision": who.precision,
            "threads": str(who.threads or NOTHING),
            "input (px)": whole(row.input_px),
            "params (M)": significant(row.encoder_params / 1e6),
            "GMACs": significant(row.encoder_gmacs) + (" *" if row.counters_differ else ""),
            "encoder (ms), median [IQR]": spread_ms(row.encode_s),
            "decoder (ms)": milliseconds(row.decode_s.median),
            FAST_PATH: milliseconds(row.box_s.median),
            **({FOVEA: milliseconds(row.foveated_s.median)} if fovea else {}),
            "first call (ms)": milliseconds(row.encode_first_s),
            SPEEDUP: speedup_cell(row.speedup, is_baseline=row.is_baseline),
        }
        | ({"run": row.run_id} if run else {})
    )


def _notes(rows: Sequence[EncoderRow]) -> tuple[str, ...]:
    """What the table's figures leave out."""
    rounds = sorted({row.encode_s.n for row in rows if row.encode_s.n})
    notes = []
    if rounds:
        fovea = (
            "; with a fovea, as `segment` by default, what lies in boxes half as wide and high as the image"
            if any(row.foveated_s.n for row in rows)
            else ""
        )
        notes.append(
            f"Encoder and decoder: {'/'.join(map(str, rounds))} calls each; the decoder decodes one box, the fast path "
            f"a batch of boxes on one image, whole masks of each{fovea}."
        )
    uncounted = sorted({item.split()[0] for row in rows for item in row.uncounted.split(", ") if item})
    if uncounted:
        where = "how often each encoder calls them is in encoders.csv"
        notes.append(f"GMACs by fvcore, which does not count these operators: {', '.join(uncounted)} ({where}).")
    differing = {f"{r.candidate.encoder} {significant(r.second_gmacs)}": None for r in rows if r.counters_differ}
    if differing:
        notes.append(f"\\* torch's own counter differs by more than 1 %: {', '.join(differing)} GMACs.")
    return tuple(notes)
