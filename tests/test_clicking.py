"""Clicks as a person would make them, imitated: where they go, and what `bench` records of them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from test_clicks import ClickBackend, picture
from test_volume import volume

from bench.clicking import click_on_errors
from cli import main
from reports.candidates import protocol_id
from reports.rules import label_protocols
from zoo.data.case import Case
from zoo.data.clicks import Click
from zoo.sam.image import segment_image


def labelled(case: Case, labels: np.ndarray) -> Case:
    return replace(case, labels=labels.astype(np.uint16))


def test_the_click_is_in_the_middle_of_the_largest_error() -> None:
    """Of an object of 11 x 11 pixels a bar of 7 x 11 is missed, and 3 x 11 beside it are too much."""
    labels, found = np.zeros((256, 256)), np.zeros((256, 256), np.uint16)
    labels[100:111, 100:111] = 1
    found[100:111, 107:111] = 1
    found[100:111, 111:114] = 1
    case = labelled(picture([[90, 90, 120, 120]], ()), labels)
    assert click_on_errors(case, found).clicks == (Click(0, (103, 103), True),)
    found[100:111, 100:111] = 1
    assert click_on_errors(case, found).clicks == (Click(0, (112, 101), False),)
    # Of thin misses there are more pixels, but their middle is nearer to being right.
    found[100:111, 100:111:2] = 0
    assert click_on_errors(case, found).clicks == (Click(0, (112, 101), False),)


def test_a_mask_that_lacks_all_of_its_box_is_clicked_in_the_middle() -> None:
    labels = np.zeros((256, 256))
    labels[40:61, 30:41] = 1
    case = labelled(picture([[30, 40, 40, 60]], ()), labels)
    (click,) = click_on_errors(case, np.zeros((256, 256), np.uint16)).clicks
    assert click.voxel[0] == 35
    assert 45 <= click.voxel[1] <= 55


def test_masks_that_are_right_get_no_click_and_clicks_are_kept() -> None:
    labels = np.zeros((256, 256))
    labels[10:20, 10:20], labels[50:60, 50:60] = 1, 2
    before = Click(1, (55, 55), True)
    case = labelled(picture([[10, 10, 19, 19], [50, 50, 59, 59]], (before,)), labels)
    assert click_on_errors(case, labels.astype(np.uint16)).clicks == (before,)
    clicked = click_on_errors(case, np.zeros((256, 256), np.uint16))
    assert clicked.clicks[:1] == (before,)
    assert [click.number for click in clicked.clicks] == [1, 0, 1]


def test_in_a_volume_the_worst_slice_gets_the_click() -> None:
    case = volume([[10, 10, 1, 30, 30, 6]])
    labels, found = np.zeros(case.image.shape), np.zeros(case.image.shape, np.uint16)
    labels[2:6, 15:26, 15:26] = 1
    found[2:6, 15:26, 15:26] = 1
    found[3, 15:18, 15:26] = 0
    found[4, 15:26, 15:26] = 0
    assert click_on_errors(labelled(case, labels), found).clicks == (Click(0, (20, 20, 4), True),)


def test_clicks_are_answered_where_they_are_made() -> None:
    """A mask that fills its box, of an object with a hole: five pixels of it at a time are taken away."""
    labels = np.zeros((256, 256))
    labels[40:101, 40:101] = 1
    labels[60:69, 60:69] = 0
    case = labelled(picture([[40, 40, 100, 100]], ()), labels)
    wrong = []
    for _ in range(4):
        masks = segment_image(case, ClickBackend())
        wrong.append(int(((masks > 0) != (labels > 0)).sum()))
        case = click_on_errors(case, masks)
    assert wrong[:2] == [81, 81 - 25]
    assert wrong[1] > wrong[2] > wrong[3]


def test_protocols_with_and_without_clicks_have_names_of_their_own() -> None:
    """Also where each number of clicks has as many records as none."""
    protocols = [{"zoom": True}, {"zoom": True, "clicks": 1}, {"zoom": True, "clicks": 2}]
    records: Any = [SimpleNamespace(protocol=one, protocol_id=protocol_id(one)) for one in protocols]
    labels, shared = label_protocols(records)
    assert [labels[record.protocol_id] for record in records] == ["", "clicks 1", "clicks 2"]
    assert shared.in_full() == "clicks 0 where not said, zoom True"
    labels, shared = label_protocols(records[:1])
    assert (labels, shared.in_full()) == ({protocol_id(protocols[0]): "", "": ""}, "zoom True")


def test_walks_with_and_without_mask_prompts_have_names_of_their_own() -> None:
    """Records tell of mask prompts where there were any; of images never."""
    with_masks = {"name": "batched", "zoom": True, "mask_prompts": True}
    protocols = [{"zoom": True}, {"name": "batched", "zoom": True}, with_masks]
    records: Any = [SimpleNamespace(protocol=one, protocol_id=protocol_id(one)) for one in protocols]
    labels, _ = label_protocols(records)
    assert [labels[record.protocol_id] for record in records] == ["", "batched", "batched, mask_prompts"]
    labels, shared = label_protocols([records[0], records[2]])
    assert [labels[record.protocol_id] for record in (records[0], records[2])] == ["", "batched"]
    assert shared.in_full() == "zoom True, mask_prompts True"
    labels, _ = label_protocols([records[0], records[1], records[2], records[2]])
    assert labels[records[1].protocol_id] == "batched, no mask_prompts"


def test_walks_from_the_middle_are_told_from_those_that_look_for_a_start() -> None:
    """Records of before have no `starts`: they began in the middle."""
    protocols = [{"name": "batched"}, {"name": "batched", "starts": 3}]
    records: Any = [SimpleNamespace(protocol=one, protocol_id=protocol_id(one)) for one in protocols]
    labels, shared = label_protocols([records[0], *records])
    assert [labels[record.protocol_id] for record in records] == ["batched", "batched, starts 3"]
    assert shared.in_full() == "starts 1 where not said"


def test_priors_margins_and_best_dice_are_told_from_none() -> None:
    """Records of before have none of them; volumes have a prior alone."""
    images = {"box_prior": 0.5, "box_margin_px": 2, "best_dice": True}
    protocols = [{"name": "batched"}, {"name": "batched", "box_prior": 0.5}, {}, images]
    protocols = [{"zoom": True} | one for one in protocols]
    records: Any = [SimpleNamespace(protocol=one, protocol_id=protocol_id(one)) for one in protocols]
    labels, shared = label_protocols([*records, records[1], records[3]])
    assert [labels[record.protocol_id] for record in records] == [
        "batched, box_prior 0.0",
        "batched",
        "box_prior 0.0, box_margin_px 0, no best_dice",
        "",
    ]
    assert "box_prior 0.5 where not said" in shared.in_full()
    assert "box_margin_px 2 where not said" in shared.in_full()
    assert "best_dice True where not said" in shared.in_full()


def test_volumes_in_tiles_are_told_from_whole_ones() -> None:
    """Records of before have no `zoom` of volumes, which is nothing to tell of where none had."""
    protocols = [{"zoom": True}, {"name": "batched"}, {"name": "batched", "zoom": True}]
    records: Any = [SimpleNamespace(protocol=one, protocol_id=protocol_id(one)) for one in protocols]
    labels, shared = label_protocols(records)
    assert [labels[record.protocol_id] for record in records] == ["", "batched, no zoom", "batched"]
    assert shared.in_full() == "zoom True where not said"
    labels, shared = label_protocols(records[:2])
    assert [labels[record.protocol_id] for record in records[:2]] == ["", "batched"]
    assert shared.in_full() == "zoom True"


def test_bench_tells_of_mask_prompts_where_weights_know_them(tmp_path: Path) -> None:
    out = tmp_path / "b.jsonl"
    words = ["bench", "--encoder", "light_repvit_m0_9", "--backend", "torch", "--cases", "phantom:mr3d"]
    words += [
        "--rounds",
        "0",
        "--passes",
        "1",
        "--no-cold",
        "--max-objects",
        "1",
        "--max-slices",
        "2",
        "--out",
        str(out),
    ]
    for more in ((), ("--no-mask-prompts",)):
        result = CliRunner().invoke(main, [*words, *more])
        assert result.exit_code == 0, result.output
    records = [one for one in written(out) if one["kind"] == "accuracy" and one["protocol"]]
    assert [one["protocol"].get("mask_prompts") for one in records] == [True, None]


def written(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("name", ["phantom:ct2d", "phantom:mr3d"])
def test_bench_scores_every_click_and_resumes(tmp_path: Path, name: str) -> None:
    out = tmp_path / "b.jsonl"
    words = ["bench", "--encoder", "timm:mobilenetv4_conv_small@64", "--backend", "torch", "--cases", name]
    words += ["--rounds", "0", "--passes", "1", "--no-cold", "--max-objects", "1", "--max-slices", "2"]
    words += ["--out", str(out)]
    first = CliRunner().invoke(main, [*words, "--clicks", "1"])
    assert first.exit_code == 0, first.output
    result = CliRunner().invoke(main, [*words, "--clicks", "2"])
    assert result.exit_code == 0, result.output
    records = [one for one in written(out) if one["kind"] == "accuracy" and one["protocol"]]
    assert [one["protocol"].get("clicks") for one in records] == [None, 1, 2]
    assert len({one["key"] for one in records}) == 3
    assert CliRunner().invoke(main, [*words, "--clicks", "2"]).exit_code == 0
    assert len(written(out)) == len({one["key"] for one in written(out)})
