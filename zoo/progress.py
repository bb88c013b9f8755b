"""What long work tells a person of how far it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class Progress(Protocol):
    """What shows a person how far a run is."""

    def start(self, description: str, total: int) -> Callable[[], None]:
        """Begins a task of `total` steps; the result is called after each."""
        ...

    def message(self, text: str) -> None:
        """Shows a line that stays."""
        ...
