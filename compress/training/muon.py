"""Muon: the momentum of each weight matrix is made orthogonal before the step; all other weights are AdamW's.

Every direction that a matrix can turn in then moves alike, however rare it is in the gradients. Sources: Jordan et al.
2024, kellerjordan.github.io/posts/muon; steps as long as AdamW's, so that its rates serve: Liu et al.,
arXiv:2502.16982.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

#: An odd polynomial that brings singular values from (0, 1] near one when it is applied a few times.
NEWTON_SCHULZ, ITERATIONS = (3.4445, -4.7750, 2.0315), 5
MOMENTUM = 0.95
#: Root mean square of AdamW's steps, in learning rates.
ADAMW_RMS = 0.2


class Muon(torch.optim.AdamW):
    """Muon over the groups that say `orthogonal`, AdamW over the others.

    Args:
        groups: as torch's optimisers take them; those with `orthogonal: True` hold weights of two dimensions and more,
            whose first is that of the outputs.
        lr: learning rate.
    """

    def __init__(self, groups: list[dict[str, Any]], lr: float) -> None:
        super().__init__([{"orthogonal": False, **group} for group in groups], lr=lr, fused=True)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """One update, with the gradients that `closure` leaves, if any; those of the orthogonal groups are used up."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            if group["orthogonal"]:
                self._step_matrices(group)
        super().step()
        return loss

    def _step_matrices(self, group: dict[str, Any]) -> None:
        weights = [weight for weight in group["params"] if weight.grad is not None]
        if not weights:
            return
        alike: dict[torch.Size, list[tuple[Tensor, Tensor]]] = defaultdict(list)
        for weight, wanted in zip(weights, self._with_momentum(weights), strict=True):
            alike[wanted.flatten(1).shape].append((weight, wanted.flatten(1)))
            weight.grad = None
        torch._foreach_mul_(weights, 1 - group["lr"] * group["weight_decay"])
        for shape, pairs in alike.items():
            directions = orthogonalised(torch.stack([wanted for _, wanted in pairs]))
            moved = [weight for weight, _ in pairs]
            steps = [direction.view_as(weight) for weight, direction in zip(moved, directions, strict=True)]
            torch._foreach_add_(moved, steps, alpha=-group["lr"] * ADAMW_RMS * max(shape) ** 0.5)

    def _with_momentum(self, weights: list[Tensor]) -> tuple[Tensor, ...]:
        """Nesterov's look ahead. The count of steps is what AdamW's state holds, too."""
        gradients = [weight.grad for weight in weights if weight.grad is not None]
        for weight in weights:
            state = self.state[weight]
            if not state:
                state["step"], state["momentum"] = torch.zeros(()), torch.zeros_like(weight)
            state["step"] += 1
        means = [self.state[weight]["momentum"] for weight in weights]
        torch._foreach_lerp_(means, gradients, 1 - MOMENTUM)
        return torch._foreach_lerp(gradients, means, MOMENTUM)


def orthogonalised(matrices: Tensor) -> Tensor:
    """Matrices (N, M, K) with their singular values brought near one, 0.7 to 1.2."""
    a, b, c = NEWTON_SCHULZ
    wide = matrices.shape[1] <= matrices.shape[2]
    x = matrices if wide else matrices.mT
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x if wide else x.mT


def matrices_of(module: nn.Module) -> list[Tensor]:
    """The weights of linear layers and of ungrouped convolutions, where they are trained."""
    linear = [child.weight for child in module.modules() if isinstance(child, nn.Linear)]
    kernels = [child.weight for child in module.modules() if isinstance(child, nn.Conv2d) and child.groups == 1]
    return [weight for weight in linear + kernels if weight.requires_grad]
