"""Windows of an embedding hold whatever the image's pixels in a box are interpolated from, and little else."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from zoo.transforms import LOW_RES_PX, Fit, fit_image, restore_logits
from zoo.windows import OUTSIDE, logits_of, positions_in, window_of

SIDES = st.integers(1, 700)


@st.composite
def boxes_in_frames(draw: st.DrawFn) -> tuple[Fit, list[int]]:
    shape = draw(SIDES), draw(SIDES)
    fit = fit_image(shape, draw(st.sampled_from([64, 256, 512, 1024])), draw(st.sampled_from(["pad", "squash"])))
    ends = [sorted(draw(st.tuples(st.integers(0, side - 1), st.integers(0, side - 1)))) for side in shape]
    return fit, [ends[1][0], ends[0][0], ends[1][1], ends[0][1]]


@given(boxes_in_frames(), st.integers(0, 2**32 - 1))
def test_nothing_outside_a_window_changes_the_box(case: tuple[Fit, list[int]], seed: int) -> None:
    fit, box = case
    low_res = np.random.default_rng(seed).standard_normal((LOW_RES_PX, LOW_RES_PX), np.float32)
    x_min, y_min, x_max, y_max = 4 * window_of(np.array(box), fit)
    poisoned = np.full_like(low_res, 1e6)
    poisoned[y_min:y_max, x_min:x_max] = low_res[y_min:y_max, x_min:x_max]
    inside = np.s_[box[1] : box[3] + 1, box[0] : box[2] + 1]
    np.testing.assert_array_equal(restore_logits(poisoned, fit)[inside], restore_logits(low_res, fit)[inside])


def test_a_window_is_as_small_as_its_box() -> None:
    """Pixels 40 to 79 of 256 are low-resolution pixels 40 to 79, and those beside them, 38 to 81."""
    fit = fit_image((256, 256), 256, "pad")
    assert window_of(np.array([40, 0, 79, 255]), fit).tolist() == [9, 0, 21, 64]
    twice = fit_image((512, 512), 256, "pad")
    assert window_of(np.array([80, 100, 159, 100]), twice).tolist() == [9, 12, 21, 13]


def test_positions_are_counted_row_by_row_and_box_by_box() -> None:
    windows = np.array([[1, 2, 3, 4], [0, 0, 0, 9], [63, 63, 64, 64]])
    assert positions_in(windows).tolist() == [129, 130, 193, 194, 3 * 4096 - 1]


def test_pixels_come_to_lie_at_their_positions() -> None:
    pixels = np.arange(32, dtype=np.float32).reshape(2, 4, 4) + 1
    logits = logits_of(pixels, np.array([65, 4096]), 2)
    assert logits.shape == (2, 1, LOW_RES_PX, LOW_RES_PX)
    np.testing.assert_array_equal(logits[0, 0, 4:8, 4:8], pixels[0])
    np.testing.assert_array_equal(logits[1, 0, :4, :4], pixels[1])
    assert (logits == OUTSIDE).sum() == logits.size - 32
