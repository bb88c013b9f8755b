"""Muon: against singular value decomposition, against AdamW, and which weights are its."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from compress.training.muon import ADAMW_RMS, Muon, matrices_of, orthogonalised
from compress.training.optim import create_optimizer


@pytest.mark.parametrize("shape", [(24, 24), (16, 64), (64, 16)])
@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_orthogonalised_is_about_the_polar_factor(shape: tuple[int, int], scale: float) -> None:
    """Of matrices whose singular values are known: a hundredfold from the smallest to the largest."""
    torch.manual_seed(0)
    left, _, right = torch.linalg.svd(torch.randn(3, *shape), full_matrices=False)
    values = torch.logspace(-2, 0, min(shape)) * scale
    found = orthogonalised(left * values @ right)
    assert found.shape == (3, *shape)
    assert (torch.linalg.svdvals(found) - 1).abs().max() < 0.35
    assert torch.cosine_similarity(found.flatten(1), (left @ right).flatten(1)).min() > 0.97


def test_a_step_by_hand() -> None:
    """A gradient of two directions, one a hundred times the other: the step takes both alike."""
    layer = nn.Linear(2, 2, bias=False)
    before = layer.weight.detach().clone()
    layer.weight.grad = torch.diag(torch.tensor([100.0, -1.0]))
    Muon([{"params": [layer.weight], "weight_decay": 0.5, "orthogonal": True}], lr=0.1).step()
    direction = (before * (1 - 0.1 * 0.5) - layer.weight.detach()) / (0.1 * ADAMW_RMS * 2**0.5)
    assert direction[0, 1].abs().item() == pytest.approx(0, abs=1e-6)
    assert direction[0, 0].item() == pytest.approx(1, abs=0.35)
    assert direction[1, 1].item() == pytest.approx(-1, abs=0.35)


def test_the_mean_of_gradients_decides() -> None:
    """After many steps one way, a single gradient the other way does not turn the step."""
    layer = nn.Linear(3, 3, bias=False)
    optimizer = Muon([{"params": [layer.weight], "weight_decay": 0.0, "orthogonal": True}], lr=0.1)
    for _ in range(60):
        layer.weight.grad = torch.eye(3)
        optimizer.step()
    before = layer.weight.detach().clone()
    layer.weight.grad = -torch.eye(3)
    optimizer.step()
    assert (layer.weight.detach() - before).diagonal().max() < 0


def test_a_closure_is_asked_before_the_step() -> None:
    """Its gradients are those that matrices and vectors alike are moved by."""
    layers = [nn.Linear(3, 3) for _ in range(2)]
    layers[1].load_state_dict(layers[0].state_dict())
    optimizers = [create_optimizer(layer, "muon", 0.1, 0.0) for layer in layers]
    images = torch.eye(3)

    def loss_of(layer: nn.Linear) -> float:
        loss = layer(images).square().sum()
        loss.backward()
        return float(loss.detach())

    asked = optimizers[0].step(lambda: loss_of(layers[0]))
    told = loss_of(layers[1])
    optimizers[1].step()
    assert asked == told
    for one, other in zip(layers[0].parameters(), layers[1].parameters(), strict=True):
        assert torch.equal(one, other)


class Parts(nn.Module):
    """One weight of each sort."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 6)
        self.conv = nn.Conv2d(4, 8, 3)
        self.depthwise = nn.Conv2d(8, 8, 3, groups=8)
        self.transposed = nn.ConvTranspose2d(8, 4, 2, 2)
        self.token = nn.Embedding(1, 8)
        self.norm = nn.BatchNorm2d(8)
        self.frozen = nn.Linear(4, 4).requires_grad_(False)


def test_which_weights_are_matrices() -> None:
    module = Parts()
    assert {id(weight) for weight in matrices_of(module)} == {id(module.linear.weight), id(module.conv.weight)}
    optimizer = create_optimizer(module, "muon", 1e-3, 0.01)
    held = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(held) == sorted(id(p) for p in module.parameters() if p.requires_grad)


def test_the_other_weights_are_adamws() -> None:
    torch.manual_seed(0)
    ours, theirs = Parts(), Parts()
    theirs.load_state_dict(ours.state_dict())
    optimizers = [create_optimizer(module, name, 1e-2, 0.1) for module, name in ((ours, "muon"), (theirs, "adamw"))]
    for seed in range(3):
        for module, optimizer in zip((ours, theirs), optimizers, strict=True):
            torch.manual_seed(seed)
            for parameter in module.parameters():
                parameter.grad = torch.randn_like(parameter)
            optimizer.step()
    matrices = {"linear.weight", "conv.weight"}
    for (name, one), (_, other) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        assert torch.equal(one, other) == (name not in matrices), name
