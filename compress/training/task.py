"""What a run trains."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping

from torch import Tensor, nn

from zoo.sam.model import Sam


class Task(nn.Module, ABC):
    """A module from a batch to `loss` and further numbers to be logged; parameters without gradient stay.

    Attributes:
        sam: the model in it that is kept.
    """

    sam: Sam

    @abstractmethod
    def answers(self, batch: Mapping[str, Tensor]) -> Iterator[Tensor]:
        """Logits (B * K, M, M) of a batch, for each way in which its objects are prompted."""
