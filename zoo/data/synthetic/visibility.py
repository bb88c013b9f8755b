"""Which parts an image tells apart from what surrounds them: nobody can be asked for what is not there to see."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from zoo.data.synthetic.noise import Mask

#: Difference of mean brightness, in grey levels of 255, from which a border counts as seen.
SEEN_LEVELS = 5.0
#: Share of a part's border that must be seen; the rest may be lost, as it often is in life.
SEEN_SHARE = 0.35


def told_apart(region: NDArray[np.uint16], image: NDArray[np.uint8], count: int) -> Mask:
    """Whether enough of each part's border separates different mean brightness or colour, bool (count,).

    Args:
        region: (h, w), the index of the part at each pixel.
        image: (h, w) or (h, w, C).
        count: how many parts there are.
    """
    step = 2 if min(region.shape) > 96 else 1
    thin = region[::step, ::step].ravel()
    pixels = image[::step, ::step].reshape(thin.size, -1)
    areas = np.maximum(np.bincount(thin, minlength=count), 1)
    means = np.stack([np.bincount(thin, channel, count) / areas for channel in pixels.T], axis=1)
    one, other = _borders(region)
    seen = np.abs(means[one] - means[other]).max(1) >= SEEN_LEVELS
    both = np.concatenate([one, other])
    length = np.bincount(both, minlength=count)
    return np.asarray(np.bincount(both, np.tile(seen, 2), count) >= SEEN_SHARE * np.maximum(length, 1))


def _borders(region: NDArray[np.uint16]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The parts on either side of each pair of neighbouring pixels that belong to different parts."""
    sides = []
    for here, there in ((region[:, :-1], region[:, 1:]), (region[:-1], region[1:])):
        differs = here != there
        sides.append((here[differs], there[differs]))
    one, other = (np.concatenate(side).astype(np.intp) for side in zip(*sides, strict=True))
    return one, other
