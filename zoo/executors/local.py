"""This machine: in this process, or in worker processes."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context, resource_tracker
from multiprocessing.connection import Connection, wait
from typing import Any

from zoo.executors import AbortError, Item, Result, WorkerLostError, attempt

#: Time that a worker has to leave its item and clean up when it is stopped.
GRACE_S = 5.0
#: What a worker that ended leaves behind: `OSError` covers a pipe that broke while it was written to.
_GONE = (EOFError, OSError)


@dataclass(frozen=True)
class LocalExecutor:
    """`Executor` of so many processes. One that is killed loses the item it was working on, and is replaced.

    Attributes:
        parallel: processes; 1 works in this one.
    """

    parallel: int = 1

    def stays_here(self, items: int) -> bool:
        """As `Executor.stays_here`."""
        return min(self.parallel, items) < 2

    def map(self, work: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[tuple[Item, Result | Exception]]:
        """As `Executor.map`."""
        if self.stays_here(len(items)):
            yield from ((item, attempt(work, item)) for item in items)
            return
        waiting = list(reversed(items))
        busy: dict[_Worker, Item] = {}

        def give_next(worker: _Worker) -> None:
            busy[worker] = waiting.pop()
            worker.give(busy[worker])

        try:
            for _ in range(min(self.parallel, len(items))):
                give_next(_Worker(work))
            while busy:
                ready = wait([worker.connection for worker in busy])
                for worker in [worker for worker in busy if worker.connection in ready]:
                    item, result = busy.pop(worker), worker.result()
                    lost = isinstance(result, WorkerLostError)
                    if waiting:
                        give_next(_Worker(work) if lost else worker)
                    elif not lost:
                        worker.dismiss()
                    yield item, result
        finally:
            for worker in busy:
                worker.stop()


class _Worker:
    """A process that works on one item at a time."""

    def __init__(self, work: Callable[[Any], Any]) -> None:
        context = get_context("spawn")
        self.connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, work), daemon=True)
        with _interrupts_held():
            self._process.start()
        # Without this copy the pipe ends when the process does.
        theirs.close()

    def give(self, item: Any) -> None:
        """Sends an item; that the process is gone is told by `result`."""
        with contextlib.suppress(OSError):
            self.connection.send(item)

    def result(self) -> Any:
        """Waits for the result of the item, or for the end of the process.

        Raises:
            AbortError: nothing can be worked on.
        """
        try:
            result, abort = self.connection.recv()
        except _GONE:
            return WorkerLostError(f"its worker process was lost ({self._ending()})")
        if abort is not None:
            raise abort
        return result

    def dismiss(self) -> None:
        """Lets an idle process end."""
        self.connection.close()
        self._process.join()

    def stop(self) -> None:
        """Ends a process that works; what it was writing is removed."""
        self._process.terminate()
        self._process.join(GRACE_S)
        self._process.kill()
        self._process.join()
        self.connection.close()

    def _ending(self) -> str:
        self._process.join()
        code = self._process.exitcode or 0
        return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Ctrl-C waits for the end of the block; a process that starts in it, still importing, never hears of it."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    # Started by the first process otherwise, it would let Ctrl-C through again.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve(connection: Connection, work: Callable[[Any], Any]) -> None:
    """Works in a process of its own until the pipe ends. Ctrl-C is left to the parent, which stops its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with contextlib.suppress(*_GONE):
        while True:
            item = connection.recv()
            try:
                answer: tuple[Any, AbortError | None] = attempt(work, item), None
            except AbortError as error:
                answer = None, error
            connection.send(answer)
