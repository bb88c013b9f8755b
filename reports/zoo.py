"""The zoo table: every encoder once, with its cost, its fastest runtime here, its licence and its weights."""

from __future__ import annotations

from collections.abc import Sequence

from reports.candidates import fastest_of
from reports.encoders import FAST_PATH, FOVEA, EncoderRow, is_common
from reports.statistics import ratio_of_medians
from reports.tables import NOTHING, Table, milliseconds, significant, speedup_cell, whole


def zoo_tables(rows: Sequence[EncoderRow]) -> list[Table]:
    """The zoo table and, of encoders that were timed in several runtimes, the table of runtimes.

    Their data are in the encoder table's CSV.
    """
    shown = short_zoo_rows(rows)
    threads = _threads_note(rows)
    tables = [Table("zoo", "The zoo", shown, shown, (ZOO_NOTE, *threads))] if shown else []
    runtimes = short_runtime_rows(rows)
    if runtimes:
        notes = (RUNTIMES_NOTE, *threads)
        tables.append(Table("runtimes", "Runtimes and precisions", runtimes, runtimes, notes, RUNTIME_COLUMNS))
    return tables


def _threads_note(rows: Sequence[EncoderRow]) -> tuple[str, ...]:
    threads = {row.candidate.threads for row in rows if row.encode_s.n}
    return (f"Of {_usual_threads(rows)} threads; others are in the table of encoders.",) if len(threads) > 1 else ()


def _usual_threads(rows: Sequence[EncoderRow]) -> int:
    """The number that most timed rows have."""
    threads = [row.candidate.threads for row in rows if row.encode_s.n]
    return max(threads, key=threads.count, default=0)


ZOO_NOTE = (
    "Parameters and GMACs are of the image encoder at its input size. Fastest: of the runtimes and precisions that "
    "were timed here. Weights with a non-commercial licence are not for commercial use."
)
#: Named once, in an encoder's first row.
RUNTIME_COLUMNS = ("encoder",)
RUNTIMES_NOTE = "Speed-up: over the same encoder in torch fp32, timed in the same rounds unless marked u."


def short_zoo_rows(rows: Sequence[EncoderRow]) -> list[dict[str, str]]:
    """A row for each encoder of which a licence is known, the slowest first; empty if there is none."""
    shown = []
    for group in _by_encoder(rows):
        common, fastest = _common(group), fastest_of(group)
        if not (facts := next((row for row in group if row.licence), None)):
            continue
        runtime = f" ({fastest.candidate.backend} {fastest.candidate.precision})"
        shown.append(
            {
                "encoder": facts.candidate.encoder,
                "model": facts.title,
                "input (px)": whole(facts.input_px),
                "params (M)": significant(facts.encoder_params / 1e6),
                "GMACs": significant(facts.encoder_gmacs),
                "torch fp32 (ms)": milliseconds(common.median_s) if common else NOTHING,
                "fastest (ms)": milliseconds(fastest.median_s) + runtime if fastest is not common else NOTHING,
                "weights": facts.weights_from,
                "licence": facts.licence,
            }
        )
    return shown


def short_runtime_rows(rows: Sequence[EncoderRow]) -> list[dict[str, str]]:
    """Encoder by runtime by precision, of encoders timed in more than one; the slowest of an encoder first."""
    shown: list[dict[str, str]] = []
    fovea = any(row.foveated_s.n for row in rows)
    for group in _by_encoder(rows):
        common = _common(group)
        if common is None or len(group) < 2:
            continue
        for row in sorted(_of_each_runtime(group), key=_latency, reverse=True):
            ratio = ratio_of_medians(common.encode_samples, row.encode_samples)
            shown.append(
                {
                    "encoder": row.candidate.encoder,
                    "variant": row.candidate.variant,
                    "runtime": row.candidate.backend,
                    "precision": row.candidate.precision,
                    "encoder (ms)": milliseconds(row.median_s),
                    "decoder, one box (ms)": milliseconds(row.decode_s.median),
                    FAST_PATH: milliseconds(row.box_s.median),
                    **({FOVEA: milliseconds(row.foveated_s.median)} if fovea else {}),
                    "speed-up": speedup_cell(ratio, is_baseline=row is common),
                }
            )
    return shown


def _by_encoder(rows: Sequence[EncoderRow]) -> list[list[EncoderRow]]:
    """Timed rows of each encoder, at the number of threads that most rows have, in the order of `rows`."""
    usual = _usual_threads(rows)
    groups: dict[str, list[EncoderRow]] = {}
    for row in rows:
        if row.encode_s.n and row.candidate.threads == usual:
            groups.setdefault(row.candidate.encoder, []).append(row)
    return list(groups.values())


def _of_each_runtime(group: Sequence[EncoderRow]) -> list[EncoderRow]:
    """One row for each variant, runtime and precision: other weights are no faster."""
    alike: dict[tuple[str, str, str], list[EncoderRow]] = {}
    for row in group:
        who = row.candidate
        alike.setdefault((who.variant, who.backend, who.precision), []).append(row)
    return [fastest_of(rows) for rows in alike.values()]


def _common(group: Sequence[EncoderRow]) -> EncoderRow | None:
    found = [row for row in group if is_common(row.candidate)]
    return fastest_of(found) if found else None


def _latency(row: EncoderRow) -> float:
    return row.median_s
