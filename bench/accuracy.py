"""Accuracy of a segmentation, as a record holds it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.metrics import score_labels
from bench.record import finite
from zoo.data.case import Case


def measure_accuracy(case: Case, segmentation: NDArray[np.uint16], tolerance_mm: float = 2.0) -> dict[str, Any]:
    """Measurements of an `accuracy` record: DSC and NSD of every label that a box asked for.

    Args:
        case: a case with labels.
        segmentation: label map of the case's spatial shape.
        tolerance_mm: of the normalised surface Dice.

    Raises:
        ValueError: the case has no labels.
    """
    if case.labels is None:
        raise ValueError(f"{case.case_id} has no labels to compare with")
    labels = case.object_labels.tolist()
    scores = score_labels(segmentation, case.labels, labels, case.spacing_mm, tolerance_mm=tolerance_mm)
    return {
        "labels": labels,
        "dsc": [finite(score.dsc) for score in scores],
        "nsd": [finite(score.nsd) for score in scores],
        "voxels": [score.reference_voxels for score in scores],
        "tolerance_mm": tolerance_mm,
    }
