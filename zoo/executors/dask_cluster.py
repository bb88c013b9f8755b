"""A cluster that Dask distributed runs; an extra: `pip install rep-medsam[dask]`.

Workers need this package, and the folders of input and output under the same paths. `dask worker ADDRESS --nthreads 1`
works on one item at a time, which is best: an item uses the threads of its runtime.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from zoo.errors import InputError
from zoo.executors import Item, Result, WorkerLostError, attempt

#: How long a scheduler may take to answer.
CONNECT_S = 20


@dataclass(frozen=True)
class DaskExecutor:
    """`Executor` of the workers of one scheduler. An item whose worker is lost is given to another one.

    An item that takes down its worker again and again (`distributed.scheduler.allowed-failures`, 3), even when it is
    alone, is given up.

    Attributes:
        scheduler: its address, such as `tcp://10.0.0.1:8786`.
    """

    scheduler: str

    def stays_here(self, items: int) -> bool:
        """Never."""
        return False

    def map(self, work: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[tuple[Item, Result | Exception]]:
        """As `Executor.map`.

        Raises:
            InputError: no scheduler answers.
        """
        distributed = _distributed()
        with self._client(distributed) as client:
            tasks = {client.submit(attempt, work, item, pure=False): item for item in items}
            blamed: list[Item] = []
            for task in distributed.as_completed(tasks):
                try:
                    yield tasks[task], task.result()
                except distributed.KilledWorker:
                    blamed.append(tasks[task])
            # Dask blames all that waits on a lost worker: alone, an item shows whether it was the one.
            for item in blamed:
                try:
                    yield item, client.submit(attempt, work, item, pure=False).result()
                except distributed.KilledWorker as error:
                    yield item, WorkerLostError(f"its workers were lost, again and again ({error})")

    def _client(self, distributed: Any) -> Any:
        try:
            return distributed.Client(self.scheduler, timeout=CONNECT_S)
        except (OSError, ValueError) as error:
            raise InputError(
                "--scheduler", f"no answer of {self.scheduler} ({error})", "a running scheduler"
            ) from error


def _distributed() -> Any:
    try:
        import distributed
    except ImportError as error:
        raise InputError("--executor", "dask not installed", "pip install 'rep-medsam[dask]'") from error
    return distributed
