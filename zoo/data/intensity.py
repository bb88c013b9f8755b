"""Intensities of a scan to the 0-255 that encoders are fed: a CT by its window, others by percentiles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.errors import InputError, unknown_name

#: Level and width in HU of the windows with a name; `soft_tissue`, `lung`, `brain` and `bone` are the challenge's.
CT_WINDOWS = {
    "soft_tissue": (40.0, 400.0),
    "lung": (-600.0, 1500.0),
    "brain": (40.0, 80.0),
    "bone": (300.0, 1500.0),
    "mediastinum": (50.0, 350.0),
    "liver": (60.0, 160.0),
}
#: Percentiles of the non-zero voxels that modalities other than CT are scaled between, as in the challenge.
PERCENTILES = (0.5, 99.5)
#: An image without a telling name whose minimum lies below this is a CT: air is -1000 HU.
CT_MINIMUM_HU = -200


@dataclass(frozen=True)
class Window:
    """What is shown of a CT: `level` +- `width` / 2, both in HU."""

    level: float
    width: float


SOFT_TISSUE = Window(*CT_WINDOWS["soft_tissue"])


def parse_window(text: str) -> Window:
    """`soft_tissue` and other names of `CT_WINDOWS`, or `LEVEL/WIDTH` in HU.

    Raises:
        InputError: neither.
    """
    if text in CT_WINDOWS:
        return Window(*CT_WINDOWS[text])
    level, slash, width = text.partition("/")
    try:
        window = Window(float(level), float(width))
    except ValueError as error:
        if slash:
            raise InputError("--window", repr(text), "LEVEL/WIDTH in HU, such as 40/400") from error
        raise unknown_name("CT window", text, [*CT_WINDOWS, "LEVEL/WIDTH"]) from error
    if not (np.isfinite([window.level, window.width]).all() and window.width > 0):
        raise InputError("--window", repr(text), "a finite level and a positive width in HU")
    return window


def to_uint8(
    voxels: NDArray[Any],
    modality: str,
    window: Window = SOFT_TISSUE,
    percentiles: tuple[float, float] = PERCENTILES,
) -> NDArray[np.uint8]:
    """Intensities to 0-255: a CT by its window, others between percentiles of the non-zero voxels.

    Args:
        voxels: numbers of any type and shape, finite.
        modality: `CT` or another.
        window: of a CT.
        percentiles: of other modalities, 0 to 100.
    """
    low, high = shown_range(voxels, modality, window, percentiles)
    shown = np.empty(voxels.shape, np.uint8)
    # Slice by slice: of a whole volume, the float64 on the way would take several gigabytes.
    for index, part in enumerate(voxels):
        shown[index] = np.clip((part - low) / max(high - low, 1e-8), 0, 1) * 255
    return shown


def is_unit(values: NDArray[Any]) -> bool:
    """Whether numbers are floats in [0, 1], as pictures in npy files may be."""
    return bool(values.dtype.kind == "f" and np.isfinite(values).all() and values.min() >= 0 and values.max() <= 1)


def unit_to_uint8(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Floats in [0, 1] to 0-255, without any stretch: training and `segment` see the same."""
    return np.round(values * 255).astype(np.uint8)


def shown_range(
    voxels: NDArray[Any],
    modality: str,
    window: Window = SOFT_TISSUE,
    percentiles: tuple[float, float] = PERCENTILES,
) -> tuple[float, float]:
    """The intensities that become 0 and 255; arguments as in `to_uint8`. An image of zeros alone has (0, 1)."""
    if modality == "CT":
        return window.level - window.width / 2, window.level + window.width / 2
    inside = voxels[voxels != 0]
    if not inside.size:
        return 0.0, 1.0
    low, high = map(float, np.percentile(inside, percentiles, overwrite_input=True))
    # What has one value beside zero is shown against that.
    return (low, high) if low < high else (min(0.0, low), max(0.0, high))
