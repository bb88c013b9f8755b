"""Where the same work on many items is done: one file for each way. An item that fails leaves the others alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TypeVar

from zoo.errors import InputError

Item = TypeVar("Item")
Result = TypeVar("Result")


class WorkerLostError(RuntimeError):
    """The process that worked on an item ended: killed, or crashed."""


#: What is wrong with an item rather than with the program; RuntimeError is how torch and OpenVINO say what they lack.
FAILURES = (InputError, OSError, MemoryError, RuntimeError)


class Executor(Protocol):
    """Does the same work on many items.

    Attributes:
        parallel: items that are worked on together; 1 works in this process, one after the other.
    """

    @property
    def parallel(self) -> int:
        """See the class."""
        ...

    def map(self, work: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[tuple[Item, Result | Exception]]:
        """Each item once, with its result or with what was wrong with it (`FAILURES`), as they are done.

        Leaving the iteration early, as Ctrl-C does, stops the work on the others.

        Args:
            work: can be pickled where it is done in other processes. What it raises beside `FAILURES` is raised here.
            items: to work on.
        """
        ...


def attempt(work: Callable[[Item], Result], item: Item) -> Result | Exception:
    """The result, or what was wrong with the item."""
    try:
        return work(item)
    except FAILURES as error:
        return error
