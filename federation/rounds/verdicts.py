"""What the ledger's attempts mean for the next: who is barred, whether a sum may be recorded.

Decides by the ledger alone, so that a coordinator that was killed decides the same afterwards. Pure.
"""

from collections.abc import Mapping, Sequence

from audit.records import Round
from fedproto.authorisation import Authorisation
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
    attempt: Round, transcript: Digest, sums: Sequence[AggregateSum], content: Authorisation
) -> None:
    """Refuse to record sums that an auditor refused, or that too few found right.

    Raises:
        LocalFault: RNM-SECAGG-0007 one refused it; -0002 too few looked at it.
    """
    refusal = disputed(attempt)
    if refusal is not None:
        raise refusal
    threshold = content.recovery_threshold if content.groups == 1 else None
    included = [total.included for total in sums]
    missing = attempt.missing_audits(transcript, included, threshold, content.tolerated)
    if missing:
        raise LocalFault(
            "RNM-SECAGG-0002",
            what=f"round {attempt.started.body.round} was aborted",
            why=missing,
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
