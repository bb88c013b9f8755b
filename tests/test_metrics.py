"""Metrics against hand-derived values, against properties they must have, and against `surface-distance`."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from math import hypot, sqrt

import numpy as np
import pytest
import surface_distance
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray
from scipy import ndimage

from bench import surface
from bench.metrics import LabelScore, dice, nsd, score_labels
from bench.surface import neighbour_codes, on_surface, surface_areas
from zoo.errors import InputError

Mask = NDArray[np.bool_]


def block(shape: tuple[int, ...], *extents: tuple[int, int]) -> Mask:
    """A mask that is true from the first to before the second number along each axis."""
    mask = np.zeros(shape, bool)
    mask[tuple(slice(*extent) for extent in extents)] = True
    return mask


def ball(extent: int, radius: float) -> Mask:
    return sum((index - extent // 2) ** 2 for index in np.ogrid[:extent, :extent, :extent]) <= radius**2


def surface_size(mask: Mask, spacing_mm: Sequence[float]) -> float:
    codes = neighbour_codes(mask)
    return float(surface_areas(spacing_mm)[codes[on_surface(codes)]].sum())


def package_distances(prediction: Mask, reference: Mask, spacing_mm: Sequence[float]) -> dict[str, NDArray[np.float64]]:
    with warnings.catch_warnings():
        # The package imports from namespaces that scipy has renamed.
        warnings.simplefilter("ignore", DeprecationWarning)
        return surface_distance.compute_surface_distances(reference, prediction, spacing_mm)


def package_nsd(prediction: Mask, reference: Mask, spacing_mm: Sequence[float], tolerance_mm: float) -> float:
    distances = package_distances(prediction, reference, spacing_mm)
    return float(surface_distance.compute_surface_dice_at_tolerance(distances, tolerance_mm))


@st.composite
def mask_pairs(draw: st.DrawFn) -> tuple[Mask, Mask, tuple[float, ...]]:
    """Two masks of one shape, 2D or 3D, and a spacing."""
    shape = draw(array_shapes(min_dims=2, max_dims=3, max_side=6))
    masks = arrays(bool, shape)
    spacing = draw(st.tuples(*[st.sampled_from([0.3, 0.7, 1.0, 2.5])] * len(shape)))
    return draw(masks), draw(masks), spacing


TOLERANCES_MM = st.sampled_from([0.0, 0.5, 0.7, 1.0, 2.0, 3.1])


@pytest.fixture(params=["walk", "tree"])
def search(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways to look for near elements, whatever the size of the neighbourhood."""
    monkeypatch.setattr(surface, "MAX_WALKED_CELLS", {"walk": 10**9, "tree": 0}[request.param])


# Dice


@pytest.mark.parametrize(
    ("prediction", "reference", "expected"),
    [
        (block((4, 4), (0, 2), (0, 2)), block((4, 4), (0, 2), (1, 3)), 2 * 2 / 8),
        (block((5, 5, 5), (0, 3), (1, 4), (1, 4)), block((5, 5, 5), (1, 4), (1, 4), (1, 4)), 2 * 18 / 54),
        (block((4, 4), (0, 1), (0, 4)), block((4, 4), (0, 4), (0, 4)), 2 * 4 / 20),
        (block((4, 4), (0, 1), (0, 4)), block((4, 4), (2, 3), (0, 4)), 0.0),
    ],
)
def test_dice_by_hand(prediction: Mask, reference: Mask, expected: float) -> None:
    assert dice(prediction, reference) == expected


@given(mask_pairs())
def test_dice_counts_as_sets_do(pair: tuple[Mask, Mask, object]) -> None:
    left, right = ({tuple(index) for index in np.argwhere(mask).tolist()} for mask in pair[:2])
    expected = 2 * len(left & right) / (len(left) + len(right)) if left or right else math.nan
    assert dice(*pair[:2]) == pytest.approx(expected, abs=0, nan_ok=True)


# Sizes of surfaces


def test_contour_of_a_rectangle_by_hand() -> None:
    mask = block((9, 9), (2, 5), (1, 7))
    assert surface_size(mask, (0.7, 2.0)) == pytest.approx(2 * 2 * 0.7 + 2 * 5 * 2.0 + 4 * hypot(0.7, 2.0) / 2)


@pytest.mark.parametrize("counts", [(1, 1, 1), (2, 3, 5), (4, 1, 2)])
def test_surface_of_a_cuboid_by_hand(counts: tuple[int, int, int]) -> None:
    """Flat faces between bevelled edges between cut-off corners, eight of which make up an octahedron."""
    a, b, c = 3.0, 0.5, 1.2
    p, q, r = ((count - 1) * size for count, size in zip(counts, (a, b, c), strict=True))
    faces = 2 * (p * q + p * r + q * r)
    bevels = 4 * (p * hypot(b, c) + q * hypot(a, c) + r * hypot(a, b)) / 2
    corners = sqrt((a * b) ** 2 + (a * c) ** 2 + (b * c) ** 2)
    mask = block((6, 6, 6), *((1, 1 + count) for count in counts))
    assert surface_size(mask, (a, b, c)) == pytest.approx(faces + bevels + corners)


@pytest.mark.parametrize("ndim", [2, 3])
def test_every_neighbour_code_has_the_size_of_the_package(ndim: int) -> None:
    """A code set alone in an array is the cell in its middle, at any spacing."""
    tables = surface_distance.lookup_tables
    kernel = {2: tables.ENCODE_NEIGHBOURHOOD_2D_KERNEL, 3: tables.ENCODE_NEIGHBOURHOOD_3D_KERNEL}[ndim]
    package_areas = {
        2: tables.create_table_neighbour_code_to_contour_length,
        3: tables.create_table_neighbour_code_to_surface_area,
    }[ndim]
    cells = [np.array(code) & kernel > 0 for code in range(2**2**ndim)]
    codes = [int(neighbour_codes(cell)[(1,) * ndim]) for cell in cells]
    assert sorted(codes) == list(range(2**2**ndim))
    for spacing_mm in np.random.default_rng(0).uniform(0.1, 5, (5, ndim)):
        np.testing.assert_allclose(surface_areas(spacing_mm)[codes], package_areas(spacing_mm), rtol=1e-13, atol=0)


def test_codes_reach_beyond_the_edges_of_the_array() -> None:
    codes = neighbour_codes(np.ones((1, 1), bool))
    np.testing.assert_array_equal(codes, [[8, 2], [4, 1]])
    assert on_surface(codes).all()
    assert not on_surface(neighbour_codes(np.ones((4, 4, 4), bool)))[1:-1, 1:-1, 1:-1].any()


# Normalised surface Dice


@pytest.mark.usefixtures("search")
@pytest.mark.parametrize(
    ("spacing_mm", "tolerance_mm", "expected"),
    [
        ((1.0, 1.0), 1.0, (40 + 3 * sqrt(2)) / (52 + 4 * sqrt(2))),
        ((1.0, 1.0), 1.9, (40 + 3 * sqrt(2)) / (52 + 4 * sqrt(2))),
        ((1.0, 1.0), 2.0, 1.0),
        ((1.0, 0.5), 0.99, (26 + 3 * hypot(1, 0.5)) / (40 + 4 * hypot(1, 0.5))),
        ((1.0, 0.5), 1.0, 1.0),
    ],
)
def test_nsd_of_a_moved_side_by_hand(spacing_mm: tuple[float, float], tolerance_mm: float, expected: float) -> None:
    """A rectangle of 8x6 pixels whose right side moved by two.

    At spacing 1 the contours measure 24 + 2 sqrt(2) and 28 + 2 sqrt(2). At tolerance 1 the reference misses 5 of the 7
    elements of its right side (the outer two have the other's top and bottom beside them), the prediction all 7 of its
    right side and both corners. At spacing (1, 0.5) they measure 19 + 2 h and 21 + 2 h, where h = hypot(1, 0.5); just
    below 1 mm both miss the 7 elements of that side, the prediction its two corners of h / 2 as well.
    """
    reference, prediction = block((12, 12), (2, 10), (2, 8)), block((12, 12), (2, 10), (2, 10))
    assert nsd(prediction, reference, spacing_mm, tolerance_mm) == pytest.approx(expected, abs=1e-12)


@pytest.mark.usefixtures("search")
@pytest.mark.parametrize(("tolerance_mm", "expected"), [(0.9, 0.0), (1.0, 0.5), (1.4, 0.5), (1.5, 1.0)])
def test_nsd_of_two_voxels_by_hand(tolerance_mm: float, expected: float) -> None:
    """Half the elements of either are two steps of 0.5 mm from the other's, half are three."""
    left, right = block((5, 2, 2), (0, 1), (0, 1), (0, 1)), block((5, 2, 2), (3, 4), (0, 1), (0, 1))
    assert nsd(left, right, (0.5, 3.0, 2.0), tolerance_mm) == expected


def test_the_tolerance_is_2_mm_unless_told() -> None:
    left, right = np.array([[1, 0, 0, 0], [0, 0, 0, 1]], np.uint16)[:, None]
    assert nsd(left > 0, right > 0, (1.0, 1.0)) == score_labels(left, right, [1], (1.0, 1.0))[0].nsd == 0.5


@pytest.mark.parametrize(("tolerance_mm", "expected"), [(2.2, 0.0), (5.8, 1.0)])
def test_nsd_of_concentric_balls(tolerance_mm: float, expected: float) -> None:
    """Their surfaces are 4 mm apart, either element off by half a diagonal of a cell at most: 2.27 to 5.73 mm."""
    assert nsd(ball(31, 10), ball(31, 14), (1.0, 1.0, 1.0), tolerance_mm) == expected


@pytest.mark.usefixtures("search")
@pytest.mark.parametrize("shape", [(5, 6), (4, 5, 6), (0, 3)])
def test_empty_masks(shape: tuple[int, ...]) -> None:
    nothing, spacing_mm = np.zeros(shape, bool), (1.0,) * len(shape)
    assert math.isnan(dice(nothing, nothing))
    assert math.isnan(nsd(nothing, nothing, spacing_mm))
    if nothing.size:
        something = ~nothing
        for pair in ((something, nothing), (nothing, something)):
            assert (dice(*pair), nsd(*pair, spacing_mm, tolerance_mm=100.0)) == (0.0, 0.0)


@settings(deadline=None)
@given(mask_pairs(), TOLERANCES_MM)
def test_nsd_properties(pair: tuple[Mask, Mask, tuple[float, ...]], tolerance_mm: float) -> None:
    left, right, spacing_mm = pair
    score = nsd(left, right, spacing_mm, tolerance_mm)
    if not (left.any() or right.any()):
        assert math.isnan(score)
        return
    assert 0 <= score <= 1
    same = [
        nsd(right, left, spacing_mm, tolerance_mm),
        nsd(np.flip(left), np.flip(right), spacing_mm, tolerance_mm),
        nsd(left.T, right.T, spacing_mm[::-1], tolerance_mm),
        nsd(np.pad(left, 2), np.pad(right, 2), spacing_mm, tolerance_mm),
        # A factor of two is exact, so that no distance changes sides.
        nsd(left, right, [4 * size for size in spacing_mm], 4 * tolerance_mm),
    ]
    assert same == pytest.approx([score] * len(same), abs=1e-12)
    assert nsd(left, right, spacing_mm, tolerance_mm + 0.5) >= score - 1e-12


@settings(deadline=None)
@given(mask_pairs(), TOLERANCES_MM)
def test_a_mask_agrees_with_itself(pair: tuple[Mask, Mask, tuple[float, ...]], tolerance_mm: float) -> None:
    mask, _, spacing_mm = pair
    expected = 1.0 if mask.any() else math.nan
    np.testing.assert_equal((dice(mask, mask), nsd(mask, mask, spacing_mm, tolerance_mm)), (expected, expected))


# Against the package


def blobs(rng: np.random.Generator, shape: tuple[int, ...]) -> tuple[Mask, Mask]:
    """Two noisy views of the same smooth shapes, which may reach the array's edges."""
    smooth = ndimage.gaussian_filter(rng.random(shape), 1.5)
    return tuple(smooth + rng.normal(0, 0.02, shape) > np.quantile(smooth, 0.7) for _ in range(2))


def specks(rng: np.random.Generator, shape: tuple[int, ...]) -> tuple[Mask, Mask]:
    """Noise of many thicknesses: every neighbour code occurs."""
    return tuple(rng.random(shape) < density for density in rng.uniform(0.05, 0.95, 2))


def single_voxels(rng: np.random.Generator, shape: tuple[int, ...]) -> tuple[Mask, Mask]:
    masks = np.zeros((2, *shape), bool)
    for mask in masks:
        mask[tuple(rng.integers(0, shape))] = True
    return tuple(masks)


def thin_lines(rng: np.random.Generator, shape: tuple[int, ...]) -> tuple[Mask, Mask]:
    """Lines one voxel wide from edge to edge, crossing."""
    masks = np.zeros((2, *shape), bool)
    for axis, mask in enumerate(masks):
        np.moveaxis(mask, axis, 0)[(slice(None), *rng.integers(0, np.delete(shape, axis)))] = True
    return tuple(masks)


def everything(rng: np.random.Generator, shape: tuple[int, ...]) -> tuple[Mask, Mask]:
    """The whole array against half of it."""
    half = np.zeros(shape, bool)
    half[: shape[0] // 2] = True
    return np.ones(shape, bool), half


@pytest.mark.usefixtures("search")
@pytest.mark.parametrize("tolerance_mm", [0.0, 0.9, 1.0, 2.0, 3.5])
@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0), (0.7, 2.5), (1.0, 1.0, 1.0), (3.0, 0.8, 0.8), (0.3, 1.7, 0.45)])
@pytest.mark.parametrize("make", [blobs, specks, single_voxels, thin_lines, everything])
def test_nsd_equals_the_package(
    make: Callable[[np.random.Generator, tuple[int, ...]], tuple[Mask, Mask]],
    spacing_mm: tuple[float, ...],
    tolerance_mm: float,
) -> None:
    rng = np.random.default_rng(5)
    for _ in range(4):
        prediction, reference = make(rng, (17, 14, 12)[: len(spacing_mm)])
        expected = package_nsd(prediction, reference, spacing_mm, tolerance_mm)
        assert nsd(prediction, reference, spacing_mm, tolerance_mm) == pytest.approx(expected, abs=1e-12)


@pytest.mark.usefixtures("search")
@pytest.mark.parametrize(
    ("row_mm", "tolerance_mm", "is_within"),
    [(0.1, 0.3, False), (0.7, 2.1, True), (0.8, 2.4, False), (0.929, 2.787, True)],
)
def test_a_distance_at_the_tolerance_rounds_as_in_the_package(
    row_mm: float, tolerance_mm: float, is_within: bool
) -> None:
    """Three rows apart: 3 * 0.1 is more than 0.3, and 2.787 / 0.929 less than 3. Differences of positions round again
    otherwise: 0.9 - 6 * 0.1 is less than 0.3."""
    prediction, reference = block((11, 4), (0, 6), (0, 3)), block((11, 4), (9, 11), (0, 3))
    score = nsd(prediction, reference, (row_mm, 1.0), tolerance_mm)
    assert score == pytest.approx(package_nsd(prediction, reference, (row_mm, 1.0), tolerance_mm), abs=1e-12)
    assert (score > 0) == is_within


@pytest.mark.parametrize(("row_mm", "unused"), [(1.0, "_unmatched_by_tree"), (0.01, "_unmatched_by_walking")])
def test_large_neighbourhoods_are_not_walked(monkeypatch: pytest.MonkeyPatch, row_mm: float, unused: str) -> None:
    monkeypatch.delattr(surface, unused)
    prediction, reference = block((60, 60), (5, 55), (5, 50)), block((60, 60), (5, 55), (5, 55))
    expected = package_nsd(prediction, reference, (row_mm, row_mm), 2.0)
    assert nsd(prediction, reference, (row_mm, row_mm)) == pytest.approx(expected, abs=1e-12)


def test_one_empty_mask_as_in_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    # The package names infinity as numpy did before 2.0, and only here.
    monkeypatch.setattr(np, "Inf", np.inf, raising=False)
    nothing, something = np.zeros((6, 6), bool), block((6, 6), (1, 3), (2, 5))
    for pair in ((nothing, something), (something, nothing)):
        assert nsd(*pair, (1.0, 1.0)) == package_nsd(*pair, (1.0, 1.0), 2.0) == 0.0


# Labels


def label_maps() -> tuple[NDArray[np.uint16], NDArray[np.uint16]]:
    """Labels 1, 2, 7 and 300 in both; 3 is predicted only, 4 missed; 5 is nowhere. 7 is in two far parts."""
    rng = np.random.default_rng(8)
    reference = np.zeros((12, 30, 28), np.uint16)
    reference[2:8, 3:12, 4:15] = 1
    reference[4:9, 10:20, 8:20] = 300
    reference[0:2, 25:30, 20:28] = 2
    reference[10:12, 0:3, 0:3] = reference[0:2, 0:2, 25:28] = 7
    prediction = np.where(rng.random(reference.shape) < 0.1, 0, np.roll(reference, 1, axis=1)).astype(np.uint16)
    reference[9, 15, 2:6] = 4
    prediction[11, 20:24, 10] = 3
    return prediction, reference


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.int64])
def test_labels_score_as_whole_masks_do(dtype: type[np.integer]) -> None:
    prediction, reference = (labels.astype(dtype) for labels in label_maps())
    spacing_mm, wanted = (2.5, 0.8, 0.8), [300, 1, 2, 7, 3, 4, 5]
    scores = score_labels(prediction, reference, iter(wanted), spacing_mm, tolerance_mm=1.0)
    masks = [(prediction == label, reference == label) for label in wanted]
    expected = [
        LabelScore(label, dice(*pair), nsd(*pair, spacing_mm, 1.0), *(int(mask.sum()) for mask in pair))
        for label, pair in zip(wanted, masks, strict=True)
    ]
    np.testing.assert_equal(scores, expected)
    assert [score.dsc for score in scores[4:6]] == [score.nsd for score in scores[4:6]] == [0.0, 0.0]
    assert math.isnan(scores[6].dsc)
    assert math.isnan(scores[6].nsd)
    assert all(0 < score.nsd < 1 for score in scores[:4])
    assert {type(value) for score in scores for value in score} == {int, float}


def test_labels_in_2d_and_no_labels() -> None:
    labels = np.array([[0, 1], [2, 2]], np.uint16)
    scores = score_labels(labels, labels, [1, 2], (1.0, 1.0))
    assert scores == [LabelScore(1, 1.0, 1.0, 1, 1), LabelScore(2, 1.0, 1.0, 2, 2)]
    assert score_labels(labels, labels, [], (1.0, 1.0)) == []


# Input that is refused

MASK, LABELS = np.ones((3, 4), bool), np.ones((3, 4), np.uint16)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: dice(MASK, MASK.T), r"prediction: found shape \(3, 4\); expected the reference's shape \(4, 3\)"),
        (lambda: dice(MASK, LABELS), "reference: found dtype uint16; expected a boolean mask"),
        (lambda: dice(MASK[0], MASK[0]), r"reference: found shape \(4,\); expected 2 or 3 axes"),
        (lambda: nsd(LABELS, MASK, (1.0, 1.0)), "prediction: found dtype uint16"),
        (lambda: nsd(MASK, MASK, (1.0, 1.0, 1.0)), "spacing_mm: found .* expected 2 positive finite numbers"),
        (lambda: nsd(MASK, MASK, (1.0, 0.0)), r"spacing_mm: found \(1.0, 0.0\)"),
        (lambda: nsd(MASK, MASK, (math.nan, 1.0)), "spacing_mm: found"),
        (lambda: nsd(MASK, MASK, (1.0, math.inf)), "spacing_mm: found"),
        (lambda: nsd(MASK, MASK, (1.0, 1.0), -0.1), "tolerance_mm: found -0.1"),
        (lambda: nsd(MASK, MASK, (1.0, 1.0), math.nan), "tolerance_mm: found nan"),
        (lambda: nsd(MASK, MASK, (1.0, 1.0), math.inf), "tolerance_mm: found inf"),
        (lambda: score_labels(LABELS, LABELS[1:], [1], (1.0, 1.0)), "prediction: found shape"),
        (lambda: score_labels(LABELS, LABELS / 2, [1], (1.0, 1.0)), "reference: found dtype float64"),
        (lambda: score_labels(LABELS, LABELS, [2, 0], (1.0, 1.0)), "labels: found 0; expected values of at least 1"),
        (lambda: score_labels(LABELS, LABELS, [], (1.0,)), "spacing_mm: found"),
    ],
)
def test_refused(call: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()
