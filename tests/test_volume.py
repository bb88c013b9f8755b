"""3D: the walk by hand, and protocols that must agree."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from box_backend import BoxBackend
from hypothesis import given
from hypothesis import strategies as st

from zoo.backends import Backend
from zoo.data.case import Case
from zoo.data.clicks import Click
from zoo.errors import InputError
from zoo.sam.predictor import SamPredictor
from zoo.sam.rule import PROTOCOLS, Protocol3D, prompt_for, protocol_of
from zoo.sam.volume import count_slices, segment_volume
from zoo.stages import StageClock
from zoo.transforms import MASK_LOGIT, fit_image


def volume(boxes: list[list[int]], depth: int = 8, side: int = 256) -> Case:
    """A volume whose slices have growing brightness."""
    image = np.repeat(np.arange(depth, dtype=np.uint8) * 20, side * side).reshape(depth, side, side)
    count = len(boxes)
    return Case("walk", "CT", image, np.array(boxes), np.arange(1, count + 1, dtype=np.uint16), (1.0, 1.0, 1.0))


def from_the_middle(name: str = "batched", **options: Any) -> Protocol3D:
    """A protocol whose walks begin in the middle, without a look at other slices."""
    return Protocol3D(name, starts=1, **options)


def slices_of(backend: BoxBackend) -> list[int]:
    """Which slices were decoded, from their brightness."""
    order = {mean: rank for rank, mean in enumerate(sorted(set(backend.means)))}
    return [order[mean] for mean in backend.means]


def test_walks_from_the_middle_up_then_down() -> None:
    backend = BoxBackend()
    segment_volume(volume([[50, 60, 1, 90, 100, 6]]), backend, from_the_middle("cached"))
    assert slices_of(backend) == [rank - 1 for rank in (3, 4, 5, 6, 2, 1)]


def test_a_mask_prompts_its_neighbour_dilated_by_three() -> None:
    backend = BoxBackend(shrink_px=5)
    segment_volume(volume([[50, 60, 0, 90, 100, 2]]), backend, from_the_middle())
    assert backend.prompts[0] == [50, 60, 90, 100]
    # A mask of 55..85 x 65..95, dilated by 3; both neighbours of the middle slice get it.
    assert backend.prompts[1:] == [[52, 62, 88, 98]] * 2


#: An object's own box, without its slices.
OWN = [50, 60, 90, 100]


def masks_beside(protocol: Protocol3D, trained: bool, shrink_px: int = 5) -> list[list[int] | None]:
    """For each prompt of a walk through five slices, bottom to top its size: the mask's box and area, or None."""
    backend = BoxBackend(shrink_px=shrink_px)
    backend.spec = replace(backend.spec, mask_prompts=trained)
    segment_volume(volume([[50, 60, 0, 90, 100, 4]]), backend, protocol)
    found: list[list[int] | None] = []
    for mask in backend.beside:
        if mask is None:
            found.append(None)
            continue
        assert set(np.unique(mask)) == {np.float32(-MASK_LOGIT), np.float32(MASK_LOGIT)}
        rows, columns = np.nonzero(mask > 0)
        found.append([columns.min(), rows.min(), columns.max(), rows.max(), len(rows)])
    return found


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_mask_itself_prompts_weights_that_were_trained_for_it(name: str) -> None:
    """The middle slice has none; each other has its neighbour's, which loses 2 px a side and slice."""
    first, second = [55, 65, 85, 95, 31 * 31], [57, 67, 83, 93, 27 * 27]
    expected = [None, first, second, first, second]
    none = [None] * 5
    assert masks_beside(from_the_middle(name, own_box_share=0), trained=True) == expected
    assert masks_beside(from_the_middle(name, mask_prompts=True, own_box_share=0), trained=False) == expected
    assert masks_beside(from_the_middle(name), trained=False) == none
    assert masks_beside(from_the_middle(name, mask_prompts=False), trained=True) == none
    assert masks_beside(from_the_middle(name, propagate=False), trained=True) == none
    assert masks_beside(from_the_middle(name), trained=True, shrink_px=200) == none, "nothing of a mask is left"


@pytest.mark.parametrize("name", PROTOCOLS)
@pytest.mark.parametrize(
    ("share", "second", "third"),
    # The box's mask is 55..85 x 65..95, and 52..88 x 62..98 with its margin of 3; the next mask follows from that.
    [(0, [52, 62, 88, 98], [54, 64, 86, 96]), (0.5, [51, 61, 89, 99], [51.5, 61.5, 88.5, 98.5]), (1, OWN, OWN)],
)
def test_the_box_beside_a_mask_lies_between_its_own_and_the_objects(
    name: str, share: float, second: list[float], third: list[float]
) -> None:
    backend = BoxBackend(shrink_px=5)
    backend.spec = replace(backend.spec, mask_prompts=True)
    case = volume([[*OWN[:2], 0, *OWN[2:], 4]])
    segment_volume(case, backend, from_the_middle(name, own_box_share=share))
    np.testing.assert_allclose(backend.prompts, [OWN, second, third, second, third], atol=0.5)
    backend.prompts.clear()
    segment_volume(case, backend, from_the_middle(name, own_box_share=share, mask_prompts=False))
    assert backend.prompts[1] == [52, 62, 88, 98], "a box alone says which object is meant"


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_click_is_heard_without_the_neighbours_mask(name: str) -> None:
    backend = BoxBackend()
    backend.spec = replace(backend.spec, mask_prompts=True)
    case = replace(volume([[50, 60, 0, 90, 100, 2]]), clicks=(Click(0, (70, 80, 2), True),))
    segment_volume(case, backend, from_the_middle(name))
    assert [mask is None for mask in backend.beside] == [True, True, False], "the middle, then the clicked slice"


def test_what_a_record_tells_of_mask_prompts() -> None:
    """Nothing where they are not in force, as in records of before; and a protocol goes whole into another process."""
    spec = BoxBackend().spec
    trained = replace(spec, mask_prompts=True)
    assert "mask_prompts" not in Protocol3D().recorded(spec)
    assert "mask_prompts" not in Protocol3D(mask_prompts=False).recorded(trained)
    assert "own_box_share" not in Protocol3D(own_box_share=0.7).recorded(spec)
    assert Protocol3D().recorded(trained)["mask_prompts"] is True
    assert Protocol3D(own_box_share=0.7).recorded(trained)["own_box_share"] == 0.7
    assert Protocol3D(mask_prompts=True).recorded(spec)["mask_prompts"] is True
    assert "starts" not in from_the_middle().recorded(spec)
    assert Protocol3D().recorded(spec)["starts"] == 3
    for asked in (None, True, False):
        assert protocol_of(Protocol3D(mask_prompts=asked).as_record()) == Protocol3D(mask_prompts=asked)


def test_a_dead_mask_is_prompted_by_the_box() -> None:
    backend = BoxBackend(shrink_px=200)
    segmentation = segment_volume(volume([[50, 60, 0, 90, 100, 2]]), backend, from_the_middle())
    assert backend.prompts == [[50, 60, 90, 100]] * 3
    assert not segmentation.any()


def test_without_propagation_every_slice_gets_the_box() -> None:
    backend = BoxBackend(shrink_px=5)
    segment_volume(volume([[50, 60, 0, 90, 100, 2]]), backend, Protocol3D(propagate=False))
    assert backend.prompts == [[50, 60, 90, 100]] * 3


@pytest.mark.parametrize(("z_range", "slices"), [("inclusive", 4), ("exclusive", 3)])
def test_z_range(z_range: str, slices: int) -> None:
    case = volume([[50, 60, 2, 90, 100, 5]])
    protocol = Protocol3D(z_range=z_range)  # type: ignore[arg-type]
    segmentation = segment_volume(case, BoxBackend(), protocol)
    assert np.flatnonzero(segmentation.any(axis=(1, 2))).tolist() == list(range(2, 2 + slices))
    assert count_slices(case, protocol) == slices


def test_a_box_past_the_last_slice_is_named() -> None:
    case = volume([[50, 60, 2, 90, 100, 8]])
    with pytest.raises(InputError, match=r"z 2\.\.8 in 8 slices"):
        segment_volume(case, BoxBackend())
    assert segment_volume(case, BoxBackend(), Protocol3D(z_range="exclusive"))[7].any()


@pytest.mark.parametrize(
    ("z_range", "z", "told"),
    [
        ("exclusive", (5, 5), r"z 5\.\.5 in 8 slices; expected z_min < z_max within 0\.\.8 \(exclusive\)"),
        ("exclusive", (5, 9), r"z 5\.\.9 in 8 slices; expected z_min < z_max within 0\.\.8 \(exclusive\)"),
        ("inclusive", (5, 8), r"z 5\.\.8 in 8 slices; expected z_min <= z_max within 0\.\.7 \(inclusive\)"),
    ],
)
def test_slices_that_a_box_may_have_are_told_as_they_are_counted(z_range: Any, z: tuple[int, int], told: str) -> None:
    with pytest.raises(InputError, match=told):
        segment_volume(volume([[50, 60, z[0], 90, 100, z[1]]]), BoxBackend(), Protocol3D(z_range=z_range))


@pytest.mark.parametrize("z_range", ["inclusive", "exclusive"])
@pytest.mark.parametrize(
    "box",
    [
        [50, 60, 2, 256, 100, 5],
        [50, -4, 2, 90, 100, 5],
        [90, 60, 2, 50, 100, 5],
        [50, 60.5, 2, 90, 100, 5],
        [50, 60, 2.5, 90, 100, 5],
    ],
)
def test_a_box_past_the_slices_or_between_voxels_is_named(box: Any, z_range: Any) -> None:
    case, expected = volume([[50, 60, 2, 90, 100, 5], box]), r"phantom: found (box 1 \[|float64).*; expected"
    with pytest.raises(InputError, match=expected):
        segment_volume(case, BoxBackend(), Protocol3D(z_range=z_range))
    with pytest.raises(InputError, match=expected):
        count_slices(case, Protocol3D(z_range=z_range))


def test_whole_numbers_in_float_boxes_and_no_boxes_at_all() -> None:
    case = volume([[50, 60, 2, 90, 100, 5]])
    found = segment_volume(replace(case, boxes=case.boxes.astype(np.float64)), BoxBackend())
    np.testing.assert_array_equal(found, segment_volume(case, BoxBackend()))
    none = replace(case, boxes=case.boxes[:0], object_labels=case.object_labels[:0])
    assert not segment_volume(none, BoxBackend()).any()


def test_a_box_of_one_slice() -> None:
    segmentation = segment_volume(volume([[50, 60, 7, 90, 100, 7]]), BoxBackend())
    assert np.flatnonzero(segmentation.any(axis=(1, 2))).tolist() == [7]


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_walk_that_loses_its_way_stays_within_the_objects_box(name: str) -> None:
    """A runtime whose masks are 6 px larger than their prompts on each side, and a margin of 3 px: 9 px a slice."""
    case = volume([[50, 60, 0, 90, 100, 4]], depth=5)
    found, prompts = {}, {}
    for within_box in (True, False):
        backend = BoxBackend(shrink_px=-6)
        found[within_box] = segment_volume(case, backend, from_the_middle(name, within_box=within_box))
        prompts[within_box] = backend.prompts
    rows, columns = (np.flatnonzero(found[True].any(axis=axes)) for axes in ((0, 2), (0, 1)))
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (60, 100, 50, 90)
    assert all(prompt == [50, 60, 90, 100] for prompt in prompts[True])
    assert prompts[False] == [[50 - d, 60 - d, 90 + d, 100 + d] for d in (0, 9, 18, 9, 18)]


@given(st.lists(st.integers(0, 99), min_size=4, max_size=4), st.integers(0, 4), st.integers(1, 300))
def test_prompts_stay_ordered_within_the_objects_box(corners: list[int], dilation: int, side: int) -> None:
    """Of any box, in slices of any size, from a neighbour's mask that fills it: rounding turns none inside out."""
    x0, y0, x1, y1 = (corner * (side - 1) // 99 for corner in corners)
    box = [min(x0, x1), min(y0, y1), 0, max(x0, x1), max(y0, y1), 1]
    case, protocol = volume([box], depth=2, side=side), Protocol3D(box_dilation_px=dilation)
    neighbour = np.zeros((side, side), np.bool_)
    neighbour[box[1] : box[4] + 1, box[0] : box[3] + 1] = True
    fit = fit_image((side, side), 256, "pad")
    first, second = (prompt_for(case, 0, previous, fit, protocol) for previous in (None, neighbour))
    assert first[0] <= second[0] <= second[2] <= first[2]
    assert first[1] <= second[1] <= second[3] <= first[3]


def test_later_objects_lie_over_earlier_ones_and_labels_pass_255() -> None:
    case = volume([[50, 60, 0, 90, 100, 1], [70, 60, 0, 120, 100, 1]])
    case = replace(case, object_labels=np.array([299, 300], np.uint16))
    segmentation = segment_volume(case, BoxBackend(shrink_px=0), Protocol3D(propagate=False, overlap="last"))
    assert segmentation.dtype == np.uint16
    assert segmentation[0, 80, 60] == 299
    assert segmentation[0, 80, 80] == 300


def test_mask_value_label_keeps_thin_masks_of_late_objects() -> None:
    """A 2 px mask in a 1024 px slice covers 1/4 of its pixels at 256 px: lost at number 1, kept at number 6."""
    boxes = [[400, 400, 0, 401, 401, 1]] * 6
    prompts = {}
    for mask_value in ("binary", "label"):
        backend = BoxBackend(shrink_px=0)
        protocol = Protocol3D(mask_value=mask_value, box_dilation_px=0)  # type: ignore[arg-type]
        segment_volume(volume(boxes, depth=2, side=1024), backend, protocol)
        prompts[mask_value] = backend.prompts
    assert prompts["binary"][:2] == prompts["label"][:2]
    assert all(np.isfinite(prompts["label"][-1]))


def test_protocols_agree(light_backend: Backend, small_volume: Case) -> None:
    results, counts = {}, {}
    for name in PROTOCOLS:
        clock = StageClock()
        results[name] = segment_volume(small_volume, light_backend, Protocol3D(name), clock)
        counts[name] = clock.counts
    np.testing.assert_array_equal(results["per_object"], results["cached"])
    assert (results["batched"] == results["cached"]).mean() >= 0.999
    assert results["cached"].any()
    looks = counts["batched"]["decoded_prompts"]
    assert looks > 9, "a mask for each slice of each object, and looks at where to begin"
    assert counts["per_object"] == {"encoded_slices": looks, "decoded_prompts": looks}
    assert counts["cached"] == counts["batched"] == {"encoded_slices": 6, "decoded_prompts": looks}


def random_boxes(rng: np.random.Generator, depth: int, side: int, count: int) -> list[list[int]]:
    ends = np.sort(rng.integers(0, [side, side, depth], (2, count, 3)), axis=0)
    return np.concatenate([ends[0], ends[1]], axis=1).tolist()


OPTIONS: list[dict[str, Any]] = [
    {},
    {"mask_value": "label"},
    {"box_rounding": "float", "box_dilation_px": 0, "resize": "cubic"},
    {"propagate": False},
    {"starts": 5},
    {"starts": 1},
]


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kept", [0, 2])
def test_protocols_agree_exactly_where_arithmetic_does(seed: int, kept: int, options: dict[str, Any]) -> None:
    """Overlapping, nested, single-slice and dying walks of eight objects, whatever `batched` keeps or batches."""
    rng = np.random.default_rng(seed)
    case = volume(random_boxes(rng, 9, 200, 8), depth=9)
    shrink = int(rng.integers(0, 9))
    results = [
        segment_volume(case, BoxBackend(shrink_px=shrink), Protocol3D(name, **options), kept_embeddings=kept)
        for name in PROTOCOLS
    ]
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])


@pytest.mark.parametrize(("kept", "encoded"), [(None, 9), (9, 9), (3, 15), (0, 18)])
def test_cached_keeps_no_more_embeddings_than_it_may(kept: int | None, encoded: int) -> None:
    clock = StageClock()
    case = volume([[50, 60, 0, 90, 100, 8]] * 2, depth=9)
    segment_volume(case, BoxBackend(), from_the_middle("cached"), clock, kept_embeddings=kept)
    assert clock.counts["encoded_slices"] == encoded


def test_cached_lets_go_of_what_nobody_asks_for_again() -> None:
    """There is room for one: the first object's start, which no other needs, must not take it from the last slice."""
    clock = StageClock()
    case = volume([[50, 60, 0, 90, 100, 2], [50, 60, 5, 90, 100, 5], [120, 60, 5, 160, 100, 5]])
    segment_volume(case, BoxBackend(), from_the_middle("cached"), clock, kept_embeddings=1)
    assert clock.counts["encoded_slices"] == 3 + 1


def test_batched_lets_go_of_starts_that_nobody_asks_for_again() -> None:
    """There is room for one: slice 5, which walks of both directions cross, needs it; of the starts none does."""
    clock = StageClock()
    case = volume([[50, 60, 0, 90, 100, 2], [50, 60, 4, 90, 100, 5], [120, 60, 5, 160, 100, 7]])
    segment_volume(case, BoxBackend(), from_the_middle("batched"), clock, kept_embeddings=1)
    assert clock.counts["encoded_slices"] == 7, "each slice but 3, once"


@pytest.mark.parametrize("name", PROTOCOLS)
def test_no_slice_is_encoded_that_no_box_reaches(name: str) -> None:
    clock, backend = StageClock(), BoxBackend()
    case = volume([[50, 60, 1, 90, 100, 2], [50, 60, 6, 90, 100, 6]])
    segment_volume(case, backend, Protocol3D(name), clock)
    assert len(set(backend.means)) == 3
    assert clock.counts["encoded_slices"] == (4 if name == "per_object" else 3)


def test_resize_is_the_encoders_own_unless_named(small_volume: Case) -> None:
    means = {}
    for resize in (None, "area", "linear"):
        backend = BoxBackend()
        segment_volume(small_volume, backend, Protocol3D(resize=resize))  # type: ignore[arg-type]
        means[resize] = backend.means
    assert means[None] == means["area"] != means["linear"]


def test_unknown_protocol_is_named() -> None:
    with pytest.raises(InputError, match="cached"):
        Protocol3D("cache")


def test_a_2d_case_is_no_volume(light_backend: Backend) -> None:
    case = Case("flat", "CT", np.zeros((8, 8, 3), np.uint8), np.array([[1, 1, 5, 5]]), np.array([1], np.uint16), (1, 1))
    with pytest.raises(InputError, match="a volume"):
        segment_volume(case, light_backend)


def test_boxes_together_give_the_masks_of_each_alone(light_backend: Backend, small_volume: Case) -> None:
    image = np.repeat(small_volume.image[2][..., None], 3, axis=2)
    boxes = small_volume.boxes[:, [0, 1, 3, 4]]
    predictor = SamPredictor(light_backend)
    predictor.set_image(image)
    together = predictor.predict(boxes=boxes)
    assert together.masks.shape == (3, 1, 40, 56)
    for i, box in enumerate(boxes):
        alone = predictor.predict(boxes=box[None])
        np.testing.assert_allclose(together.low_res_logits[i], alone.low_res_logits[0], rtol=1e-3, atol=1e-3)
        assert (together.masks[i] != alone.masks[0]).mean() <= 0.001


def test_points_and_multimask(light_backend: Backend, small_volume: Case) -> None:
    predictor = SamPredictor(light_backend)
    predictor.set_image(small_volume.image[2])
    prediction = predictor.predict(points=[[[20, 20], [40, 5]]], point_labels=[[1, 0]], multimask=True)
    assert prediction.masks.shape == (1, 3, 40, 56)
    again = predictor.predict(boxes=[[8, 6, 30, 30]], masks=prediction.low_res_logits[:, :1])
    assert again.iou.shape == (1, 1)


def test_predictor_refuses(light_backend: Backend) -> None:
    predictor = SamPredictor(light_backend)
    with pytest.raises(InputError, match="set_image"):
        predictor.predict(boxes=[[0, 0, 1, 1]])
    with pytest.raises(InputError, match="float64"):
        predictor.set_image(np.zeros((4, 4, 3)))  # type: ignore[arg-type]
    predictor.set_image(np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(InputError, match="nothing"):
        predictor.predict()
    with pytest.raises(InputError, match="points without labels"):
        predictor.predict(points=[[[1, 1]]])
    for bad in (np.zeros((0, 4)), [0, 0, 1, 1], [[0, 0, 1]], [[0, 0, 1, np.nan]], [["a", "b", "c", "d"]]):
        with pytest.raises(InputError, match=r"boxes: found .*; expected finite numbers \(B, 4\)"):
            predictor.predict(boxes=bad)
    for bad in ([3, 0, 1, 1], [0, 3, 1, 1], [5, 0, 9, 1], [-5, 0, -1, 1], [0, 4, 1, 9]):
        with pytest.raises(InputError, match=r"box 1: found .*; expected .* the image of 4x4 pixels"):
            predictor.predict(boxes=[[0, 0, 1, 1], bad])
    assert predictor.predict(boxes=[[-2, 1, 9, 3]]).masks.shape == (1, 1, 4, 4)
