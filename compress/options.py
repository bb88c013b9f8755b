"""Groups of command-line options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def options(*group: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Several click options as one decorator, in the order they are listed in the help."""

    def decorate(command: Any) -> Any:
        for option in reversed(group):
            command = option(command)
        return command

    return decorate
