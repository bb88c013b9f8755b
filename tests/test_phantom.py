"""The built-in phantom: deterministic, of any size, and no gift to an ellipse."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bench.floor import ellipse_segmentation
from bench.metrics import dice
from zoo.data.case import Case, boxes_from_labels, validate_boxes
from zoo.data.phantom import DEFAULT_PHANTOMS, PHANTOMS, PUBLISHED_PHANTOMS, PhantomSpec, load_phantom, make_phantom
from zoo.errors import InputError


def slice_scores(case: Case) -> list[float]:
    """DSC of the ellipse in the tight box of every object in every slice, for at least 40 pixels."""
    assert case.labels is not None
    scores = []
    for labels in case.labels if case.is_volume else [case.labels]:
        for label in case.object_labels:
            mask = labels == label
            if mask.sum() >= 40:
                boxes, values = boxes_from_labels(mask.astype(np.uint16))
                flat = replace(case, image=np.zeros((*mask.shape, 3), np.uint8), boxes=boxes, object_labels=values)
                scores.append(dice(ellipse_segmentation(flat) > 0, mask))
    return scores


@pytest.mark.parametrize("name", DEFAULT_PHANTOMS)
def test_built_in_cases(name: str) -> None:
    case, spec = load_phantom(name), DEFAULT_PHANTOMS[name]
    assert case.case_id == f"phantom_{name}"
    assert case.image.dtype == np.uint8
    assert case.spatial_shape == spec.shape
    assert case.object_labels.tolist() == list(range(1, spec.objects + 1))
    assert case.labels is not None
    validate_boxes(name, case.boxes, case.spatial_shape)
    np.testing.assert_array_equal(boxes_from_labels(case.labels)[0], case.boxes)
    assert case.image.std() > 20
    np.testing.assert_array_equal(case.image, load_phantom(name).image)


@pytest.mark.parametrize("name", DEFAULT_PHANTOMS)
def test_filling_the_box_with_an_ellipse_does_not_do(name: str) -> None:
    case = load_phantom(name)
    assert case.labels is not None
    assert np.mean(slice_scores(case)) <= 0.70
    if case.is_volume:
        filled = ellipse_segmentation(case)
        assert np.mean([dice(filled == label, case.labels == label) for label in case.object_labels]) <= 0.55


@pytest.mark.parametrize(
    ("shape", "objects"), [((8, 32, 32), 1), ((8, 32, 32), 300), ((3, 64, 48), 20), ((40, 40), 60), ((64, 96), 1)]
)
@pytest.mark.parametrize("seed", range(4))
def test_any_size_and_count(shape: tuple[int, ...], objects: int, seed: int) -> None:
    case = make_phantom(PhantomSpec("MR", shape, objects, (1.0,) * len(shape), seed))
    assert case.object_labels.tolist() == list(range(1, objects + 1))
    assert case.labels is not None
    assert np.bincount(case.labels.ravel())[1:].min() >= 4


def test_seeds_differ() -> None:
    spec = DEFAULT_PHANTOMS["ct2d"]
    assert (make_phantom(spec).image != make_phantom(replace(spec, seed=99)).image).any()


def test_published_shapes() -> None:
    assert PUBLISHED_PHANTOMS["3DBox_CT_0566"].shape == (287, 512, 512)
    assert PUBLISHED_PHANTOMS["3DBox_MR_0121"].objects == 6


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED_PHANTOMS)
def test_published_cases_can_be_made(name: str) -> None:
    case = load_phantom(name)
    assert case.image.shape == PHANTOMS[name].shape
    assert len(case.boxes) == PHANTOMS[name].objects


@pytest.mark.parametrize("objects", [0, 8 * 32 * 32])
def test_impossible_counts_are_refused(objects: int) -> None:
    with pytest.raises(InputError, match="sixteenth"):
        make_phantom(PhantomSpec("CT", (8, 32, 32), objects, (1.0, 1.0, 1.0)))


def test_unknown_phantom_is_named() -> None:
    with pytest.raises(InputError, match="did you mean ct3d"):
        load_phantom("ct3")
