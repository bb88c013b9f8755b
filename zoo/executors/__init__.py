"""Where the same work on many items is done: one file for each way. An item that fails leaves the others alone."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class WorkerLostError(RuntimeError):
    """The process that worked on an item ended: killed, or crashed."""


class AbortError(Exception):
    """None of the items can be worked on, whatever they are."""


class Executor(Protocol):
    """Does the same work on many items."""

    def stays_here(self, items: int) -> bool:
        """Whether so many items are worked on in this process, one after the other."""
        ...

    def map(self, work: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[tuple[Item, Result | Exception]]:
        """Each item once, with its result or with the error that the work on it raised, as they are done.

        Leaving the iteration early, as Ctrl-C does, stops the work on the others.

        Args:
            work: can be pickled where it is done in other processes. An `AbortError` of it is raised here.
            items: to work on.
        """
        ...


def attempt(work: Callable[[Item], Result], item: Item) -> Result | Exception:
    """The result, or what was wrong with the item: an error that other processes can be sent.

    Raises:
        AbortError: nothing can be worked on.
    """
    try:
        return work(item)
    except AbortError:
        raise
    except Exception as error:
        return _sendable(error)


def _sendable(error: Exception) -> Exception:
    """An error itself, or its name and message where it comes apart on the way."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
