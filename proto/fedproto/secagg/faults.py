"""Who is to blame: the one form of a refusal in secure aggregation.

Decides the error a broken rule becomes and who is named. A message that the coordinator relayed is
its own fault where it had to check it first; a valid signature over other transcript digests is
evidence against the coordinator, never against the member that signed. What a member dealt and cannot
be used ends the attempt, names it, and brings the signed messages that show it. Holds no secret. Pure.
"""

from collections.abc import Sequence

from fedproto.errors import LocalFault, PeerFault
from fedproto.ids import MemberId

COORDINATOR = "coordinator"

_MEND = "abort the attempt; the round can be tried again with a new authorisation"


class Equivocation(PeerFault):
    """The coordinator showed two members two lists; `evidence` holds the signed messages."""

    def __init__(self, why: str, *evidence: bytes) -> None:
        super().__init__(
            "RNM-SECAGG-0003",
            peer=COORDINATOR,
            what="the coordinator showed members different lists",
            why=why,
            mend="keep the evidence and put it before the consortium; do not join another attempt",
        )
        self.evidence = evidence


class IdentifiableAbort(PeerFault):
    """The attempt ends and `culprits` are left out of the next one at the same round.

    Each of them is at fault, or, where messages cannot tell two members apart, one of them is.
    `evidence` holds the signed messages, as they were encoded.
    """

    def __init__(
        self, culprits: Sequence[MemberId], why: str, evidence: Sequence[bytes] = ()
    ) -> None:
        names = " and ".join(culprits)
        super().__init__(
            "RNM-SECAGG-0006",
            peer=culprits[0],
            what=f"the attempt was ended because of {names}",
            why=why,
            mend=f"nothing was unmasked; the next attempt at the round runs without {names}",
        )
        self.culprits = tuple(culprits)
        self.evidence = tuple(evidence)


class SumDiffers(PeerFault):
    """The coordinator published another sum than the uploads come to; `evidence` is its transcript."""

    def __init__(self, chunk: int, transcript: bytes) -> None:
        super().__init__(
            "RNM-SECAGG-0007",
            peer=COORDINATOR,
            what="the sum of the round was refused",
            why=f"chunk {chunk} of the published sum is not what the signed uploads add up to",
            mend="the finding is in the ledger; keep the evidence and put it before the consortium",
        )
        self.evidence = (transcript,)


def barred(member: MemberId) -> PeerFault:
    """Return the refusal of a member that was named in an earlier attempt at the same round."""
    return PeerFault(
        "RNM-SECAGG-0006",
        peer=member,
        what=f"{member} was not let into the attempt",
        why="what it dealt in an earlier attempt at this round could not be used",
        mend="look at the evidence of that attempt; the member may join the next round",
    )


def not_genuine(peer: str, why: str) -> PeerFault:
    """Return the refusal of a message that is malformed, unsigned or inconsistent."""
    return PeerFault(
        "RNM-SECAGG-0001",
        peer=peer,
        what=f"a message of {peer} was refused",
        why=why,
        mend=_MEND,
    )


def forbidden(why: str) -> PeerFault:
    """Return the refusal of a request by which the coordinator could open one member's delta."""
    return PeerFault(
        "RNM-SECAGG-0003",
        peer=COORDINATOR,
        what="a request of the coordinator was refused",
        why=why,
        mend="nothing was answered; report it to the consortium",
    )


def too_late(peer: str, why: str) -> PeerFault:
    """Return the refusal of a message whose phase is closed; its sender counts as dropped out."""
    return PeerFault(
        "RNM-SECAGG-0005",
        peer=peer,
        what=f"a message of {peer} was refused",
        why=why,
        mend="join the next round; the message is not kept and nothing in it is opened",
    )


def too_few(count: int, threshold: int, phase: str, silent: Sequence[MemberId]) -> LocalFault:
    """Return the abort of a phase that fewer members finished than can recover a dropout.

    `silent` are those that were asked: a withheld answer is named by its absence.
    """
    return LocalFault(
        "RNM-SECAGG-0002",
        what=f"the {phase} phase was aborted",
        why=f"{count} members are left of at least {threshold}; without a valid answer: "
        f"{', '.join(silent) or 'nobody who was asked'}",
        mend="start another attempt when more members can be reached; nothing was learned",
    )


def out_of_range(what: str, why: str, mend: str) -> LocalFault:
    """Return the refusal of a number that the ring or the authorisation does not allow."""
    return LocalFault("RNM-SECAGG-0004", what=what, why=why, mend=mend)
