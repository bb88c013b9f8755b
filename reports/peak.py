"""The machine's measured limits, and how much of them each encoder uses."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from bench.record import Record
from reports.encoders import EncoderRow
from reports.statistics import Spread, finite_samples, number, spread_of
from reports.tables import NOTHING, Table, flatten, milliseconds, significant, spread_cell

PRECISIONS = ("fp32", "bf16", "int8")
PEAK_NOTE = (
    "Measured by `bench --calibrate`: square matrix products (fp32 and bf16 by torch, int8 by ONNX Runtime), and a sum "
    "of two arrays that fit no cache. bf16 is left out on a CPU without bfloat16 instructions."
)
SHARE_NOTE = (
    "Share of peak: multiply-adds a second over those of a matrix product of the same precision and threads. It tells "
    "laptops apart by how well a runtime uses them, not by how fast they are. Above 100 %: the runtime multiplies "
    "less than was counted (Winograd's convolutions), or the machine was slower while it was calibrated."
)


@dataclass(frozen=True)
class Peak:
    """What one machine can do at best with so many threads; NaN where it was not measured.

    Attributes:
        threads: that one operator may use.
        product_s: spread of the seconds of one matrix product, by precision.
        product_macs: multiply-adds of that product.
        stream_s: spread of the seconds of one pass over the stream.
        stream_bytes: bytes that a pass reads and writes.
        run_id: the run that measured it.
    """

    threads: int
    product_s: Mapping[str, Spread] = field(default_factory=dict)
    product_macs: float = math.nan
    stream_s: Spread = field(default_factory=Spread)
    stream_bytes: float = math.nan
    run_id: str = ""

    def gmacs_per_s(self, precision: str) -> float:
        """Multiply-adds a second, in 1e9, by the median product; NaN for a precision that was not measured."""
        return self.product_macs / self.product_s.get(precision, Spread()).median / 1e9

    @property
    def gbytes_per_s(self) -> float:
        """Memory traffic a second, in 1e9 bytes, by the median pass."""
        return self.stream_bytes / self.stream_s.median / 1e9


@dataclass(frozen=True)
class Share:
    """How much of the machine one encoder uses.

    Attributes:
        row: the encoder.
        gmacs_per_s: its multiply-adds a second, in 1e9.
        of_peak: those over the machine's, NaN where its peak is not known.
    """

    row: EncoderRow
    gmacs_per_s: float
    of_peak: float


def read_peaks(records: Iterable[Record]) -> dict[int, Peak]:
    """The limits of one machine by number of threads; of several calibrations the latest."""
    return {peak.threads: peak for peak in (_peak(record) for record in records if record.kind == "peak")}


def shares(rows: Sequence[EncoderRow], peaks: Mapping[int, Peak]) -> list[Share]:
    """Of the encoders whose cost and latency are known, on a machine that was calibrated; the best used first."""
    if not peaks:
        return []
    found = [_share(row, peaks.get(row.candidate.threads)) for row in rows]
    known = [share for share in found if math.isfinite(share.gmacs_per_s)]
    return sorted(known, key=lambda share: -share.of_peak if math.isfinite(share.of_peak) else math.inf)


def peak_tables(rows: Sequence[EncoderRow], peaks: Mapping[int, Peak]) -> list[Table]:
    """The machine's limits, and the share of them that each encoder uses; nothing without a calibration."""
    if not peaks:
        return []
    used = shares(rows, peaks)
    limits = [_limits(peak) for _, peak in sorted(peaks.items())]
    tables = [Table("peak", "What this machine can do", limits, [_data(peak) for peak in peaks.values()], (PEAK_NOTE,))]
    if used:
        shown = [_shown(share) for share in used]
        data = [
            flatten(share.row.candidate) | {"gmacs_per_s": share.gmacs_per_s, "of_peak": share.of_peak}
            for share in used
        ]
        tables.append(Table("shares", "Share of the peak", shown, data, (SHARE_NOTE,)))
    return tables


def _peak(record: Record) -> Peak:
    found = record.measurements

    def spread(name: str) -> Spread:
        values = found.get(name) or []
        return spread_of(finite_samples(values, ((record.run_id, index) for index in range(len(values)))))

    return Peak(
        threads=int(record.candidate.get("threads") or 0),
        product_s={precision: spread(f"{precision}_s") for precision in PRECISIONS},
        product_macs=number(found.get("product_macs")),
        stream_s=spread("stream_s"),
        stream_bytes=number(found.get("stream_bytes")),
        run_id=record.run_id,
    )


def _share(row: EncoderRow, peak: Peak | None) -> Share:
    achieved = row.encoder_gmacs / row.median_s
    return Share(row, achieved, achieved / peak.gmacs_per_s(row.candidate.precision) if peak else math.nan)


def _limits(peak: Peak) -> dict[str, str]:
    products = {
        f"{precision} (GMAC/s), median [IQR]": spread_cell(
            peak.product_s[precision], lambda seconds: peak.product_macs / seconds / 1e9
        )
        for precision in PRECISIONS
    }
    stream = spread_cell(peak.stream_s, lambda seconds: peak.stream_bytes / seconds / 1e9)
    return {
        "threads": str(peak.threads),
        **products,
        "memory (GB/s), median [IQR]": stream,
        "n": str(peak.stream_s.n),
        "run": peak.run_id,
    }


def _data(peak: Peak) -> dict[str, object]:
    products: dict[str, object] = {f"{name}_gmacs_per_s": peak.gmacs_per_s(name) for name in PRECISIONS}
    return {"threads": peak.threads, **products, "memory_gbytes_per_s": peak.gbytes_per_s, "run_id": peak.run_id}


def _shown(share: Share) -> dict[str, str]:
    who = share.row.candidate
    return {
        "encoder": who.encoder,
        "variant": who.variant,
        "runtime": who.backend,
        "precision": who.precision,
        "threads": str(who.threads),
        "GMACs": significant(share.row.encoder_gmacs),
        "encoder (ms)": milliseconds(share.row.median_s),
        "GMAC/s": significant(share.gmacs_per_s),
        "share of peak (%)": f"{100 * share.of_peak:.0f}" if math.isfinite(share.of_peak) else NOTHING,
    }
