"""Brings what threads have finished to the coroutines that wait for it.

To wake a loop costs a system call and a turn of the interpreter: what is finished at the same time is
carried over together. Decides nothing. A shell module.
"""

import asyncio
import threading
from collections.abc import Callable
from typing import Generic, TypeAlias, TypeVar

T = TypeVar("T")
Tell: TypeAlias = Callable[[], None]


class Relay(Generic[T]):
    """Carries words from threads into the loop that waits for them, and only into one loop."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._told: list[asyncio.Future[None]] = []

    async def carry(self, begin: Callable[[Tell], T]) -> T:
        """Begin something that any thread finishes by calling what it is given; return it then."""
        finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        begun = begin(lambda: self._tell(finished))
        await finished
        return begun

    def _tell(self, finished: asyncio.Future[None]) -> None:
        with self._lock:
            self._told.append(finished)
            first = len(self._told) == 1
        if first:
            finished.get_loop().call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        with self._lock:
            told, self._told = self._told, []
        for finished in told:
            # Who hung up waits no more.
            if not finished.done():
                finished.set_result(None)
