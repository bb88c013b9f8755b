"""The scores of the CVPR 2024 challenge "Segment Anything in Medical Images on Laptop", as its own script has them.

Source: `evaluation/compute_metrics.py` of github.com/bowang-lab/MedSAM, branch LiteMedSAM, with the package
`surface-distance`. What it does that one would not guess, all of it kept here:

- labels are 1 to the reference's largest; one that neither map has makes the case's mean DSC undefined
- the NSD is 0 for the whole case where its mean DSC is not above 0.2, an undefined one included
- an image is a volume of one slice, 1 mm thick, with pixels of 1 mm: its faces are surface, and so its inside counts
- the spacing of a volume is taken as the npz holds it, (x, y, z), for an array of axes (z, y, x)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bench.metrics import LabelScore, score_labels

#: Mean DSC of a case up to which its NSD counts as 0.
DSC_FLOOR = 0.2


def score_by_challenge(
    prediction: NDArray[np.integer],
    reference: NDArray[np.integer],
    spacing_mm: Sequence[float],
    tolerance_mm: float = 2.0,
) -> list[LabelScore]:
    """Scores of the labels 1 to the reference's largest; their means are the challenge's scores of the case.

    Args:
        prediction: label map of integers, (H, W) or (D, H, W).
        reference: label map of the same shape.
        spacing_mm: voxel size in the order of the axes; of an image it is not looked at.
        tolerance_mm: of the NSD; the challenge's is 2.

    Raises:
        InputError: as `bench.metrics.score_labels`.
    """
    labels = range(1, int(reference.max()) + 1)
    if reference.ndim == 2:
        prediction, reference, spacing_mm = prediction[..., None], reference[..., None], (1.0, 1.0, 1.0)
    scores = score_labels(prediction, reference, labels, tuple(spacing_mm)[::-1], tolerance_mm)
    is_scored = bool(scores) and bool(np.mean([score.dsc for score in scores]) > DSC_FLOOR)
    return scores if is_scored else [score._replace(nsd=0.0) for score in scores]
