"""Cases that need no file: what names them, and what is drawn."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from zoo.data.built_in import LOOK_MODALITIES, load_built_in
from zoo.data.case import boxes_from_labels, validate_boxes
from zoo.data.cases import find_cases
from zoo.data.prepare import Preparation
from zoo.data.synthetic import LOOK_NAMES, sample
from zoo.errors import InputError
from zoo.segment import load_prompted


@pytest.mark.parametrize(
    ("spec", "references"),
    [
        ("phantom:mr2d", ["phantom:mr2d"]),
        ("synthetic:3", ["synthetic:3"]),
        ("synthetic:8-10", ["synthetic:8", "synthetic:9", "synthetic:10"]),
        ("synthetic", [f"synthetic:{number}" for number in range(24)]),
        ("synthetic:3d:7", ["synthetic:3d:7"]),
        ("synthetic:3d:8-9", ["synthetic:3d:8", "synthetic:3d:9"]),
        ("synthetic:3d", [f"synthetic:3d:{number}" for number in range(8)]),
    ],
)
def test_a_reference_finds_exactly_its_case(spec: str, references: list[str]) -> None:
    found = find_cases(spec)
    assert [source.reference for source in found] == references
    for source in found:
        assert find_cases(source.reference) == [source]
        assert source.case_id == source.reference.replace(":", "_")


@pytest.mark.parametrize(
    "name", ["3-2", "-1", "1-", "x", "1,2", "²", "1-2-3", "3d:x", "3d:3-2", "3d-1", "2d:1", "3d:1:2"]
)
def test_what_is_no_range_of_numbers_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=r"synthetic images or volumes: found .*; expected FIRST-LAST such as 0-23"):
        find_cases(f"synthetic:{name}")


def test_a_file_of_such_a_name_is_still_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("synthetic.npz").touch()
    assert [source.image_path for source in find_cases("synthetic.npz")] == [Path("synthetic.npz")]


def test_synthetic_images_are_the_same_each_time_and_show_all_looks_alike() -> None:
    cases = [source.load() for source in find_cases("synthetic")]
    assert set(LOOK_MODALITIES) == set(LOOK_NAMES)
    assert Counter(case.modality for case in cases) == dict.fromkeys(LOOK_MODALITIES.values(), 4)
    assert any(case.image.shape != (256, 256, 3) for case in cases), "no padding"
    for case, again in zip(cases, find_cases("synthetic"), strict=True):
        assert not case.is_volume
        assert case.labels is not None
        assert case.labels.shape == case.image.shape[:2]
        validate_boxes(case.case_id, case.boxes, case.spatial_shape)
        boxes, values = boxes_from_labels(case.labels)
        np.testing.assert_array_equal(case.boxes, boxes)
        np.testing.assert_array_equal(case.object_labels, values)
        np.testing.assert_array_equal(again.load().image, case.image)


def test_synthetic_volumes_are_the_same_each_time_and_take_turns_at_the_looks() -> None:
    cases = [source.load() for source in find_cases("synthetic:3d:0-3")]
    assert [case.modality for case in cases] == ["CT", "MR", "CT", "MR"]
    for case, again in zip(cases, find_cases("synthetic:3d:0-3"), strict=True):
        assert case.is_volume
        assert case.labels is not None
        assert case.labels.shape == case.image.shape == (24, 192, 192)
        assert 1 <= case.spacing_mm[0] <= 4, "slices are as thick as pixels, or thicker"
        assert case.spacing_mm[1:] == (1, 1)
        validate_boxes(case.case_id, case.boxes, case.spatial_shape)
        np.testing.assert_array_equal(case.boxes, boxes_from_labels(case.labels)[0])
        np.testing.assert_array_equal(again.load().image, case.image)


def test_numbers_are_images_of_their_own() -> None:
    first, second = (load_built_in(f"synthetic:{number}") for number in (0, 1))
    assert first.image.shape != second.image.shape or not np.array_equal(first.image, second.image)


def test_training_does_not_see_them() -> None:
    case, seen = load_built_in("synthetic:0"), sample(0, 256, "ct")
    height, width = seen.content_shape
    assert case.modality == "CT"
    assert not np.array_equal(case.image, seen.image[:height, :width])


def test_they_can_be_segmented() -> None:
    (source,) = find_cases("synthetic:5")
    np.testing.assert_array_equal(load_prompted(source, Preparation()).case.image, source.load().image)


@pytest.mark.parametrize("name", ["phantom", "synthetic"])
def test_a_folder_of_that_name_goes_first(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).mkdir()
    (tmp_path / name / "2DBox_US_a.npz").touch()
    assert [source.case_id for source in find_cases(name)] == ["2DBox_US_a"]
    assert find_cases(f"{name}:")[0].image_path is None
