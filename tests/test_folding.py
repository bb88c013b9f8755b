"""Folding what no block folds itself: exact, or left alone and said."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from bench.candidate import Recipe
from compress import build
from compress.build import build_as_can_be, build_candidate
from compress.card import read_card, write_card
from compress.deploy import open_backend, recipe_of
from compress.export_commands import _candidate
from compress.reparam import UnfoldableError, reparameterise
from zoo import registry
from zoo.folding import conv_like
from zoo.registry import EMBEDDING_CHANNELS, EncoderSpec, create_sam, register_encoder
from zoo.weights.detect import _layout

SIZE = 64
SPEC = EncoderSpec(
    name="unfoldable",
    image_size=SIZE,
    prompt_frame=SIZE,
    fit="pad",
    resize="area",
    normalisation="min_max",
    title="A convolution behind its BatchNorm",
    paper="none",
    licence="none published",
    weights_from="none published",
)


class Pair(nn.Module):
    """A convolution and a BatchNorm, used in the way that a subclass says."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)


class Plain(Pair):
    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))


class ByKeyword(Pair):
    def forward(self, x: Tensor) -> Tensor:
        return self.norm(nn.functional.conv2d(x, weight=self.conv.weight, bias=self.conv.bias))


class AsksForShapes(Pair):
    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return self.norm(y)[:, : y.shape[1] * self.conv.weight.shape[2]]


class UnderTwoNames(Pair):
    def __init__(self) -> None:
        super().__init__()
        self.both = nn.Sequential(self.conv, self.norm)

    def forward(self, x: Tensor) -> Tensor:
        return self.both(x)


class WithoutScale(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3, affine=False)


class SharedResult(Pair):
    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return self.norm(y) + y


class SharedConvolution(Pair):
    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x)) + self.conv(x + 1)


class SharedBatchNorm(Pair):
    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x)) + self.norm(x)


class SharedWeight(Pair):
    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x)) * self.conv.weight.mean()


class WithoutStatistics(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3, track_running_stats=False)


class Unfoldable(nn.Module):
    """BatchNorm before the convolution, as in DenseNet."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.conv = nn.BatchNorm2d(3), nn.Conv2d(3, EMBEDDING_CHANNELS, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.norm(x))


def filled(kind: type[nn.Module]) -> nn.Module:
    """With statistics and weights of their own."""
    torch.manual_seed(0)
    model = kind().eval()
    for tensor in (*model.parameters(), *(b for b in model.buffers() if b.is_floating_point())):
        nn.init.uniform_(tensor, 0.5, 1.5)
    return model


@pytest.mark.parametrize("kind", [Plain, ByKeyword, AsksForShapes, UnderTwoNames, WithoutScale])
def test_a_batchnorm_alone_behind_a_convolution_is_folded(kind: type[nn.Module]) -> None:
    model, image = filled(kind), torch.rand(2, 3, 8, 8)
    folded = reparameterise(model, 8)
    assert not [m for m in folded.modules() if isinstance(m, _BatchNorm)]
    torch.testing.assert_close(folded(image), model(image), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", [SharedResult, SharedConvolution, SharedBatchNorm, SharedWeight, WithoutStatistics])
def test_what_is_used_twice_is_left(kind: type[nn.Module]) -> None:
    with pytest.raises(UnfoldableError, match=r"module norm: found 1 BatchNorms that no rule folds.*--variant train"):
        reparameterise(filled(kind), 8)


def test_a_folded_convolution_keeps_its_geometry() -> None:
    like = nn.Conv2d(4, 6, (3, 5), stride=(2, 1), padding=(2, 4), dilation=2, groups=2, padding_mode="reflect")
    folded = conv_like(like, like.weight, like.bias)  # type: ignore[arg-type]
    image = torch.rand(1, 4, 16, 16)
    assert torch.equal(folded(image), like(image))


def test_blocks_of_another_file_fold_themselves() -> None:
    class Doubled(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + x

        def folded(self) -> nn.Module:
            return nn.Identity()

    assert isinstance(reparameterise(nn.Sequential(Doubled()).eval())[0], nn.Identity)  # type: ignore[index]


@pytest.fixture
def unfoldable(monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of an encoder that cannot be folded."""
    registry.list_encoders()
    monkeypatch.setattr(registry, "_REGISTRY", dict(registry._REGISTRY))
    register_encoder(SPEC)(lambda spec: Unfoldable())
    return SPEC.name


def test_an_encoder_that_cannot_be_folded_runs_as_trained(unfoldable: str) -> None:
    told: list[str] = []
    recipe = Recipe(unfoldable)
    with pytest.raises(UnfoldableError, match="module norm"):
        build_candidate(recipe)
    made = build_as_can_be(recipe, told.append)
    assert made.recipe.variant == "train"
    assert told == [
        "unfoldable is used as trained, without folding: 1 BatchNorms that no rule folds, the first module norm"
    ]
    assert open_backend(recipe).encode(torch.rand(1, 3, SIZE, SIZE).numpy()).shape == (1, EMBEDDING_CHANNELS, 64, 64)


def test_export_and_quantize_take_it_as_trained(unfoldable: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert _candidate(unfoldable, None, 2, "reparam").recipe.variant == "train"
    assert "is used as trained, without folding" in capsys.readouterr().err


def test_graphs_of_it_are_a_candidate(unfoldable: str, graphs: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(graphs, tmp_path / "trained")
    made = create_sam(unfoldable)
    assert made.weights is not None
    card = replace(read_card(folder), encoder=unfoldable, variant="train", weights_sha256=made.weights.sha256)
    write_card(card, folder)
    assert isinstance(build_candidate(recipe_of(folder)).sam.image_encoder, Unfoldable)


def test_weights_are_told_apart_beside_an_encoder_that_cannot_be_folded(unfoldable: str) -> None:
    assert _layout(unfoldable, build.reparameterise) == {}
