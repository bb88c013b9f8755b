"""Surfaces of boolean masks: where they run, how large they are, what lies farther away than a tolerance.

A mask's surface passes between its voxels. It is looked at in cells: the 2x2 pixels or 2x2x2 voxels around one grid
corner, whose pattern is a number, the neighbour code. A cell that is neither all inside nor all outside holds one
surface element, placed at the cell's centre, whose length (mm) or area (mm^2) follows from its code. These are the
conventions of Nikolov et al., "Deep learning to achieve clinically applicable segmentation of head and neck anatomy
for radiotherapy" (2018), https://arxiv.org/abs/1809.04430, and of its package `surface-distance`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import chain
from math import prod

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

#: Largest search neighbourhood, in cells, that is walked step by step. A step costs about 3 ns for each element not
#: matched yet, a query of the tree 1.5 us, and most elements are matched within the first few steps.
MAX_WALKED_CELLS = 4096

#: Relative width of the shell around the tolerance in which the tree is not trusted: it subtracts positions in mm,
#: which rounds otherwise than the length of a step does.
TREE_MARGIN = 1e-9

Points = tuple[NDArray[np.intp], ...]


def neighbour_codes(mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Codes of all cells that touch `mask`, with background beyond the array's edges.

    Args:
        mask: bool, (H, W) or (D, H, W).

    Returns:
        uint8, one longer than `mask` on every axis. Bit `b` of a code is set where the corner at offset
        `(b >> axis) & 1` along every axis is inside.
    """
    codes = np.pad(mask, 1).view(np.uint8)
    for axis in range(mask.ndim):
        along = np.moveaxis(codes, axis, 0)
        codes = np.moveaxis(along[:-1] | along[1:] << np.uint8(1 << axis), 0, axis)
    return codes


def on_surface(codes: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Which cells hold a surface element: those that are neither all outside nor all inside."""
    return (codes != 0) & (codes != 2**2**codes.ndim - 1)


def surface_areas(spacing_mm: Sequence[float]) -> NDArray[np.float64]:
    """Size of the surface element of every neighbour code.

    Args:
        spacing_mm: voxel size along each of the 2 or 3 axes.

    Returns:
        float64: 16 contour lengths in mm or 256 surface areas in mm^2.
    """
    spacing = np.asarray(spacing_mm, np.float64)
    piece_sizes = _line_sizes(spacing) if len(spacing) == 2 else _patch_sizes(spacing)
    return _piece_counts(len(spacing)) @ piece_sizes


def _line_sizes(spacing: NDArray[np.float64]) -> NDArray[np.float64]:
    """Lengths (3,) of the line that cuts off one corner and of the line parallel to each axis."""
    return np.array([np.linalg.norm(spacing) / 2, *spacing])


def _patch_sizes(spacing: NDArray[np.float64]) -> NDArray[np.float64]:
    """Areas (7,) of the planar patches from which every element is composed.

    First the triangle that cuts off one corner; then, for each axis, half the rectangle that cuts off an edge along it;
    then, for each axis, half the rectangle across it. All have their corners at midpoints of the cell's edges.
    """
    faces = prod(spacing) / spacing
    slanted = [np.linalg.norm(np.delete(faces, axis)) / 4 for axis in range(3)]
    return np.array([np.linalg.norm(faces) / 8, *slanted, *(faces / 2)])


@cache
def _piece_counts(ndim: int) -> NDArray[np.int64]:
    """How many of each piece the element of each code has: (16, 3) or (256, 7).

    The rule: take the corners inside, or those outside where these are fewer; each group of them that hangs together
    along the cell's edges is cut off from the rest on its own.
    """
    count_pieces = _lines_around if ndim == 2 else _patches_around
    counts = np.zeros((2**2**ndim, 3 if ndim == 2 else 7), np.int64)
    for code in range(len(counts)):
        for group in _corner_groups(code, ndim):
            counts[code] += count_pieces(group)
    return counts


def _corner_groups(code: int, ndim: int) -> list[frozenset[int]]:
    """Connected groups of the corners on the smaller side of `code`; a corner is its bit number."""
    everywhere = set(range(2**ndim))
    inside = {corner for corner in everywhere if code >> corner & 1}
    remaining = min(inside, everywhere - inside, key=len)
    groups = []
    while remaining:
        group: set[int] = set()
        front = {next(iter(remaining))}
        while front:
            group |= front
            remaining = remaining - front
            front = {corner ^ 1 << axis for corner in front for axis in range(ndim)} & remaining
        groups.append(frozenset(group))
    return groups


def _edges(group: frozenset[int], ndim: int) -> list[tuple[int, int, int]]:
    """Cell edges inside `group`, as (lower corner, upper corner, axis)."""
    pairs = [(corner, corner | 1 << axis, axis) for corner in group for axis in range(ndim)]
    return [(lower, upper, axis) for lower, upper, axis in pairs if lower != upper and upper in group]


def _lines_around(group: frozenset[int]) -> NDArray[np.int64]:
    """Counts of `_line_sizes` around a group of 1 or 2 of a square's corners."""
    edges = _edges(group, 2)
    piece = 1 + edges[0][2] if edges else 0
    return np.eye(3, dtype=np.int64)[piece]


def _patches_around(group: frozenset[int]) -> NDArray[np.int64]:
    """Counts of `_patch_sizes` around a group of 1 to 4 of a cube's corners, of which there are six shapes.

    Four are cut off by one plane: a corner, an edge, a face, and a corner with its three neighbours. Where three
    corners lie in a face, the five midpoints around them are not in one plane: a half rectangle across the face's
    normal and a trapezoid of three triangles. Where four follow one another along the three axes, the six midpoints
    carry a triangle (three times the smallest) with an ear on each side: another triangle and two slanted halves.
    """
    edges = _edges(group, 3)
    axes = [axis for _, _, axis in edges]
    unused = [axis for axis in range(3) if axis not in axes]
    triangles, slanted, flat = 0, np.zeros(3, np.int64), np.zeros(3, np.int64)
    match len(group), len(edges):
        case 1, _:
            triangles = 1
        case 2, _:
            slanted[axes] = 2
        case 3, _:
            triangles = 3
            flat[unused] = 1
        case 4, 4:
            flat[unused] = 2
        case _:
            ends = [axis for lower, upper, axis in edges if _is_end(lower, edges) or _is_end(upper, edges)]
            triangles = 6 if len(ends) == 3 else 4
            slanted[ends] = 0 if len(ends) == 3 else 1
    return np.array([triangles, *slanted, *flat])


def _is_end(corner: int, edges: list[tuple[int, int, int]]) -> bool:
    """Whether only one of `edges` meets `corner`."""
    return sum(corner in edge[:2] for edge in edges) == 1


def unmatched(
    source: NDArray[np.bool_], target: NDArray[np.bool_], spacing_mm: Sequence[float], tolerance_mm: float
) -> Points:
    """Cells of `source` that have no cell of `target` at a distance <= `tolerance_mm`.

    Args:
        source: bool, (H, W) or (D, H, W).
        target: bool, the same shape.
        spacing_mm: cell size along each axis.
        tolerance_mm: finite, >= 0.

    Returns:
        Their indices, one array an axis, as `np.nonzero` gives them.
    """
    # What lies in both is matched, and usually most of it.
    points = np.nonzero(source & ~target)
    # One more than the quotient, which may have been rounded down; the length of each step decides.
    reach = [min(int(tolerance_mm / size) + 1, extent) for size, extent in zip(spacing_mm, source.shape, strict=True)]
    if prod(2 * cells + 1 for cells in reach) <= MAX_WALKED_CELLS:
        return _unmatched_by_walking(points, target, _steps_within(reach, spacing_mm, tolerance_mm), reach)
    return _unmatched_by_tree(points, target, spacing_mm, tolerance_mm)


def _steps_within(reach: Sequence[int], spacing_mm: Sequence[float], tolerance_mm: float) -> NDArray[np.int64]:
    """Steps (N, ndim) of at most `tolerance_mm`, in cells, the shortest first."""
    steps = np.indices([2 * cells + 1 for cells in reach]).reshape(len(reach), -1).T - reach
    distances_mm = _lengths_mm(steps, spacing_mm)
    order = np.argsort(distances_mm, kind="stable")
    return steps[order][distances_mm[order] <= tolerance_mm]


def _lengths_mm(steps: NDArray[np.int64], spacing_mm: Sequence[float]) -> NDArray[np.float64]:
    """Lengths of steps (N, ndim), rounded as scipy's distance transform rounds: ties with a tolerance are common."""
    return np.sqrt(((steps * np.asarray(spacing_mm, np.float64)) ** 2).sum(axis=1))


def _unmatched_by_walking(
    points: Points, target: NDArray[np.bool_], steps: NDArray[np.int64], reach: Sequence[int]
) -> Points:
    """Looks at `target` one step away from all points at once, and goes on with those not matched yet."""
    # The margin keeps a step over the edge from arriving in the next row; padding keeps a transposed array's order.
    padded = np.ascontiguousarray(np.pad(target, [(cells, cells) for cells in reach]))
    left = np.ravel_multi_index([along + cells for along, cells in zip(points, reach, strict=True)], padded.shape)
    flat = padded.ravel()
    for step in steps @ np.array(padded.strides):
        left = left[~flat[left + step]]
        if not len(left):
            break
    return tuple(along - cells for along, cells in zip(np.unravel_index(left, padded.shape), reach, strict=True))


def _unmatched_by_tree(
    points: Points, target: NDArray[np.bool_], spacing_mm: Sequence[float], tolerance_mm: float
) -> Points:
    """Asks a k-d tree, for tolerances of very many cells; only what lies at the tolerance itself is measured again."""
    targets = np.argwhere(target)
    tree = cKDTree(targets * spacing_mm)
    sources = np.stack(points, axis=1)
    distances_mm, _ = tree.query(sources * spacing_mm, distance_upper_bound=tolerance_mm * (1 - TREE_MARGIN))
    left = sources[np.isinf(distances_mm)]
    at_tolerance = tree.query_ball_point(left * spacing_mm, tolerance_mm * (1 + TREE_MARGIN))
    owners = np.repeat(np.arange(len(left)), [len(found) for found in at_tolerance])
    found = np.fromiter(chain.from_iterable(at_tolerance), np.intp, len(owners))
    matched = owners[_lengths_mm(targets[found] - left[owners], spacing_mm) <= tolerance_mm]
    return tuple(np.delete(left, matched, axis=0).T)
