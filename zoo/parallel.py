"""The same work on many items, in processes, one item's failure leaving the others alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import TypeVar

from zoo.errors import InputError

Item = TypeVar("Item")
Result = TypeVar("Result")

#: What is wrong with an item rather than with the program.
FAILURES = (InputError, OSError, MemoryError, BrokenProcessPool)


def map_items(
    work: Callable[[Item], Result], items: Sequence[Item], workers: int
) -> Iterator[tuple[Item, Result | Exception]]:
    """Each item with its result, or with what was wrong with it, as they are done.

    Args:
        work: can be pickled where `workers` is more than 1.
        items: to work on.
        workers: processes; 1 works in this one.
    """
    if workers == 1 or len(items) < 2:
        yield from ((item, _attempt(work, item)) for item in items)
        return
    pool = ProcessPoolExecutor(min(workers, len(items)), mp_context=get_context("spawn"))
    try:
        tasks = {pool.submit(_attempt, work, item): item for item in items}
        for task in as_completed(tasks):
            try:
                yield tasks[task], task.result()
            except BrokenProcessPool as error:
                yield tasks[task], error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _attempt(work: Callable[[Item], Result], item: Item) -> Result | Exception:
    try:
        return work(item)
    except FAILURES as error:
        return error
