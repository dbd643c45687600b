"""Whether a member was present in a round, and by which entries that is known.

Decides by the ledger alone: invited, committed, signed for, in the sum or excluded. That a member's
data were used is its own signed receipt; that its update is in the sum is the round's record. Pure.
"""

from dataclasses import dataclass

from audit.history import unanswered
from audit.records import Round, State
from fedproto.ids import Digest, MemberId, RunId


@dataclass(frozen=True, slots=True, kw_only=True)
class Presence:
    """One attempt at a round, as one member's. `standing` is in-sum, excluded, open, aborted or absent.

    `absent` means that it was not invited; each index is None where there is no such entry.
    """

    run: RunId
    round: int
    attempt: int
    member: MemberId
    standing: str
    reason: str
    invited: int | None
    committed: int | None
    receipt: int | None
    audited: int | None
    dataset: Digest | None
    closed: int | None

    @property
    def cites(self) -> tuple[int, ...]:
        """Every entry that this rests on, in order."""
        named = (self.invited, self.committed, self.receipt, self.audited, self.closed)
        return tuple(sorted({index for index in named if index is not None}))


def presence(
    state: State, *, run: RunId, number: int | None = None, member: MemberId | None = None
) -> tuple[Presence, ...]:
    """Return who was present in the attempts of a run, of all rounds and members unless one is named.

    Raises:
        LocalFault: RNM-CONF-0001 there is no such run or round, or no charter knows the member.
    """
    if run not in state.runs:
        raise unanswered(
            f"no run is named {run}", "list the runs: renmei audit log --type run.approved"
        )
    attempts = [a for a in state.rounds(run) if number in {None, a.started.body.round}]
    if not attempts:
        raise unanswered(
            f"run {run} has no such round", "see renmei audit log --type round.started"
        )
    if member is not None:
        known = {m.id for act in state.charters for m in act.body.charter.members}
        if member not in known:
            raise unanswered(f"no charter names {member}", "see renmei audit charter")
    return tuple(
        _of(attempt, name)
        for attempt in attempts
        for name in (attempt.started.body.invited if member is None else (member,))
    )


def _of(attempt: Round, member: MemberId) -> Presence:
    started, closed = attempt.started, attempt.closed
    receipt = next((r for r in attempt.receipts if r.member == member), None)
    committed = next((c for c in attempt.commitments if c.member == member), None)
    audited = next((a for a in attempt.audits if a.member == member), None)
    standing, reason = _standing(attempt, member)
    return Presence(
        run=started.body.run,
        round=started.body.round,
        attempt=started.body.attempt,
        member=member,
        standing=standing,
        reason=reason,
        # The entry that invited the others is what shows that this member was not.
        invited=started.index,
        committed=committed.index if committed else None,
        receipt=receipt.index if receipt else None,
        audited=audited.index if audited else None,
        dataset=receipt.body.dataset if receipt else None,
        closed=closed.index if closed else None,
    )


def _standing(attempt: Round, member: MemberId) -> tuple[str, str]:
    if member not in attempt.started.body.invited:
        return "absent", ""
    if attempt.closed is None:
        return "open", ""
    body = attempt.closed.body
    if member in body.included:
        return "in-sum", ""
    reason = next((item.reason for item in body.excluded if item.member == member), body.reason)
    return ("excluded" if attempt.aggregated else "aborted"), reason
