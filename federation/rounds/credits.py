"""Credits for upload chunks: how many members send at once, and how much each may have under way.

Decides who sends the next chunk. Every chunk under way may come to lie in the coordinator's memory, so
all members together have a fixed room, and no one of them more than its part of it: who holds a credit
and sends nothing keeps one place from the others, not all. The room is larger than the number of members
that may collude. First come, first served, a chunk at a time. Pure.
"""

from collections import deque

from fedproto.ids import MemberId
from fedproto.secagg.faults import not_genuine

# Chunks of 1 MiB.
ROOM = 32
MOST = 4
# Members beyond those that may collude that can always send.
SPARE = 8


class Credits:
    """The uploads of one attempt that are under way."""

    def __init__(self, members: int, tolerated: int) -> None:
        """Begin; `tolerated` members may hold their credits and send nothing."""
        self._room = max(ROOM, tolerated + SPARE)
        self._each = max(1, min(MOST, self._room // members))
        self._wanted: dict[MemberId, int] = {}
        self._granted: dict[MemberId, int] = {}
        self._queue: deque[MemberId] = deque()

    def open(self, member: MemberId, chunks: int) -> None:
        """Let a member stand in line with an upload of so many chunks."""
        self._wanted[member] = chunks
        self._granted[member] = 0
        self._queue.append(member)

    def spend(self, member: MemberId) -> None:
        """Take a chunk's credit back; raise PeerFault if the member had none."""
        if not self._granted.get(member):
            raise not_genuine(member, "it sent a chunk that it had no credit for")
        self._granted[member] -= 1

    def leave(self, member: MemberId) -> None:
        """Give what a member held to the others."""
        self._wanted.pop(member, None)
        self._granted.pop(member, None)
        if member in self._queue:
            self._queue.remove(member)

    def grant(self) -> dict[MemberId, int]:
        """Return who may send how many more chunks now."""
        granted: dict[MemberId, int] = {}
        room = self._room - sum(self._granted.values())
        passed = 0
        while room and passed < len(self._queue):
            member = self._queue.popleft()
            if self._granted[member] == self._each:
                self._queue.append(member)
                passed += 1
                continue
            passed = 0
            room -= 1
            self._granted[member] += 1
            self._wanted[member] -= 1
            granted[member] = granted.get(member, 0) + 1
            if self._wanted[member]:
                self._queue.append(member)
        return granted
