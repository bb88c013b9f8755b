"""Progress of a sweep in a terminal; in a pipe, a line for each task, and more where it takes long."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

#: Where there is no bar, a long task says so often how far it is.
LINE_EVERY_S = 20.0


class TerminalProgress:
    """`zoo.progress.Progress` on standard error, as a context manager."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=self._console,
            transient=True,
        )
        self._task: TaskID | None = None
        self._started = time.monotonic()

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def start(self, description: str, total: int) -> Callable[[], None]:
        """Begins a task of `total` steps in place of the one before."""
        if self._task is not None:
            self._bar.remove_task(self._task)
        task = self._task = self._bar.add_task(description, total=total)
        if self._console.is_terminal:
            return lambda: self._bar.advance(task)
        self._print(description)
        done, told = 0, time.monotonic()

        def advance() -> None:
            nonlocal done, told
            done += 1
            if (now := time.monotonic()) - told >= LINE_EVERY_S and done < total:
                told = now
                self._print(f"{description}: {done} of {total}")

        return advance

    def _print(self, text: str) -> None:
        line = f"[{time.monotonic() - self._started:5.0f} s] {text}"
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def message(self, text: str) -> None:
        """Prints a line above the bar."""
        self._console.print(text, style="red", markup=False, highlight=False, soft_wrap=True)
