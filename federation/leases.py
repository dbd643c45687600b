"""How many large frames are on their way at once: places that are leased, not owned.

Decides nothing about who gets a place first. A frame that was handed to gRPC lies in memory until the
member reads it, so there are so many places and no more. A member that doesn't read keeps its place for
some seconds and then in name only: its one frame stays, but it holds up nobody. Thread-safe.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

PLACES = 16
TERM_S = 10.0


class Leases:
    """Places for frames."""

    def __init__(self, places: int = PLACES, term_s: float = TERM_S) -> None:
        self._places = places
        self._term_s = term_s
        # When each place that is taken counts as free again.
        self._ends: dict[object, float] = {}
        self._changed = threading.Condition()

    @contextmanager
    def place(self) -> Iterator[None]:
        """Wait for a place, and give it back at the end of the block."""
        mine = object()
        with self._changed:
            while (wait_s := self._wait_s()) > 0:
                self._changed.wait(wait_s)
            self._ends[mine] = time.monotonic() + self._term_s
        try:
            yield
        finally:
            with self._changed:
                self._ends.pop(mine, None)
                self._changed.notify()

    def _wait_s(self) -> float:
        now = time.monotonic()
        running = sorted(end for end in self._ends.values() if end > now)
        return running[0] - now if len(running) >= self._places else 0.0
