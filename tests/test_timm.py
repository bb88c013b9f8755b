"""Backbones of timm: the contract, folding, published weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from conftest import ENCODER
from safetensors.torch import save_file
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from bench.candidate import Recipe
from compress.build import build_candidate
from compress.reparam import reparameterise
from zoo.errors import InputError
from zoo.registry import create_encoder, create_sam, encoder_spec

#: One of each kind: plain BatchNorm, activation within it, branches that merge, none at all, a transformer, channels
#: that come last.
BACKBONES = [
    "resnet18",
    "mobilenetv4_conv_small",
    "repvit_m0_9",
    "convnext_atto",
    "vit_tiny_patch16_224",
    "mambaout_femto",
]


def randomise_statistics(model: nn.Module) -> None:
    for norm in (m for m in model.modules() if isinstance(m, _BatchNorm)):
        for value in (norm.running_var, norm.weight, norm.running_mean, norm.bias):
            assert value is not None
            nn.init.uniform_(value, 0.5, 1.5)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_contract_and_folding(backbone: str) -> None:
    torch.manual_seed(0)
    encoder = create_encoder(f"timm:{backbone}@128")
    randomise_statistics(encoder)
    image = torch.rand(2, 3, 128, 128)
    folded = reparameterise(encoder)
    assert not [m for m in folded.modules() if isinstance(m, _BatchNorm)]
    with torch.inference_mode():
        embedding, after = encoder(image), folded(image)
    assert embedding.shape == (2, 256, 64, 64)
    assert embedding.isfinite().all()
    assert (after - embedding).norm() <= 1e-4 * embedding.norm()
    fewer = sum(p.numel() for p in folded.parameters()) < sum(p.numel() for p in encoder.parameters())
    assert fewer, "the neck at least has something to fold"


def test_spec() -> None:
    spec = encoder_spec("timm:resnet18@384")
    assert (spec.name, spec.image_size, spec.normalisation) == ("timm:resnet18@384", 384, "imagenet")


def test_seeds_name_the_weights() -> None:
    one, again, other = (create_sam("timm:resnet18@64", f"random:{seed}") for seed in (0, 0, 1))
    assert one.weights == again.weights
    assert one.weights != other.weights


def test_a_tag_asks_for_published_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []
    create = timm.create_model

    def without_network(name: str, pretrained: bool, **options: Any) -> nn.Module:
        asked.append(pretrained)
        return create(name, pretrained=False, **options)

    monkeypatch.setattr(timm, "create_model", without_network)
    sam = create_sam("timm:resnet18.a1_in1k@64")
    assert asked[-1] is True
    assert sam.weights is not None
    assert sam.weights.name == "random:0 around a1_in1k"
    assert not sam.weights.trained, "the decoder around it is random"
    create_encoder("timm:resnet18@64")
    assert asked[-1] is False


def test_a_checkpoint_is_loaded_without_the_published_weights_of_its_tag(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine without a network has no others than those in the file."""

    def fetch(*arguments: object, **options: object) -> None:
        raise OSError("no route")

    monkeypatch.setattr("timm.models._builder.load_pretrained", fetch)
    mine = create_sam(ENCODER, "random:1")
    save_file(mine.state_dict(), tmp_path / "mine.safetensors")
    tagged = "timm:mobilenetv4_conv_small.e2400_r224_in1k@64"
    loaded = create_sam(tagged, tmp_path / "mine.safetensors")
    torch.testing.assert_close(dict(loaded.state_dict()), dict(mine.state_dict()), rtol=0, atol=0)
    assert loaded.image_encoder.pretrained is None
    mine.image_encoder = reparameterise(mine.image_encoder, 64)
    save_file(mine.state_dict(), tmp_path / "folded.safetensors")
    folded = build_candidate(Recipe(tagged, str(tmp_path / "folded.safetensors"))).sam
    torch.testing.assert_close(dict(folded.state_dict()), dict(mine.state_dict()), rtol=0, atol=0)
    with pytest.raises(InputError, match="no published weights"):
        create_sam(tagged, "random:1")


def test_weights_that_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*args: object, **options: object) -> None:
        raise OSError("no route")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(InputError, match=r"no published weights \(no route\); expected a network"):
        create_encoder("timm:resnet18.a1_in1k")


@pytest.mark.parametrize(("name", "message"), [("timm:resnet81", "did you mean resnet18"),
                                               ("timm:resnet18.nope", "unknown name 'resnet18.nope'"),
                                               ("timm:mlp_mixer", "unknown"),
                                               ("tim:resnet18", "unknown name 'tim:resnet18'")])  # fmt: skip
def test_unknown_names(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        encoder_spec(name)


def test_a_model_without_feature_maps(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **options: object) -> None:
        raise RuntimeError("features_only not implemented")

    monkeypatch.setattr(timm, "create_model", refuse)
    with pytest.raises(InputError, match="no feature maps"):
        create_encoder("timm:resnet18")
