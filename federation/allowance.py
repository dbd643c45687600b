"""How many calls one member may have open at once, so that none can starve the others.

An open call may hold a thread of the server, a stream for as long as it lasts. Decides nothing about
roles. A shell module.
"""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from fedproto.errors import LocalFault
from fedproto.ids import MemberId

# A node has four streams and a few calls beside them; a person a watch and a call.
CALLS = 24


class Allowance:
    """Counts the open calls of each member. Thread-safe."""

    def __init__(self, calls: int = CALLS) -> None:
        self._calls = calls
        self._open: Counter[MemberId] = Counter()
        self._lock = threading.Lock()

    @contextmanager
    def call(self, member: MemberId) -> Iterator[None]:
        """Count a call while it is open; raise as `take`."""
        self.take(member)
        try:
            yield
        finally:
            self.put_back(member)

    def take(self, member: MemberId) -> None:
        """Count a call until `put_back`; raise RNM-NET-0002 for one too many."""
        with self._lock:
            if self._open[member] >= self._calls:
                raise LocalFault(
                    "RNM-NET-0002",
                    what=f"a call of {member} was refused",
                    why=f"it has {self._calls} calls open already",
                    mend="end some of them (`renmei run watch` is one each), then try again",
                )
            self._open[member] += 1

    def put_back(self, member: MemberId) -> None:
        """Note that a call has ended."""
        with self._lock:
            self._open[member] -= 1
