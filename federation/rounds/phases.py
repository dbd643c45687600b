"""The phases of one attempt at a round: a transition table. Pure.

    ADVERTISE -> SHARE -> UPLOAD -> CONFIRM -> REVEAL -> AUDIT -> DONE
        any of them -> ABORTED

An attempt moves on when every member that it waits for has answered or left, or when it is late and
enough have answered. A member that leaves before the end of its phase is a dropout of all later ones;
too few left is the end. Events in, a command out: nothing is done here.
"""

from dataclasses import dataclass, replace
from enum import Enum

from fedproto.ids import MemberId


class Phase(Enum):
    """Where an attempt is; the value is the word that people see."""

    ADVERTISE = "advertise"
    SHARE = "share"
    UPLOAD = "upload"
    CONFIRM = "confirm"
    REVEAL = "reveal"
    AUDIT = "audit"
    DONE = "done"
    ABORTED = "aborted"


class Command(Enum):
    """What the runner does next."""

    WAIT = "wait"
    CLOSE = "close"
    ABORT = "abort"


# What a member has done when it has answered in a phase, as people see it.
DONE_WORDS = {
    Phase.ADVERTISE: "joined",
    Phase.SHARE: "shared",
    Phase.UPLOAD: "masked",
    Phase.CONFIRM: "confirmed",
    Phase.REVEAL: "revealed",
    Phase.AUDIT: "audited",
}

# The phase that a frame answers: the same bytes may come again later, and are no answer then.
ANSWERS = {
    "advertise": Phase.ADVERTISE,
    "encrypted_shares": Phase.SHARE,
    "masked_chunk": Phase.UPLOAD,
    "masked_header": Phase.UPLOAD,
    "confirm": Phase.CONFIRM,
    "reveal": Phase.REVEAL,
    "audited": Phase.AUDIT,
}

NEXT = {
    Phase.ADVERTISE: Phase.SHARE,
    Phase.SHARE: Phase.UPLOAD,
    Phase.UPLOAD: Phase.CONFIRM,
    Phase.CONFIRM: Phase.REVEAL,
    Phase.REVEAL: Phase.AUDIT,
    Phase.AUDIT: Phase.DONE,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One attempt: its phase, who is still waited for and who has answered in it.

    `cohort` is the least number of members in a sum, `threshold` the least that can open one.
    """

    phase: Phase
    waiting: frozenset[MemberId]
    answered: frozenset[MemberId]
    cohort: int
    threshold: int

    @property
    def needed(self) -> int:
        """How many answers this phase needs: until the upload a whole cohort, then a threshold."""
        if self.phase in (Phase.CONFIRM, Phase.REVEAL, Phase.AUDIT):
            return self.threshold
        return max(self.cohort, self.threshold)


def begin(members: frozenset[MemberId], *, cohort: int, threshold: int) -> Attempt:
    """Return an attempt in its first phase."""
    return Attempt(
        phase=Phase.ADVERTISE,
        waiting=members,
        answered=frozenset(),
        cohort=cohort,
        threshold=threshold,
    )


def part(attempt: Attempt, members: frozenset[MemberId], threshold: int) -> Attempt:
    """Return what goes on with one group of an attempt that has just closed a phase."""
    return replace(attempt, waiting=attempt.waiting & members, threshold=threshold)


def answered(attempt: Attempt, member: MemberId) -> Attempt:
    """Note that a member has answered in this phase; one that is not waited for changes nothing."""
    if member not in attempt.waiting:
        return attempt
    return replace(
        attempt,
        waiting=attempt.waiting - {member},
        answered=attempt.answered | {member},
    )


def left(attempt: Attempt, member: MemberId) -> Attempt:
    """Note that a member is gone; what it has already answered in this phase still counts."""
    return replace(attempt, waiting=attempt.waiting - {member})


def decide(attempt: Attempt, *, late: bool) -> Command:
    """Return what to do now; `late` says that the phase's time is over."""
    possible = len(attempt.answered) + len(attempt.waiting)
    if possible < attempt.needed:
        return Command.ABORT
    if not attempt.waiting:
        return Command.CLOSE
    if late:
        return Command.CLOSE if len(attempt.answered) >= attempt.needed else Command.ABORT
    return Command.WAIT


def close(attempt: Attempt, present: frozenset[MemberId]) -> Attempt:
    """Move on to the next phase, waiting for those who answered and are still `present`."""
    if attempt.phase not in NEXT:
        raise ValueError(f"phase {attempt.phase.value} has no next one")
    return replace(
        attempt,
        phase=NEXT[attempt.phase],
        waiting=attempt.answered & present,
        answered=frozenset(),
    )


def abort(attempt: Attempt) -> Attempt:
    """End the attempt without a sum."""
    if attempt.phase in (Phase.DONE, Phase.ABORTED):
        raise ValueError(f"an attempt that is {attempt.phase.value} cannot be aborted")
    return replace(attempt, phase=Phase.ABORTED, waiting=frozenset(), answered=frozenset())
