"""The box-inscribed ellipse, against hand-drawn ones and a pixel-by-pixel loop."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from bench.floor import ellipse_segmentation
from zoo.data.case import Case


def case_with(shape: tuple[int, ...], boxes: list[list[int]], labels: list[int]) -> Case:
    """A black image of `shape` with these boxes."""
    image = np.zeros(shape if len(shape) == 3 else (*shape, 3), np.uint8)
    return Case("floor", "CT", image, np.array(boxes), np.array(labels, np.uint16), (1.0,) * len(shape))


def drawing(*rows: str) -> NDArray[np.bool_]:
    return np.array([[character == "#" for character in row] for row in rows])


@pytest.mark.parametrize(
    ("shape", "box", "expected"),
    [
        ((7, 7), [1, 1, 5, 5], drawing(" ### ", "#####", "#####", "#####", " ### ")),
        ((7, 12), [2, 3, 9, 4], drawing(" ###### ", " ###### ")),
        ((12, 7), [3, 2, 4, 9], drawing(" ###### ", " ###### ").T),
        ((5, 5), [2, 0, 2, 3], drawing("####").T),
        ((5, 5), [4, 4, 4, 4], drawing("#")),
    ],
)
def test_ellipse_by_hand(shape: tuple[int, int], box: list[int], expected: NDArray[np.bool_]) -> None:
    x_min, y_min, x_max, y_max = box
    whole = np.zeros(shape, np.uint16)
    whole[y_min : y_max + 1, x_min : x_max + 1] = 300 * expected
    labels = ellipse_segmentation(case_with(shape, [box], [300]))
    assert labels.dtype == np.uint16
    np.testing.assert_array_equal(labels, whole)


def test_ellipsoid_in_a_cube_lacks_the_eight_corners() -> None:
    labels = ellipse_segmentation(case_with((5, 5, 5), [[1, 1, 1, 3, 3, 3]], [2]))
    expected = np.zeros((5, 5, 5), bool)
    expected[1:4, 1:4, 1:4] = True
    expected[1:4:2, 1:4:2, 1:4:2] = False
    np.testing.assert_array_equal(labels, np.where(expected, 2, 0))


def test_axes_of_a_volume_are_z_y_x() -> None:
    labels = ellipse_segmentation(case_with((4, 6, 12), [[2, 3, 1, 9, 4, 1]], [1]))
    assert labels.shape == (4, 6, 12)
    expected = np.zeros((4, 6, 12), np.uint16)
    expected[1, 3:5, 3:9] = 1
    np.testing.assert_array_equal(labels, expected)


@pytest.mark.parametrize("order", [[0, 1], [1, 0]])
def test_smaller_boxes_lie_over_larger_ones(order: list[int]) -> None:
    """A box of 5x5 px within one of 9x9, whichever comes first."""
    boxes, values = np.array([[0, 0, 8, 8], [2, 2, 6, 6]])[order], np.array([9, 3])[order]
    labels = ellipse_segmentation(case_with((9, 9), boxes.tolist(), values.tolist()))
    assert labels[4].tolist() == [9, 9, 3, 3, 3, 3, 3, 9, 9]


def test_of_equal_boxes_the_later_lies_over_the_earlier() -> None:
    boxes = [[0, 0, 8, 8], [4, 0, 12, 8]]
    labels = ellipse_segmentation(case_with((9, 13), boxes, [9, 3]))
    assert (labels[4] == [9] * 4 + [3] * 9).all()
    labels = ellipse_segmentation(case_with((9, 13), boxes[::-1], [3, 9]))
    assert (labels[4] == [9] * 9 + [3] * 4).all()


@pytest.mark.parametrize("ndim", [2, 3])
def test_any_box_as_a_loop_over_pixels_has_it(ndim: int) -> None:
    rng = np.random.default_rng(2)
    shape = (11, 14, 17)[-ndim:]
    for _ in range(20):
        ends = np.sort(rng.integers(0, shape, (2, ndim)), axis=0)
        labels = ellipse_segmentation(case_with(shape, [np.fliplr(ends).ravel().tolist()], [1]))
        for index in np.ndindex(shape):
            offsets = [
                (at - (first + last) / 2) / ((last - first + 1) / 2)
                for at, first, last in zip(index, *ends.tolist(), strict=True)
            ]
            assert labels[index] == (sum(offset**2 for offset in offsets) <= 1)


def test_a_large_ellipse_fills_its_share_of_the_box() -> None:
    flat = ellipse_segmentation(case_with((200, 300), [[0, 0, 299, 199]], [1]))
    assert flat.mean() == pytest.approx(math.pi / 4, abs=1e-3)
    solid = ellipse_segmentation(case_with((40, 60, 80), [[0, 0, 0, 79, 59, 39]], [1]))
    assert solid.mean() == pytest.approx(math.pi / 6, abs=1e-3)
