"""The same work on many items, in processes, one item's failure leaving the others alone."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import TypeVar

from zoo.errors import InputError

Item = TypeVar("Item")
Result = TypeVar("Result")

#: What is wrong with an item rather than with the program.
FAILURES = (InputError, OSError, MemoryError)


class ProcessDiedError(RuntimeError):
    """The process that worked on an item was ended by the system: its message says so."""

    def __init__(self) -> None:
        super().__init__("the process that read it died, of a crash in a library or for want of memory")


def map_items(
    work: Callable[[Item], Result], items: Sequence[Item], workers: int
) -> Iterator[tuple[Item, Result | Exception]]:
    """Each item with its result, or with what was wrong with it, as they are done.

    An item whose process dies takes the other processes along: those that were not done are worked on once more, each
    in a process of its own, so that only the one at fault gets a `ProcessDiedError`.

    Args:
        work: can be pickled where `workers` is more than 1.
        items: to work on.
        workers: processes; 1 works in this one.
    """
    if workers == 1 or len(items) < 2:
        yield from ((item, _attempt(work, item)) for item in items)
        return
    suspects = []
    with _Pool(min(workers, len(items))) as pool:
        tasks = {pool.submit(_attempt, work, item): item for item in items}
        for task in as_completed(tasks):
            try:
                yield tasks[task], task.result()
            except BrokenProcessPool:
                suspects.append(tasks[task])
    for item in suspects:
        yield item, _attempt_alone(work, item)


def _attempt(work: Callable[[Item], Result], item: Item) -> Result | Exception:
    try:
        return work(item)
    except FAILURES as error:
        return error


def _attempt_alone(work: Callable[[Item], Result], item: Item) -> Result | Exception:
    with _Pool(1) as pool:
        try:
            return pool.submit(_attempt, work, item).result()
        except BrokenProcessPool:
            return ProcessDiedError()


class _Pool(ProcessPoolExecutor):
    """Processes that leave Ctrl-C to this one; on leaving, what was not begun is dropped and the rest finished."""

    def __init__(self, workers: int) -> None:
        super().__init__(workers, mp_context=get_context("spawn"), initializer=_leave_interrupts_to_the_parent)

    def __exit__(self, *_: object) -> None:
        self.shutdown(wait=True, cancel_futures=True)


def _leave_interrupts_to_the_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
