"""int8 by NNCF, OpenVINO's own quantiser; an extra: `pip install rep-medsam[nncf]`.

It rounds where OpenVINO computes in integers, and mends the mean that rounding takes off each channel (fast bias
correction). What it gives is an ONNX graph, so that the same gate, card and runtimes take it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

import onnx

from zoo.backends import Floats
from zoo.errors import InputError


def check_nncf() -> None:
    """Makes sure that NNCF is there, before any work is done for it.

    Raises:
        InputError: it is not.
    """
    if find_spec("nncf") is None:
        raise InputError("--method nncf", "nncf not installed", "pip install 'rep-medsam[nncf]'")


def quantise_by_nncf(
    source: Path, target: Path, feeds: Sequence[Mapping[str, Floats]], without: Sequence[str], reduced_range: bool
) -> None:
    """Writes a quantised graph: weights symmetric and by channel, activations by tensor.

    Args:
        source: graph in float.
        target: where the result goes.
        feeds: calibration inputs by name.
        without: names of nodes that stay in float.
        reduced_range: 7-bit weights, which keep sums of products from saturating where the CPU lacks VNNI.
    """
    # Else it reports each call to its makers over the network; looked at when it is imported.
    os.environ.setdefault("NNCF_CI", "1")
    import nncf

    overflow = nncf.OverflowFix.ENABLE if reduced_range else nncf.OverflowFix.DISABLE
    quantised = nncf.quantize(
        onnx.load(source),
        nncf.Dataset(feeds),
        preset=nncf.QuantizationPreset.MIXED,
        target_device=nncf.TargetDevice.CPU,
        subset_size=len(feeds),
        ignored_scope=nncf.IgnoredScope(names=list(without)),
        advanced_parameters=nncf.AdvancedQuantizationParameters(overflow_fix=overflow),
    )
    onnx.save(quantised, target)
