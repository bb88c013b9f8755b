"""The machine's measured limits, and how much of them each encoder uses."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from reports.candidates import Candidate, Reading
from reports.encoders import EncoderRow
from reports.fields import listed
from reports.statistics import Spread, number, run_samples, spread_of
from reports.tables import NOTHING, Table, flatten, milliseconds, significant, spread_cell

ENCODER, DECODER = "encoder", "decoder, one box"
#: In the names of runtimes that a CPU's peak is no measure of.
GPU = "cuda"
PRECISIONS = ("fp32", "bf16", "int8")
PEAK_NOTE = (
    "Measured by `bench --calibrate`: square matrix products (fp32 by torch or ONNX Runtime, whichever is faster, bf16 "
    "by torch, int8 by ONNX Runtime), and a sum of two arrays that fit no cache. bf16 is left out on a CPU without "
    "bfloat16 instructions."
)
SHARE_NOTE = (
    "Share of peak: multiply-adds a second over those of a matrix product of the same precision, threads and CPUs, by "
    "the calibration of the same run, or else the latest. It tells laptops apart by how well a runtime uses them, not "
    "by how fast they are. Above 100 %: the runtime multiplies less than was counted (Winograd's convolutions), or the "
    "machine was slower while it was calibrated."
)


@dataclass(frozen=True)
class Peak:
    """What one machine can do at best with so many threads; NaN where it was not measured.

    Attributes:
        threads: that one operator may use.
        cpus: pinned to, empty for none.
        product_s: spread of the seconds of one matrix product, by precision.
        product_macs: multiply-adds of that product.
        stream_s: spread of the seconds of one pass over the stream.
        stream_bytes: bytes that a pass reads and writes.
        run_id: the run that measured it.
    """

    threads: int
    cpus: str = ""
    product_s: Mapping[str, Spread] = field(default_factory=dict)
    product_macs: float = math.nan
    stream_s: Spread = field(default_factory=Spread)
    stream_bytes: float = math.nan
    run_id: str = ""

    def gmacs_per_s(self, precision: str) -> float:
        """Multiply-adds a second, in 1e9, by the median product; NaN for a precision that was not measured."""
        return _rate(self.product_macs, self.product_s.get(precision, Spread()).median) / 1e9

    @property
    def gbytes_per_s(self) -> float:
        """Memory traffic a second, in 1e9 bytes, by the median pass."""
        return _rate(self.stream_bytes, self.stream_s.median) / 1e9


@dataclass(frozen=True)
class Share:
    """How much of the machine something that was timed uses.

    Attributes:
        candidate: what was timed.
        what: `encoder` or `decoder, one box`.
        gmacs: multiply-adds of it, in 1e9, by fvcore.
        median_s: its latency.
        of_peak: its multiply-adds a second over the machine's, NaN where its peak is not known.
        n: number of samples.
        runs: that they come from.
    """

    candidate: Candidate
    what: str
    gmacs: float
    median_s: float
    of_peak: float
    n: int
    runs: str

    @property
    def gmacs_per_s(self) -> float:
        """Multiply-adds a second, in 1e9."""
        return _rate(self.gmacs, self.median_s)


def read_peaks(records: Iterable[Reading]) -> list[Peak]:
    """The limits of one machine, in order of time."""
    return [_peak(record) for record in records if record.kind == "peak"]


def encoder_shares(rows: Sequence[EncoderRow], peaks: Sequence[Peak]) -> list[Share]:
    """Of the encoders whose cost and latency are known, on a machine that was calibrated; the best used first."""
    return _ordered(
        _share(
            row.candidate, ENCODER, {_of_encoder(row.candidate): row.encoder_gmacs}, row.encode_s, row.run_ids, peaks
        )
        for row in rows
    )


def decoder_shares(rows: Sequence[EncoderRow], peaks: Sequence[Peak]) -> list[Share]:
    """Likewise of the decoders, with one box."""
    return _ordered(
        _share(
            row.candidate, DECODER, {_of_decoder(row.candidate): row.decoder_gmacs}, row.decode_s, row.run_ids, peaks
        )
        for row in rows
    )


def peak_tables(encoders: Sequence[EncoderRow], peaks: Sequence[Peak]) -> list[Table]:
    """The machine's limits, and the share of them that each latency stands for; nothing without a calibration."""
    if not peaks:
        return []
    used = [*encoder_shares(encoders, peaks), *decoder_shares(encoders, peaks)]
    ordered = sorted(peaks, key=lambda peak: (peak.threads, peak.cpus))
    limits, data = [_limits(peak) for peak in ordered], [_data(peak) for peak in ordered]
    tables = [Table("peak", "What this machine can do", limits, data, (PEAK_NOTE,))]
    if used:
        shown = [_shown(share) for share in used]
        data = [flatten(share) | {"gmacs_per_s": share.gmacs_per_s} for share in used]
        tables.append(Table("shares", "Share of the peak", shown, data, (SHARE_NOTE,)))
    return tables


def _peak(record: Reading) -> Peak:
    found = record.measurements

    def spread(name: str) -> Spread:
        return spread_of(run_samples(record.run_id, listed(found.get(name))))

    return Peak(
        threads=record.who.threads,
        cpus=record.who.cpus,
        product_s={precision: spread(f"{precision}_s") for precision in PRECISIONS},
        product_macs=number(found.get("product_macs")),
        stream_s=spread("stream_s"),
        stream_bytes=number(found.get("stream_bytes")),
        run_id=record.run_id,
    )


def _of_encoder(who: Candidate) -> str:
    """The precision of a candidate's encoder, of which `quantize` leaves a few layers in float."""
    return {"int8+bf16": "int8"}.get(who.precision, who.precision)


def _of_decoder(who: Candidate) -> str:
    """The precision of a candidate's decoder, which `quantize` leaves in float."""
    return {"int8": "fp32", "int8+bf16": "bf16"}.get(who.precision, who.precision)


def _share(
    who: Candidate,
    what: str,
    gmacs: Mapping[str, float],
    taken: Spread,
    run_ids: Collection[str],
    peaks: Sequence[Peak],
) -> Share:
    """Of multiply-adds by precision: the time that the machine would take at best over that which was taken.

    At best by the calibration of the same run; where that has none, by the latest.
    """
    alike = [peak for peak in peaks if (peak.threads, peak.cpus) == (who.threads, who.cpus)]
    peak = next((peak for peak in reversed(alike) if peak.run_id in run_ids), alike[-1] if alike else None)
    limits = peak.gmacs_per_s if peak and GPU not in who.backend else lambda precision: math.nan
    at_best_s = sum(amount / limits(precision) for precision, amount in gmacs.items())
    runs = ", ".join(sorted(run_ids))
    return Share(who, what, sum(gmacs.values()), taken.median, _rate(at_best_s, taken.median), taken.n, runs)


def _rate(amount: float, seconds: float) -> float:
    return amount / seconds if seconds > 0 else math.nan


def _ordered(found: Iterable[Share]) -> list[Share]:
    """Those whose multiply-adds and latency are known, the best used first."""
    known = [share for share in found if math.isfinite(share.gmacs_per_s)]
    return sorted(known, key=lambda share: -share.of_peak if math.isfinite(share.of_peak) else math.inf)


def _limits(peak: Peak) -> dict[str, str]:
    products = {
        f"{precision} (GMAC/s), median [IQR]": spread_cell(
            peak.product_s[precision], lambda seconds: peak.product_macs / seconds / 1e9
        )
        for precision in PRECISIONS
    }
    stream = spread_cell(peak.stream_s, lambda seconds: peak.stream_bytes / seconds / 1e9)
    return {
        "threads": f"{peak.threads}, pinned to CPU {peak.cpus}" if peak.cpus else str(peak.threads),
        **products,
        "memory (GB/s), median [IQR]": stream,
        "n": str(peak.stream_s.n),
        "run": peak.run_id,
    }


def _data(peak: Peak) -> dict[str, object]:
    products: dict[str, object] = {f"{name}_gmacs_per_s": peak.gmacs_per_s(name) for name in PRECISIONS}
    return {
        "threads": peak.threads,
        "cpus": peak.cpus,
        **products,
        "memory_gbytes_per_s": peak.gbytes_per_s,
        "run_id": peak.run_id,
    }


def _shown(share: Share) -> dict[str, str]:
    who = share.candidate
    return {
        "what": share.what,
        "encoder": who.encoder,
        "variant": who.variant,
        "runtime": who.backend,
        "precision": who.precision,
        "threads": str(who.threads),
        "GMACs": significant(share.gmacs),
        "median (ms)": milliseconds(share.median_s),
        "GMAC/s": significant(share.gmacs_per_s),
        "of peak (%)": f"{100 * share.of_peak:.0f}" if math.isfinite(share.of_peak) else NOTHING,
    }
