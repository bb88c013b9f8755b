"""2D: an image's boxes to its label map, under each option of the rule."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from box_backend import BoxBackend
from numpy.typing import NDArray

from zoo.backends import Backend, Floats, Prompts, Windows
from zoo.data.case import Case
from zoo.data.phantom import load_phantom
from zoo.errors import InputError
from zoo.sam.case import segment_case
from zoo.sam.image import segment_image
from zoo.sam.predictor import BOXES_A_BATCH, SamPredictor
from zoo.sam.rule import Protocol2D, Protocol3D
from zoo.stages import StageClock
from zoo.windows import pixels_in


def image(boxes: list[list[int]], side: int = 256) -> Case:
    pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    return Case("image", "CT", pixels, np.array(boxes), np.arange(1, len(boxes) + 1, dtype=np.uint16), (1.0, 1.0))


def extent(mask: NDArray[np.bool_]) -> list[int]:
    """x_min y_min x_max y_max of what is true."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return [int(end) for end in (columns[0], rows[0], columns[-1], rows[-1])]


@pytest.mark.parametrize(("within_box", "expected"), [(True, [50, 60, 90, 100]), (False, [44, 54, 96, 106])])
def test_a_mask_ends_at_its_box_unless_told_otherwise(within_box: bool, expected: list[int]) -> None:
    """A runtime whose masks are 6 px larger than their prompts on each side."""
    protocol = Protocol2D(within_box=within_box, box_margin_px=0)
    found = segment_image(image([[50, 60, 90, 100]]), BoxBackend(shrink_px=-6), protocol)
    assert extent(found == 1) == expected


def test_the_last_object_owns_what_several_cover_if_asked_for() -> None:
    """Masks of 1 in a small box and of 0.5 in a large one that comes later."""

    class Unequal(BoxBackend):
        def decode(self, embedding: Floats, prompts: Prompts, multimask: bool = False) -> tuple[Floats, Floats]:
            logits, iou = super().decode(embedding, prompts)
            large = np.asarray(prompts.boxes)[:, 2] > 100
            logits[large] *= 0.5
            return logits, iou

    case = image([[50, 50, 90, 90], [40, 40, 120, 120]])
    by_overlap = {
        overlap: segment_image(case, Unequal(shrink_px=0), Protocol2D(overlap=overlap))  # type: ignore[arg-type]
        for overlap in ("density", "logit", "last")
    }
    assert by_overlap["logit"][70, 70] == 1
    assert by_overlap["last"][70, 70] == 2
    assert by_overlap["density"][70, 70] == 1
    assert by_overlap["logit"][110, 110] == by_overlap["last"][110, 110] == 2


def test_boxes_are_rounded_and_images_resized_as_told() -> None:
    case = image([[33, 33, 66, 66]], side=300)
    prompts, means = {}, {}
    for rounding, resize in (("truncate", None), ("float", "cubic")):
        backend = BoxBackend()
        rule = Protocol2D(box_rounding=rounding, resize=resize, zoom=False, box_margin_px=0)  # type: ignore[arg-type]
        segment_image(case, backend, rule)
        prompts[rounding], means[rounding] = backend.prompts[0], backend.means[0]
    assert prompts["truncate"] == [28, 28, 56, 56]
    assert prompts["float"] == pytest.approx([28.16, 28.16, 56.32, 56.32])
    assert means["truncate"] != means["float"]


def test_boxes_prompt_with_a_margin_within_the_image() -> None:
    """300 x 150 px in a frame of 256: scaled by 0.853, the image's last row is 127."""
    pixels = np.random.default_rng(0).integers(0, 256, (150, 300, 3), np.uint8)
    boxes = np.array([[33, 33, 66, 66], [0, 1, 299, 149]])
    case = Case("wide", "CT", pixels, boxes, np.array([1, 2], np.uint16), (1.0, 1.0))
    backend = BoxBackend(shrink_px=0)
    found = segment_image(case, backend, Protocol2D(box_margin_px=3, zoom=False, fovea=False))
    assert backend.prompts == [[25, 25, 59, 59], [0, 0, 255, 127]]
    assert extent(found == 1) == [33, 33, 66, 66], "the mask ends at the box that was given"
    assert "box_margin_px" not in Protocol2D(box_margin_px=0).recorded(backend.spec)
    assert Protocol2D().recorded(backend.spec)["box_margin_px"] == 2


@dataclass
class Counting(BoxBackend):
    """Remembers how many boxes were decoded together, and the windows that were wanted."""

    batches: list[int] = field(default_factory=list)
    windows: list[Windows | None] = field(default_factory=list)

    def decode_boxes(
        self, embedding: Floats, boxes: Floats, windows: Windows | None = None, masks: Floats | None = None
    ) -> tuple[Floats, Floats]:
        self.batches.append(len(boxes))
        self.windows.append(windows)
        return super().decode_boxes(embedding, boxes, windows, masks)


@pytest.mark.parametrize("name", ["mr2d", "mr3d"])
def test_a_case_and_a_protocol_that_do_not_go_together_are_named(name: str) -> None:
    case = load_phantom(name)
    protocol = Protocol2D() if case.is_volume else Protocol3D()
    with pytest.raises(InputError, match=r"found a (2D case|volume) of shape .*; expected a (2D case|volume)"):
        segment_case(case, BoxBackend(), protocol)


@pytest.mark.parametrize(
    "box", [[50, 60, 256, 100], [50, -4, 90, 100], [-9, 60, -2, 100], [90, 60, 50, 100], [50, 60.5, 90, 100]]
)
def test_a_box_past_the_image_or_between_pixels_is_named(box: Any) -> None:
    with pytest.raises(InputError, match=r"phantom: found (box 1 \[|float64).*; expected"):
        segment_image(image([[50, 60, 90, 100], box]), BoxBackend())


def test_an_image_without_boxes_has_no_objects() -> None:
    case = replace(image([]), boxes=np.zeros((0, 4), np.int64))
    assert not segment_image(case, BoxBackend()).any()


def test_three_hundred_objects() -> None:
    corners = np.random.default_rng(0).integers(0, 200, (300, 2))
    case, backend, clock = image(np.concatenate([corners, corners + 20], axis=1).tolist()), Counting(0), StageClock()
    done: list[int] = []
    segmentation = segment_image(case, backend, clock=clock, on_object=lambda: done.append(1))
    assert len(done) == 300
    assert segmentation.dtype == np.uint16
    assert segmentation.max() == 300
    assert sum(backend.batches) == 300
    assert set(backend.batches[:-1]) == {20, 23}, "of 8192 positions: foveae of 144 or 96, and 256 cells"
    assert backend.batches[-1] <= 23
    assert (clock.counts["encoded_slices"], clock.counts["decoded_prompts"]) == (1, 300)
    assert min(clock.seconds[stage] for stage in ("preprocess", "encode", "decode", "postprocess")) > 0


def test_a_prediction_of_many_boxes_is_decoded_in_batches() -> None:
    backend = Counting(0)
    predictor = SamPredictor(backend)
    predictor.set_image(image([]).image)
    boxes = [[x, 10, x + 20, 40] for x in range(0, 200, 20)]
    prediction = predictor.predict(boxes=boxes)
    assert max(backend.batches) <= BOXES_A_BATCH
    assert [extent(mask) for mask in prediction.masks[:, 0]] == boxes


def test_windows_of_boxes_change_nothing_within_them(light_backend: Backend) -> None:
    """Against whole masks, cut at the boxes by hand: of one object after another, so that none hides another."""
    case = load_phantom("mr2d")
    predictor = SamPredictor(light_backend)
    predictor.set_image(case.image)
    for box in case.boxes:
        alone = Case("one", "MR", case.image, box[None], np.array([1], np.uint16), case.spacing_mm)
        expected = np.zeros(case.spatial_shape, bool)
        inside = pixels_in(box)
        expected[inside] = predictor.predict(boxes=box[None]).masks[0, 0][inside]
        found = segment_image(alone, light_backend, Protocol2D(box_prior=0, box_margin_px=0, fovea=False)) == 1
        assert expected.any()
        assert (found != expected).mean() <= 0.001


@pytest.mark.parametrize("within_box", [True, False])
def test_small_objects_of_a_large_image_are_segmented_in_a_tile_of_it(within_box: bool) -> None:
    """Of 512 px, an encoder of 256 sees every second pixel: objects up to 128 px lie in tiles of 256, all pixels."""
    boxes = [[300, 40, 340, 60], [310, 50, 350, 70], [100, 100, 400, 200], [480, 480, 511, 511]]
    backend, clock = Counting(0), StageClock()
    protocol = Protocol2D(within_box=within_box, box_margin_px=0, fovea=False)
    found = segment_image(image(boxes, side=512), backend, protocol, clock)
    assert backend.prompts == [[44, 40, 84, 60], [54, 50, 94, 70], [50, 50, 200, 100], [224, 224, 255, 255]]
    assert backend.batches == [2, 1, 1], "objects of a tile are decoded together"
    assert clock.counts["encoded_slices"] == 3
    assert extent(found == 4) == boxes[3]
    assert extent(found == 1) == [300, 40, 340, 60]
    assert extent(found == 2) == [310, 50, 350, 70]


def test_without_zoom_an_image_is_encoded_once() -> None:
    backend, clock = Counting(0), StageClock()
    segment_image(image([[300, 40, 340, 60], [480, 480, 511, 511]], side=512), backend, Protocol2D(zoom=False), clock)
    assert clock.counts["encoded_slices"] == 1
    assert backend.prompts[0] == [150 - 2, 20 - 2, 170 + 2, 30 + 2]


def test_windows_are_asked_for_where_masks_end_at_their_boxes() -> None:
    for within_box in (True, False):
        backend = Counting(0)
        segment_image(image([[0, 0, 7, 7], [248, 248, 255, 255]]), backend, Protocol2D(within_box=within_box))
        (windows,) = backend.windows
        assert (windows is not None) == within_box
        if windows is not None:
            assert windows.tolist() == [[0, 0, 3, 3], [61, 61, 64, 64]]
