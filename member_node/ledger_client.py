"""The node's view of the ledger: fetched from the coordinator, verified here, kept here.

Decides nothing itself: `audit.mirror` verifies the log's signature, the witnesses' cosignatures, the
tree and every act under the charter, and never goes back. The state that it gives is the only truth that
consent and ballots use. A shell module.
"""

import threading
import time
from collections.abc import Callable, Iterator

import grpc

from audit.mirror import Mirror
from audit.records import State
from fedproto.errors import LocalFault
from fedproto.statements import Head
from fedproto.transport import from_rpc_error
from fedproto.v1 import ledger_pb2_grpc
from fedproto.v1.ledger_pb2 import GetCheckpointRequest, GetEntriesRequest
from member_node.gate import GatedChannel

_GRACE_S = 10.0
_WAIT_S = 5.0
# What a coordinator answers when nothing larger was cosigned in time.
_NO_NEWS = ("RNM-LEDGER-0006", "RNM-ROUND-0002")


class LedgerClient:
    """Keeps the mirror up to date; may be called from any thread."""

    def __init__(self, channel: GatedChannel, mirror: Mirror) -> None:
        self._stub = ledger_pb2_grpc.LedgerStub(channel)
        self._to = channel.to
        self._mirror = mirror
        self._lock = threading.Lock()

    @property
    def state(self) -> State:
        """What the verified entries amount to."""
        return self._mirror.state

    @property
    def head(self) -> Head:
        """Size and root of the last checkpoint that this node verified."""
        head = self._mirror.head
        return Head(size=head.size, root=head.root)

    def sync(self, *, min_size: int = 0, timeout_s: float = 0.0) -> State:
        """Fetch and verify what is new; wait at most `timeout_s` for a ledger of `min_size`.

        Raises:
            LocalFault: RNM-LEDGER-* what came does not verify; RNM-TLS-* nothing came.
        """
        request = GetCheckpointRequest(min_size=min_size, timeout_ms=int(timeout_s * 1000))
        before = self._mirror.head.size
        try:
            # Outside the lock: one thread that waits for news must not keep the others from reading.
            note = self._stub.GetCheckpoint(request, timeout=timeout_s + _GRACE_S).note
            if not note:
                # Nothing is cosigned yet: the witnesses of a new log are still on their way.
                return self._mirror.state
            with self._lock:
                if before <= _size(note) < self._mirror.head.size:
                    # Another thread was quicker. An older ledger than `before` is the mirror's to judge.
                    return self._mirror.state
                return self._mirror.update(note, self._entries(note))
        except grpc.RpcError as error:
            raise from_rpc_error(error, self._to) from None

    def wait_for(self, reached: Callable[[State], bool], *, patience_s: float) -> State:
        """Sync until the ledger says so; raise RNM-CONSENT-0001 when patience ends."""
        until = time.monotonic() + patience_s
        state = self.state
        while not reached(state):
            left = until - time.monotonic()
            if left <= 0:
                raise LocalFault(
                    "RNM-CONSENT-0001",
                    what="a round was refused",
                    why="the ledger that this node verified has no entry of it",
                    mend="see whether enough witnesses cosign; the coordinator then tries again",
                )
            state = self.wait_for_more(min(left, _WAIT_S))
        return state

    def wait_for_more(self, timeout_s: float) -> State:
        """Wait until a larger ledger is published; an unchanged one is no error."""
        try:
            return self.sync(min_size=self.head.size + 1, timeout_s=timeout_s)
        except LocalFault as fault:
            if fault.code not in _NO_NEWS:
                raise
            return self.state

    def _entries(self, note: bytes) -> Iterator[bytes]:
        """Yield the leaves between what is here and what `note` covers, in order."""
        start, end = self._mirror.head.size, _size(note)
        if end <= start:
            return
        request = GetEntriesRequest(start=start, end=end)
        for chunk in self._stub.GetEntries(request, timeout=60.0):
            yield from chunk.entries


def _size(note: bytes) -> int:
    """Read the size that a note claims; the mirror verifies it."""
    lines = note.split(b"\n", 2)
    try:
        return int(lines[1]) if len(lines[1]) < 20 else 0
    except (IndexError, ValueError):
        return 0
