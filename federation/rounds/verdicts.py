"""What the ledger's attempts mean for the next: who is barred, whether a sum may be recorded.

Decides by the ledger alone, so that a coordinator that was killed decides the same afterwards. Pure.
"""

from collections.abc import Mapping, Sequence

from audit.records import Round
from fedproto.authorisation import Authorisation, recovery_threshold
from fedproto.errors import LocalFault
from fedproto.events.rounds import Excluded
from fedproto.ids import Digest, MemberId
from fedproto.secagg.groups import round_digest
from fedproto.secagg.stages import AggregateSum

BARRED = "RNM-SECAGG-0006"
DISPUTED = "RNM-SECAGG-0007"


def barred(attempts: Sequence[Round], round_no: int) -> frozenset[MemberId]:
    """Return whom an earlier attempt at a round was ended for."""
    return frozenset(
        item.member
        for attempt in attempts
        if attempt.started.body.round == round_no and attempt.closed
        for item in attempt.closed.body.excluded
        if item.reason == BARRED
    )


def disputed(attempt: Round) -> LocalFault | None:
    """Return the end of the run if an auditor refused the sum of an attempt."""
    if attempt.disputed is None:
        return None
    return LocalFault(
        DISPUTED,
        what=f"round {attempt.started.body.round} was aborted and the run ended",
        why=f"{attempt.disputed.member} refused the sum in entry {attempt.disputed.index}",
        mend="compare its evidence with the transcript; the members vote on what follows",
    )


def require_audited(
    attempt: Round, transcript: Digest, sums: Sequence[tuple[Sequence[MemberId], int]]
) -> None:
    """Refuse to record sums that an auditor refused, or that too few found right.

    `sums` are the members of each, and how many of them have to find it right.

    Raises:
        LocalFault: RNM-SECAGG-0007 one refused it; -0002 too few looked at it.
    """
    refusal = disputed(attempt)
    if refusal is not None:
        raise refusal
    right = [act.member for act in attempt.audits if act.body.transcript_sha256 == transcript]
    for members, needed in sums:
        count = sum(name in members for name in right)
        if count < needed:
            raise LocalFault(
                "RNM-SECAGG-0002",
                what=f"round {attempt.started.body.round} was aborted",
                why=f"{count} members audited the sum, fewer than {needed}",
                mend="see the ledger for who did; the next attempt asks all of them again",
            )


def excluded(reasons: Mapping[MemberId, str]) -> tuple[Excluded, ...]:
    """Return who is out and why, as a round record says it."""
    return tuple(Excluded(member=m, reason=reasons[m]) for m in sorted(reasons))


def digest_of(sums: Sequence[AggregateSum], ctx: bytes) -> Digest:
    """Return the digest of what was published of a round."""
    return Digest(
        round_digest(ctx, [bytes.fromhex(total.transcript_sha256) for total in sums]).hex()
    )


def audits_due(
    sums: Sequence[AggregateSum], content: Authorisation
) -> list[tuple[tuple[MemberId, ...], int]]:
    """Return the members of each sum, and how many of them have to find it right."""
    if content.groups == 1:
        return [(total.included, content.recovery_threshold) for total in sums]
    due = [recovery_threshold(len(total.included), content.tolerated) for total in sums]
    return [(total.included, needed) for total, needed in zip(sums, due, strict=True)]
