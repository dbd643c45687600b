"""The coordinator's own acts, and a bell that rings when the ledger grows.

Everything that the coordinator does is an entry first: no entry, no state change. A shell module.
"""

import asyncio
import threading
import time
from collections.abc import Callable

from audit.ledger import Appended, Ledger
from federation.inbox import Check, Inbox
from fedproto import telemetry
from fedproto.errors import LocalFault
from fedproto.party import Party
from fedproto.statements import Body, Head, seal_event

_WITNESSES_S = 30.0


class Register:
    """The ledger as the coordinator's parts use it. Thread-safe."""

    def __init__(self, ledger: Ledger, party: Party) -> None:
        self.ledger = ledger
        self._party = party
        self._inbox = Inbox(ledger, self.ring)
        self._grown = threading.Condition()
        self._closed = False

    def admit(self, leaf: bytes) -> Appended:
        """Append an act of any party; raise why it is refused."""
        self._await_witnesses()
        appended = self.ledger.append(leaf)
        self.ring()
        return appended

    async def admitted(self, leaf: bytes, check: Check) -> Appended:
        """As `admit`, for a coroutine: while it waits, no thread does. `check` as `Inbox.admit`."""
        if self._waits_for_witnesses():
            await asyncio.to_thread(self._await_witnesses)
        return await self._inbox.admit(leaf, check)

    def _await_witnesses(self) -> None:
        # After a start the ledger waits for its witnesses; they come by themselves, in seconds.
        self.wait(lambda: not self._waits_for_witnesses(), _WITNESSES_S)

    def _waits_for_witnesses(self) -> bool:
        held = self.ledger.held
        return held is not None and held.code == "RNM-LEDGER-0008"

    def act(self, body: Body) -> Appended:
        """Sign and append an act of the coordinator's own, on the head as it is now."""
        head = self.ledger.head
        event = self._party.event(
            body,
            charter=self.ledger.state.charter.digest,
            head=Head(size=head.size, root=head.root),
            trace=telemetry.current(),
        )
        return self.admit(seal_event(event, (self._party.signing_key,)))

    def ring(self) -> None:
        """Wake all who wait for the ledger or its cosignatures."""
        with self._grown:
            self._grown.notify_all()

    def close(self) -> None:
        """Wake all who wait, for good."""
        with self._grown:
            self._closed = True
            self._grown.notify_all()
        self._inbox.close()

    @property
    def closed(self) -> bool:
        """Whether the coordinator stops."""
        return self._closed

    def wait(self, holds: Callable[[], bool], timeout_s: float) -> bool:
        """Wait until `holds()`, the time is over or the coordinator stops; return `holds()`."""
        deadline = time.monotonic() + timeout_s
        with self._grown:
            while not holds():
                left = deadline - time.monotonic()
                if left <= 0 or self._closed:
                    return False
                # Bounded: a note may also change without a ring, by the publisher's thread.
                self._grown.wait(min(left, 0.5))
            return True

    def await_cosigned(self, size: int, timeout_s: float) -> bytes:
        """Return a checkpoint with the witness quorum that covers `size`; raise RNM-LEDGER-0006."""
        self.wait(lambda: self.ledger.checkpoint(size) is not None, timeout_s)
        note = self.ledger.checkpoint(size)
        if note is None:
            raise LocalFault(
                "RNM-LEDGER-0006",
                what=f"the ledger is not cosigned up to entry {size - 1}",
                why=f"fewer than {self.ledger.state.charter.witness_quorum} witnesses answered "
                f"within {timeout_s:.0f} s",
                mend="have more members' nodes running: they cosign by themselves",
            )
        return note
