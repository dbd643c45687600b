"""Before the log signs again: is it the log that its witnesses know, an older one, or another?

Decides from what witnesses cosigned last, as they say when they attend. A database that was restored
from a backup is an older log: what it would sign next would fork it from its own past. Trusts only
checkpoints that carry the log's own signature and that witness's. Pure.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum

from audit.checkpoint import TreeHead, open_checkpoint
from audit.faults import unverified
from audit.policy import WitnessPolicy
from fedproto.ids import Digest, MemberId


class Standing(Enum):
    """How a log stands to what its witnesses know."""

    WAITING = "waiting"
    CURRENT = "current"
    BEHIND = "behind"
    FORKED = "forked"


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """A standing, the witness that decided it, and the checkpoint that it showed."""

    standing: Standing
    needed: int
    heard: int
    member: MemberId | None = None
    head: TreeHead | None = None
    note: bytes = b""


def needed(policy: WitnessPolicy) -> int:
    """Return how many witnesses must be heard before the log may sign: n - quorum + 1.

    A published checkpoint was cosigned by at least `quorum` of n witnesses. Any n - quorum + 1 of them
    include one of those, so that one of them shows it, if it stands by what it signed.
    """
    return len(policy.witnesses) - policy.quorum + 1


def judge(
    policy: WitnessPolicy,
    own: TreeHead,
    root_at: Callable[[int], Digest],
    answers: Mapping[MemberId, bytes],
) -> Judgement:
    """Judge a log by its witnesses' answers: the last note each cosigned, empty where it has none.

    One witness that knows more, or another history, outweighs any number that do not.

    Args:
        policy: the log's witnesses under the charter in force.
        own: the newest durable tree head.
        root_at: the root that this log had at a size up to its own.
        answers: by member.

    Raises:
        LocalFault: RNM-LEDGER-0001 an answer is not a checkpoint of this log cosigned by that witness.
    """
    heads = {member: _cosigned(policy, member, note) for member, note in sorted(answers.items())}
    heard = len(heads)
    due = needed(policy)

    def found(standing: Standing, member: MemberId | None = None) -> Judgement:
        return Judgement(
            standing=standing,
            needed=due,
            heard=heard,
            member=member,
            head=heads[member] if member else None,
            note=answers[member] if member else b"",
        )

    for member, head in heads.items():
        if 0 < head.size <= own.size and root_at(head.size) != head.root:
            return found(Standing.FORKED, member)
    ahead = max(heads, key=lambda member: heads[member].size, default=None)
    if ahead is not None and heads[ahead].size > own.size:
        return found(Standing.BEHIND, ahead)
    return found(Standing.CURRENT if heard >= due else Standing.WAITING)


def _cosigned(policy: WitnessPolicy, member: MemberId, note: bytes) -> TreeHead:
    """Return the head that a witness shows; verified, for a lie here would stop the log."""
    if not note:
        return TreeHead(0, Digest(""))
    signed = open_checkpoint(note, policy.log, policy.origin)
    if all(item.member != member for item in policy.cosignatures(signed.note)):
        raise unverified(
            f"what {member} showed was refused", "it does not carry that witness's cosignature"
        )
    return signed.head
