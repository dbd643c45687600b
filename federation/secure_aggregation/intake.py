"""What a member may say, and when: the phases of one attempt, their closing, and repeated messages.

Decides whether a message is of its phase, comes from a member of that phase, is the first one or the
same one again, and carries its sender's signature over this attempt's digests. A message that comes
after its phase was closed is refused and not kept. Trusts nothing of a message but what its signature
covers. Implements SA-1 (the order of the phases). Pure.
"""

import hashlib
from collections.abc import Mapping
from enum import IntEnum
from typing import TypeVar

from fedproto.errors import LocalFault
from fedproto.identity import VerifyKey
from fedproto.ids import MemberId
from fedproto.secagg.faults import Equivocation, not_genuine, too_few, too_late
from fedproto.secagg.messages import Signed, encode

T = TypeVar("T")


class Phase(IntEnum):
    """Where an attempt is."""

    ADVERTISE = 0
    SHARES = 1
    UPLOADS = 2
    CONFIRM = 3
    REVEAL = 4
    OVER = 5


class Intake:
    """The door of one attempt; a refused message leaves it as it was."""

    def __init__(self, ctx: bytes, roster: Mapping[MemberId, VerifyKey], threshold: int) -> None:
        self._ctx = ctx
        self._roster = roster
        self._threshold = threshold
        self.phase = Phase.ADVERTISE
        # The members that may speak in the phase that is open, sorted.
        self._open_to: tuple[MemberId, ...] = tuple(sorted(roster))
        self._received: dict[tuple[Phase, MemberId], bytes] = {}

    def narrow(self, names: tuple[MemberId, ...], threshold: int) -> None:
        """After phase 0: go on with one group."""
        self._threshold, self._open_to = threshold, names
        self._received = {at: seen for at, seen in self._received.items() if at[1] in names}

    def require_open(self, phase: Phase, member: MemberId) -> None:
        """Raise RNM-SECAGG-0005 after the phase, -0001 before it or from a member outside it."""
        if phase < self.phase:
            raise too_late(member, f"the {phase.name.lower()} phase is closed")
        if phase > self.phase:
            raise not_genuine(member, f"it came before the {phase.name.lower()} phase")
        if member not in self._open_to:
            raise not_genuine(member, "its sender is not in this phase")

    def is_repeated(self, phase: Phase, member: MemberId, raw: bytes) -> bool:
        """Let a member send the same bytes again after a broken connection, but no second answer."""
        known = self._received.get((phase, member))
        if known == hashlib.sha256(raw).digest():
            return True
        self.require_open(phase, member)
        if known is not None:
            raise not_genuine(member, f"it sent two different {phase.name.lower()} messages")
        return False

    def note(self, phase: Phase, member: MemberId, raw: bytes) -> None:
        """Remember an accepted message."""
        self._received[phase, member] = hashlib.sha256(raw).digest()

    def require_signed(self, member: MemberId, message: Signed, **expected: bytes) -> None:
        """Raise unless `member` signed the message over this attempt and the expected digests."""
        if message.member != member:
            raise not_genuine(member, f"it speaks for {message.member}")
        message.verify(self._roster[member], member)
        if message.ctx != self._ctx:
            raise not_genuine(member, "it is of another attempt")
        # Never blamed on the member: it cannot sign a digest of a list that it was not shown.
        name = message.differs(**expected)
        if name is not None:
            raise Equivocation(
                f"{member} signed another {name} than was fixed here", encode(message)
            )

    def close(
        self,
        phase: Phase,
        present: Mapping[MemberId, T],
        name: str,
        *,
        exactly: tuple[MemberId, ...] | None = None,
    ) -> dict[MemberId, T]:
        """Move on to the next phase with the members that finished this one, sorted.

        Raises:
            LocalFault: RNM-SECAGG-0002 if they are fewer than the threshold, or others than
                `exactly`; the attempt is over.
        """
        if self.phase is not phase:
            raise out_of_turn(f"the {name} phase was closed out of turn")
        needed = self._threshold if exactly is None else len(exactly)
        if len(present) < needed or (exactly is not None and set(present) != set(exactly)):
            self.phase = Phase.OVER
            silent = [member for member in self._open_to if member not in present]
            raise too_few(len(present), needed, name, silent)
        self.phase = Phase(phase + 1)
        ordered = {member: present[member] for member in sorted(present)}
        # Who did not confirm may still be asked to reveal: it is in U3.
        if phase is not Phase.CONFIRM:
            self._open_to = tuple(ordered)
        return ordered

    def end(self) -> None:
        """Take nothing more: the attempt is over."""
        self.phase = Phase.OVER


def out_of_turn(why: str) -> LocalFault:
    """Return the error of a caller that drives the protocol in another order."""
    return LocalFault(
        "RNM-BUG-0001",
        what="secure aggregation was driven out of turn",
        why=why,
        mend="report it with the trace of the round",
    )
