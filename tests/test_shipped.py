"""The weights that ship: whole, small, their encoder's default, and better than an ellipse in the box."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from cli import main
from compress.training.config import TrainConfig
from compress.training.finetune import Finetuning, training_geometry
from compress.training.losses import dice
from zoo.data.dataset import SyntheticImages
from zoo.data.phantom import load_phantom
from zoo.data.prompting import PromptedImages
from zoo.files import sha256_of
from zoo.registry import create_sam
from zoo.weights import DEFAULT_ENCODER, RANDOM, default_weights
from zoo.weights.cards import FOLDER_VARIABLE, WeightCard, catalog, catalog_folder

LOGS = Path(__file__).parents[1] / "reports" / "training"
SHIPPED = [card for card in catalog().values() if card.ships]
#: Seeds that no run of training begins with.
UNSEEN = 7_000_000_000


@pytest.mark.parametrize("card", SHIPPED, ids=lambda card: card.name)
def test_what_ships_is_what_its_card_says(card: WeightCard, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    assert card.path.parent == catalog_folder(), "found wherever downloads are kept"
    assert sha256_of(card.path) == card.sha256
    assert card.path.stat().st_size <= 25e6
    sam = create_sam(card.encoder, card.name)
    assert sam.weights is not None
    assert (sam.weights.sha256, sam.weights.trained) == (card.sha256, True)
    about = (catalog_folder().parent / card.page).read_text()
    assert card.file in about
    assert "Not a medical device" in about


def test_an_encoder_has_the_first_that_ships_by_default() -> None:
    assert default_weights(DEFAULT_ENCODER) == SHIPPED[0].name == "light_repvit_m0_9"
    sam = create_sam(DEFAULT_ENCODER)
    assert sam.weights is not None
    assert sam.weights.sha256 == SHIPPED[0].sha256


@pytest.mark.parametrize("card", SHIPPED, ids=lambda card: card.name)
def test_the_recipe_is_that_of_the_logs(card: WeightCard) -> None:
    """Each run's steps, as the training logged them, stand in the card, and the images that they add up to."""
    about = (catalog_folder().parent / card.page).read_text()
    rows = re.findall(r"^\| `(\w)` +\| +\d+ px +\| +(\d+) \| +(\d+) \|", about, re.MULTILINE)
    logs = {path.stem[-1]: path for path in sorted(LOGS.glob(f"{card.name}_?.jsonl"))}
    assert [run for run, *_ in rows] == list(logs)
    for run, _, steps in rows:
        assert sum(json.loads(line)["kind"] == "step" for line in logs[run].read_text().splitlines()) == int(steps)
        assert f"-o runs/{run}" in about
    assert f"{round(sum(int(batch) * int(steps) for _, batch, steps in rows), -3):,} images in all" in about


def test_the_encoders_at_equal_training_are_those_of_the_logs() -> None:
    """Both saw the same images in as many steps; the card has what they then scored on the same unseen ones."""
    about = (catalog_folder().parent / SHIPPED[0].page).read_text()
    steps = {}
    for encoder, logs in (("repvit", "repvit_{}"), ("light_repvit_m0_9", "light_repvit_m0_9_as_repvit_{}")):
        runs = [
            [json.loads(line) for line in (LOGS / f"{logs.format(run)}.jsonl").read_text().splitlines()] for run in "ab"
        ]
        scores = [[row["dsc"] for row in run if row["kind"] == "validation"][-1] for run in runs]
        cells = " +\\| +".join(f"{score:.3f}" for score in scores)
        assert re.search(rf"^\| `{encoder}` +\| +[\d.]+ \| +{cells} \|", about, re.MULTILINE)
        steps[encoder] = [sum(row["kind"] == "step" for row in run) for run in runs]
    assert steps["repvit"] == steps["light_repvit_m0_9"]


def test_all_that_ships_is_small() -> None:
    assert sum(card.path.stat().st_size for card in SHIPPED) <= 60e6


def test_an_encoder_without_has_random_weights() -> None:
    assert default_weights("light_repvit") == RANDOM
    sam = create_sam("light_repvit")
    assert sam.weights is not None
    assert not sam.weights.trained


@pytest.mark.parametrize("card", SHIPPED, ids=lambda card: card.name)
def test_unseen_synthetic_images_are_segmented_better_than_by_ellipses(card: WeightCard) -> None:
    sam = create_sam(card.encoder, card.name)
    prompting, side = training_geometry(sam, TrainConfig())
    images = PromptedImages(SyntheticImages(256, UNSEEN), prompting)
    task = Finetuning(sam, embedding_side=side).eval()
    ours, ellipses = [], []
    for index in range(8):
        sample = images[index]
        with torch.inference_mode():
            logits, _ = task.predict(sample["image"][None], sample["boxes"][None])
        ours += dice(logits, sample["masks"]).tolist()
        filled = torch.stack([ellipse_in(box, sample["masks"].shape[-1]) for box in sample["boxes"]])
        ellipses += dice(filled.float() - 0.5, sample["masks"]).tolist()
    assert np.mean(ours) > np.mean(ellipses) + 0.03


def ellipse_in(box: torch.Tensor, side: int) -> torch.Tensor:
    """The ellipse that touches a box's sides; box and mask in one frame."""
    centre, radius = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]).clamp(min=1) / 2
    grid = torch.arange(side) + 0.5
    x, y = (grid - centre[0]) / radius[0], (grid - centre[1]) / radius[1]
    return x[None].square() + y[:, None].square() <= 1


def test_segment_needs_no_more_than_a_picture_and_a_box(tmp_path: Path) -> None:
    case = load_phantom("rgb2d")
    Image.fromarray(case.image).save(tmp_path / "photo.png")
    box = ",".join(map(str, case.boxes[0]))
    out = tmp_path / "out"
    result = CliRunner().invoke(main, ["segment", "-i", str(tmp_path / "photo.png"), "--box", box, "-o", str(out)])
    assert result.exit_code == 0, result.output
    (mask,) = (np.asarray(Image.open(path)) for path in out.glob("*.png"))
    x0, y0, x1, y1 = case.boxes[0]
    inside = (mask[y0 : y1 + 1, x0 : x1 + 1] > 0).sum()
    assert 0 < inside >= 0.8 * (mask > 0).sum()


def test_segment_names_what_ships_for_no_other_encoder(tmp_path: Path) -> None:
    Image.fromarray(load_phantom("rgb2d").image).save(tmp_path / "photo.png")
    arguments = ["segment", "-i", str(tmp_path / "photo.png"), "--box", "1,1,9,9", "-o", str(tmp_path / "out")]
    result = CliRunner().invoke(main, [*arguments, "--encoder", "light_repvit"])
    assert result.exit_code == 2
    assert "none ship for light_repvit" in result.output
    assert DEFAULT_ENCODER != "light_repvit"
