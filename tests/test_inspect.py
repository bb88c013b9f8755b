"""`weights inspect`: checkpoints of encoders that no list names, and beside plugins that cannot be folded."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from checkpoints import filled
from click.testing import CliRunner
from conftest import ENCODER
from safetensors.torch import save_file
from test_plugins import _as_before, plugin  # noqa: F401, a fixture

from cli import main
from compress.reparam import reparameterise
from compress.training.state import Progress, save_best, save_state
from zoo.plugins import VARIABLE
from zoo.registry import create_sam
from zoo.weights.detect import Fit, fitting


def inspected(path: Path) -> tuple[int, str]:
    result = CliRunner().invoke(main, ["weights", "inspect", str(path)], catch_exceptions=False)
    return result.exit_code, result.output


@pytest.mark.parametrize("variant", ["train", "reparam"])
def test_what_training_wrote_for_a_backbone_of_timm_is_recognised(tmp_path: Path, variant: str) -> None:
    sam = create_sam(ENCODER, "random:0")
    if variant == "reparam":
        sam.image_encoder = reparameterise(sam.image_encoder)
    save_best(tmp_path / "best.safetensors", sam, sam.spec, variant, {})
    optimizer = torch.optim.SGD(sam.parameters())
    save_state(tmp_path / "last.pth", sam, sam, optimizer, Progress(), {"encoder": ENCODER})
    graph = ", reparam graph" if variant == "reparam" else ""
    for name in ("best.safetensors", "last.pth"):
        code, told = inspected(tmp_path / name)
        assert code == 0
        assert f"fits      {ENCODER}: timm mobilenetv4_conv_small with a summing neck, whole model{graph}" in told


def test_published_weights_are_not_fetched_to_tell_a_layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(*arguments: object, **options: object) -> None:
        raise AssertionError("weights were asked for")

    monkeypatch.setattr("timm.models._builder.load_pretrained", fetch)
    name = "timm:mobilenetv4_conv_small.e2400_r224_in1k@64"
    save_file(create_sam(ENCODER, "random:0").state_dict(), tmp_path / "w.safetensors", {"encoder": name})
    assert f"fits      {name}: " in inspected(tmp_path / "w.safetensors")[1]


@pytest.mark.parametrize("named", ["nobody_knows_it", "repvit"])
def test_an_encoder_that_is_named_wrongly_is_looked_for(tmp_path: Path, named: str) -> None:
    save_file(filled("lite_medsam"), tmp_path / "w.safetensors", {"encoder": named})
    code, told = inspected(tmp_path / "w.safetensors")
    assert code == 0
    assert "fits      tinyvit: " in told


def test_a_plugin_that_cannot_be_folded_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = plugin(tmp_path)
    path.write_text(path.read_text().replace("nn.GELU()", "nn.BatchNorm2d(32)", 1))
    monkeypatch.setenv(VARIABLE, str(path))
    sam = create_sam("repvit", "random:0")
    sam.image_encoder = reparameterise(sam.image_encoder)
    fits = fitting(sam.state_dict(), {"reparam": reparameterise})
    assert Fit("repvit", "reparam", "model") in fits
    own = create_sam("plain", "random:0")
    save_file(own.state_dict(), tmp_path / "own.safetensors")
    assert "fits      plain: " in inspected(tmp_path / "own.safetensors")[1]
