"""Planes across a volume's slices: which are asked, what they show, and what becomes of their votes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import psutil
import pytest
from box_backend import BoxBackend
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from zoo.backends import Backend, Floats, Prompts
from zoo.data.case import Case
from zoo.data.clicks import Click
from zoo.errors import InputError
from zoo.memory import EMBEDDING_BYTES, WORKING_BYTES, kept_embeddings
from zoo.sam.multiplanar import ACROSS, LONGEST_PX, Votes, planes_across, view_along
from zoo.sam.overlap import Owners
from zoo.sam.rule import MULTIPLANAR, Protocol3D
from zoo.sam.segmenter import Mask
from zoo.sam.volume import count_slices, segment_volume
from zoo.stages import StageClock


def volume(
    image: NDArray[np.uint8],
    boxes: Sequence[Sequence[int]],
    spacing_mm: tuple[float, ...] = (1.0, 1.0, 1.0),
    clicks: tuple[Click, ...] = (),
) -> Case:
    labels = np.arange(1, len(boxes) + 1, dtype=np.uint16)
    return Case("v", "CT", image, np.array(boxes, np.int64).reshape(-1, 6), labels, spacing_mm, clicks=clicks)


@pytest.mark.parametrize(
    ("first", "last", "planes"),
    [
        (5, 5, [5]),
        (5, 20, [*range(5, 21)]),
        (5, 35, [*range(5, 36)]),  # 31 of them
        (5, 36, [*range(5, 37, 2)]),  # every second of 32
        (4, 35, [*range(5, 36, 2)]),  # the same planes
        (0, 63, [*range(3, 64, 4)]),  # of these every second
    ],
)
@pytest.mark.parametrize("axis", ACROSS)
def test_planes_that_objects_are_asked_in(first: int, last: int, planes: list[int], axis: int) -> None:
    """A quarter of 64 voxels, half of 32, all of 31, or of an object with a click; none of an object of one slice."""
    boxes = np.array([[3, 3, 4, 9, 9, 6]] * 2 + [[3, 3, 4, 9, 9, 4]])
    boxes[:, [2 - axis, 5 - axis]] = first, last
    click = Click(1, (3, 3, 4), True)
    one, clicked, flat = planes_across(volume(np.zeros((9, 64, 64), np.uint8), boxes.tolist(), clicks=(click,)), axis)
    assert [*one] == planes
    assert [*clicked] == [*range(first, last + 1)]
    assert [*flat] == []


def test_what_planes_show() -> None:
    image = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)
    click = Click(0, (2, 1, 1), True)
    case = volume(image, [[1, 1, 0, 3, 2, 1]], clicks=(click,))
    coronal, sagittal = view_along(case, 1, {2, 1}), view_along(case, 2, {1, 2, 3})
    np.testing.assert_array_equal(coronal.image, [image[:, 1], image[:, 2]])
    assert coronal.boxes.tolist() == [[1, 0, 0, 3, 1, 1]]
    assert coronal.clicks == (replace(click, voxel=(2, 1, 0)),)
    np.testing.assert_array_equal(sagittal.image, [image[:, :, 1], image[:, :, 2], image[:, :, 3]])
    assert sagittal.boxes.tolist() == [[1, 0, 0, 2, 1, 2]]
    assert sagittal.clicks == (replace(click, voxel=(1, 1, 1)),)


def test_planes_have_square_pixels() -> None:
    image = np.zeros((2, 3, 4), np.uint8)
    image[1] = 200
    case = volume(image, [[0, 0, 1, 3, 2, 1]], (6.0, 3.0, 3.0), (Click(0, (3, 2, 1), False),))
    for axis, columns in ((1, 4), (2, 3)):
        view = view_along(case, axis, range(3))
        assert view.image.shape[1:] == (4, columns)
        assert view.image[0, :, 0].tolist() == [0, 50, 150, 200]
        assert view.boxes[0, [1, 4]].tolist() == [2, 3], "the second slice"
        assert view.clicks[0].voxel[1] == 3, "its middle lies at the third pixel's end"
        assert view.spacing_mm == (3, 3, 3)


def test_whatever_a_file_says_of_its_voxels() -> None:
    case = volume(np.zeros((2, 8, 8), np.uint8), [[0, 0, 0, 7, 7, 1]], (1e6, 1e-3, 1e-3))
    assert view_along(case, 1, [3, 5]).image.shape == (3, LONGEST_PX, 1)


@given(st.data())
def test_views_hold_what_the_box_holds(data: st.DataObject) -> None:
    """A box that is painted is bright in the view's box, and nothing else is but for what interpolation spreads."""
    shape = np.array([data.draw(st.integers(1, 9)) for _ in "zyx"])
    low = np.array([data.draw(st.integers(0, int(side) - 1)) for side in shape])
    high = np.array([data.draw(st.integers(int(first), int(side) - 1)) for first, side in zip(low, shape, strict=True)])
    spacing = tuple(data.draw(st.sampled_from([0.5, 1.0, 1.7, 3.0])) for _ in "zyx")
    image = np.zeros(shape, np.uint8)
    image[tuple(slice(first, last + 1) for first, last in zip(low, high, strict=True))] = 255
    case = volume(image, [[*low[::-1], *high[::-1]]], spacing)
    for axis in ACROSS:
        view = view_along(case, axis, range(low[axis], high[axis] + 1))
        x_min, y_min, first, x_max, y_max, last = view.boxes[0].tolist()
        assert (first, last) == (0, len(view.image) - 1)
        bright = view.image > 127
        assert bright[:, (y_min + y_max) // 2, (x_min + x_max) // 2].all()
        assert bright[:, y_min : y_max + 1, x_min : x_max + 1].mean() > 0.25
        bright[:, y_min : y_max + 1, x_min : x_max + 1] = False
        assert not bright.any()


def test_votes_are_averaged_and_shared_with_what_lies_between() -> None:
    """An object of 1x4x2 voxels: its slice, two of four coronal planes, and one of two sagittal ones."""
    votes = Votes(np.array([[5, 6, 7, 6, 9, 7]]))
    votes.enter(0, np.full((4, 2), 3, np.float32), (7, slice(6, 10), slice(5, 7)))
    votes.add(1, 0, np.full((1, 2), -1, np.float32), at=1, step=2)
    votes.add(1, 0, np.full((1, 2), -5, np.float32), at=3, step=2)
    votes.add(2, 0, np.full((1, 4), 6, np.float32), at=1)
    found = Volume()
    votes.count(found)
    left = [(3 - 0.5) / 1.5, (3 - 1) / 2, (3 - 3) / 2, (3 - 5) / 2]
    right = [(3 - 0.5 + 6) / 2.5, (3 - 1 + 6) / 3, (3 - 3 + 6) / 3, (3 - 5 + 6) / 3]
    (logits,) = found.logits
    np.testing.assert_allclose(logits[:, 0], left, atol=1e-3)
    np.testing.assert_allclose(logits[:, 1], right, atol=1e-3)
    assert found.where == [np.s_[7, 6:10, 5:7]]
    assert votes.mask(2, 0, 0, (1, 4)).tolist() == [[True, True, False, False]]
    assert votes.mask(1, 0, 3, (3, 2)).tolist() == [[False, True]] * 3, "in pixels of a third of a slice"


class Volume(Owners):
    """Remembers the logits that it was given, and where."""

    def __init__(self) -> None:
        super().__init__((9, 12, 9), np.array([[5, 6, 7, 6, 9, 7]]))
        self.logits: list[Floats] = []
        self.where: list[object] = []

    def enter(self, number: int, logits: Floats, where: object = ...) -> Mask:
        self.logits.append(logits)
        self.where.append(where)
        return logits > 0


@dataclass
class BrightBackend(BoxBackend):
    """Masks are what is bright within the prompt; in the volume's own slices everything is, if these are `blind`.

    An embedding is the encoder's input.
    """

    blind: bool = False
    asked: list[tuple[bool, list[float]]] = field(default_factory=list)
    clicked: list[tuple[bool, list[float]]] = field(default_factory=list)

    def encode(self, images: Floats) -> Floats:
        return images.copy()

    def decode(self, embedding: Floats, prompts: Prompts, multimask: bool = False) -> tuple[Floats, Floats]:
        # Planes of fewer slices than they are wide are padded.
        across = not embedding[0, 0, -1].any()
        bright = embedding[0, 0] > 0
        logits = np.full((len(prompts.boxes), 1, 256, 256), -2, np.float32)
        for row, (x0, y0, x1, y1) in zip(logits, prompts.boxes.astype(int), strict=True):
            self.asked.append((across, [x0, y0, x1, y1]))
            within = np.s_[y0 : y1 + 1, x0 : x1 + 1]
            row[0][within] = 3 if self.blind and not across else np.where(bright[within], 2, -2)
        if prompts.points is not None:
            self.clicked.append((across, prompts.points[0, 0].tolist()))
        return logits, np.ones((len(logits), 1), np.float32)


def ellipsoid(thickness: int = 1, length: int = 40, side: int = 256, away: int = 0) -> tuple[Case, Mask]:
    """30 x 40 (or another length) x 20 mm, in slices of some mm and pixels of one, with its box; and where it is."""
    z, y, x = np.ogrid[: 60 // thickness, :side, :side]
    x, y = x - away, y - away
    inside = ((z + 0.5) * thickness - 30) ** 2 / 100 + (y - 99.5) ** 2 / (length / 2) ** 2 + (x - 49.5) ** 2 / 225 <= 1
    slices = np.flatnonzero(inside.any((1, 2)))
    low, high = [35 + away, 100 + away - length // 2], [64 + away, 99 + away + length // 2]
    image = np.where(inside, np.uint8(255), np.uint8(0))
    return volume(image, [[*low, slices[0], *high, slices[-1]]], (float(thickness), 1.0, 1.0)), inside


@pytest.mark.parametrize(
    ("thickness", "length", "side", "planes", "least"),
    [(1, 30, 256, 30, 1), (1, 30, 512, 30, 1), (2, 30, 256, 30, 0.96), (1, 40, 256, 20, 0.97)],
)
def test_planes_outvote_slices_that_were_wrong(
    thickness: int, length: int, side: int, planes: int, least: float
) -> None:
    """Slices say that all of the box belongs to the object: 3 - 2 - 2 is less than nothing, 3 + 2 + 2 more.

    All planes of 30 are asked, every second of 40. What is twice the encoder's size is seen in a tile, pixel by pixel.
    """
    case, inside = ellipsoid(thickness, length, side, away=side - 256)
    backend, painted, clock = BrightBackend(blind=True), [], StageClock()
    rule = Protocol3D(MULTIPLANAR, starts=1, box_prior=0)
    found = segment_volume(case, backend, rule, clock, lambda: painted.append(1)) > 0
    agree = (found & inside).sum() * 2 / (found.sum() + inside.sum())
    assert agree >= least
    alone = segment_volume(case, BrightBackend(blind=True), replace(rule, name="batched")) > 0
    assert (alone & inside).sum() * 2 / (alone.sum() + inside.sum()) < 0.75
    assert sum(across for across, _ in backend.asked) == planes + 30
    assert len(painted) == count_slices(case, rule) == planes + 30 + np.ptp(case.boxes[0, [2, 5]]) + 1
    assert clock.counts["encoded_slices"] == len(backend.asked), "one object: each is asked once in what is encoded"


def test_what_is_empty_is_not_asked() -> None:
    """Coronal planes see nothing, so that the sagittal ones have nothing to ask for."""
    case, _ = ellipsoid()
    painted: list[int] = []

    class Blind(BrightBackend):
        def decode(self, embedding: Floats, prompts: Prompts, multimask: bool = False) -> tuple[Floats, Floats]:
            logits, iou = super().decode(embedding, prompts, multimask)
            return (np.full_like(logits, -9) if self.asked[-1][0] else logits), iou

    backend = Blind()
    rule = Protocol3D(MULTIPLANAR)
    found = segment_volume(case, backend, rule, on_slice=lambda: painted.append(1))
    assert sum(across for across, _ in backend.asked) == 20
    assert len(painted) == count_slices(case, rule) == 20 + 20 + 30
    assert not found[:, 81::2].any(), "asked"
    assert not found[:, 82:119:2].any(), "between"


@pytest.mark.parametrize("mask_prompts", [False, True])
def test_planes_are_asked_by_the_box_of_what_is_known(mask_prompts: bool) -> None:
    """Slices know the object, 20 px from its middle to its end.

    18.5 px from there half of its 30 px is 15 (1 - (18.5 / 20)²)^½ = 5.7, 19.5 px from there 3.3.
    """
    case, _ = ellipsoid()
    backend = BrightBackend()
    segment_volume(case, backend, Protocol3D(MULTIPLANAR, box_dilation_px=0, mask_prompts=mask_prompts))
    coronal = [box for across, box in backend.asked if across][:20]
    widths = [x1 - x0 + 1 for x0, _, x1, _ in coronal]
    assert (widths[0], max(widths), widths[-1]) == (12, 30, 6)
    tall = [y1 - y0 + 1 for _, y0, _, y1 in coronal]
    assert (tall[0], max(tall), tall[-1]) == (8, 20, 4)


def test_a_z_max_that_is_one_past_the_object_is_not_of_it() -> None:
    case, _ = ellipsoid()
    past = replace(case, boxes=case.boxes + np.array([0, 0, 0, 0, 0, 1]))
    expected = segment_volume(case, BrightBackend(blind=True), Protocol3D(MULTIPLANAR, box_prior=0))
    rule = Protocol3D(MULTIPLANAR, box_prior=0, z_range="exclusive")
    np.testing.assert_array_equal(segment_volume(past, BrightBackend(blind=True), rule), expected)


def test_clicks_are_heard_in_their_planes() -> None:
    """One at x 50, y 100, z 33 lies in coronal plane 100, which is not asked without it, and in sagittal plane 50."""
    case, _ = ellipsoid()
    backend = BrightBackend()
    segment_volume(replace(case, clicks=(Click(0, (50, 100, 33), True),)), backend, Protocol3D(MULTIPLANAR))
    assert [point for across, point in backend.clicked if across] == [[50, 33], [100, 33]]


def test_an_object_of_one_slice_has_none() -> None:
    case, _ = ellipsoid()
    flat = replace(case, boxes=case.boxes * [1, 1, 0, 1, 1, 0] + [0, 0, 30, 0, 0, 30])
    rule = Protocol3D(MULTIPLANAR)
    assert count_slices(flat, rule) == 1
    found = segment_volume(flat, BrightBackend(), rule)
    np.testing.assert_array_equal(found, segment_volume(flat, BrightBackend(), Protocol3D()))
    assert found.any()


def test_a_volume_without_objects() -> None:
    case = volume(np.zeros((2, 32, 32), np.uint8), [])
    assert count_slices(case, Protocol3D(MULTIPLANAR)) == 0
    assert not segment_volume(case, BoxBackend(), Protocol3D(MULTIPLANAR)).any()


@pytest.mark.parametrize("options", [{}, {"z_range": "exclusive"}, {"mask_prompts": False}])
def test_objects_do_not_depend_on_each_other(options: dict[str, Any], light_backend: Backend) -> None:
    """Which of a slice or a plane are decoded together, and what is kept of them, changes nothing; one has a click."""
    image = np.random.default_rng(0).integers(0, 256, (6, 300, 280), np.uint8)
    boxes = [[100, 60, 0, 108, 66, 5], [104, 120, 1, 113, 125, 3]]
    case = volume(image, boxes, (4.0, 1.0, 1.0), (Click(1, (110, 122, 2), True),))
    rule, painted = Protocol3D(MULTIPLANAR, zoom=False, **options), []
    both = segment_volume(case, light_backend, rule, on_slice=lambda: painted.append(1), kept_embeddings=1)
    assert len(painted) == count_slices(case, rule)
    assert both[5 if rule.z_range == "inclusive" else 4].any()
    assert not both[5:].any() or rule.z_range == "inclusive"
    for number in range(2):
        clicks = tuple(replace(click, number=0) for click in case.clicks if click.number == number)
        alone = replace(case, boxes=case.boxes[[number]], object_labels=case.object_labels[[number]], clicks=clicks)
        found = segment_volume(alone, light_backend, rule)
        assert ((found > 0) != (both == number + 1)).sum() <= 1, "but for rounding"
        walked = segment_volume(alone, light_backend, replace(rule, name="batched"))
        assert (walked != found).sum() > 5, "planes have their say"


@pytest.mark.parametrize("option", ["within_box", "propagate"])
def test_masks_end_at_their_boxes_and_prompt(option: str) -> None:
    name = option.replace("_", "-")
    with pytest.raises(InputError, match=f"multiplanar: found --no-{name}; expected --{name} beside it"):
        Protocol3D(MULTIPLANAR, **{option: False})  # type: ignore[arg-type]


def test_room_for_votes_is_not_given_to_embeddings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 512 slices of 64x64: two bytes a voxel of the box, beside the four of any volume."""
    monkeypatch.setattr(psutil.Process, "memory_info", lambda self: type("Memory", (), {"rss": 0}))
    image = np.zeros((512, 64, 64), np.uint8)
    case = volume(image, [[0, 0, 0, 63, 63, 511]], (4.0, 1.0, 1.0))
    limit = WORKING_BYTES + 10 * EMBEDDING_BYTES
    assert image.size * 2 == EMBEDDING_BYTES
    assert kept_embeddings(case, limit) == 10 - 2
    assert kept_embeddings(case, limit, multiplanar=True) == 10 - 2 - 1
