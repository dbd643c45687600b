"""What a state comes to: its runs and rounds by entry, and one digest over all that it says.

Decides nothing. The digest is equal wherever the same entries were applied, in any process. Pure.
"""

from dataclasses import dataclass

from audit.records import Round, Run, State
from fedproto import jcs
from fedproto.events.rounds import Outcome
from fedproto.ids import Digest, MemberId, RunId, sha256_hex
from fedproto.jcs import Json


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundSummary:
    """One attempt at a round, by entry index; `closed` and `outcome` are None while it is open."""

    round: int
    attempt: int
    started: int
    closed: int | None
    outcome: Outcome | None
    invited: tuple[MemberId, ...]
    included: tuple[MemberId, ...]
    receipts: tuple[MemberId, ...]
    model_in: Digest
    model_out: Digest | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """A run: its mandate, the votes behind it, its rounds, and the adapter that it stands at."""

    run: RunId
    mandate: int
    proposal: int
    votes: tuple[int, ...]
    members: tuple[MemberId, ...]
    rounds: tuple[RoundSummary, ...]
    model_out: Digest | None


def summarise(state: State) -> tuple[RunSummary, ...]:
    """Return every run in the order of its mandates."""
    runs = sorted(state.runs.values(), key=lambda run: run.mandate.index)
    return tuple(_run_summary(state, run) for run in runs)


def _run_summary(state: State, run: Run) -> RunSummary:
    body = run.mandate.body
    return RunSummary(
        run=body.run,
        mandate=run.mandate.index,
        proposal=state.leaves[body.proposal],
        votes=tuple(sorted(state.leaves[vote] for vote in body.votes)),
        members=body.members,
        rounds=tuple(_round_summary(attempt) for attempt in run.rounds),
        model_out=state.model_out(body.run),
    )


def _round_summary(attempt: Round) -> RoundSummary:
    started, closed = attempt.started, attempt.closed
    return RoundSummary(
        round=started.body.round,
        attempt=started.body.attempt,
        started=started.index,
        closed=closed.index if closed else None,
        outcome=closed.body.outcome if closed else None,
        invited=started.body.invited,
        included=closed.body.included if closed else (),
        receipts=tuple(receipt.member for receipt in attempt.receipts),
        model_in=started.body.model_in,
        model_out=closed.body.model_out if closed else None,
    )


def state_digest(state: State) -> Digest:
    """Return a digest of what a state says; equal wherever the same leaves were applied."""
    return sha256_hex(b"renmei/v1/state\n" + jcs.dumps(state_json(state)))


def state_json(state: State) -> dict[str, Json]:
    """Return what a state says, each act by its leaf: complete, so that two states that differ show it."""
    return {
        "size": state.size,
        "root": state.root,
        "charters": [act.leaf for act in state.charters],
        "seats": {
            member: [seat.admitted, seat.acting, seat.recovery, seat.standing.value]
            for member, seat in state.seats.items()
        },
        "keys": {
            key_id: [key.member, key.use.value, key.since, key.until]
            for key_id, key in state.keys.items()
        },
        "anchors": [[anchor.index, anchor.size, anchor.time_s] for anchor in state.anchors],
        "stops": [stop.leaf for stop in state.stops],
        "base_models": [act.leaf for act in state.base_models.values()],
        "datasets": {
            commitment: [dataset.declared.leaf, dataset.withdrawn, *(s.leaf for s in dataset.spent)]
            for commitment, dataset in state.datasets.items()
        },
        "proposals": {
            leaf: [
                proposal.run or "",
                proposal.carried,
                proposal.vetoed,
                proposal.decided,
                *(vote.leaf for vote in proposal.votes),
            ]
            for leaf, proposal in state.proposals.items()
        },
        "runs": {
            name: [run.mandate.leaf, *(_attempt_json(attempt) for attempt in run.rounds)]
            for name, run in state.runs.items()
        },
        "evaluations": {
            artifact: [act.leaf for act in acts] for artifact, acts in state.evaluations.items()
        },
        "releases": {leaf: release.revoked for leaf, release in state.releases.items()},
        "erased": dict(state.erased.items()),
        "refused": dict(state.refused.items()),
    }


def _attempt_json(attempt: Round) -> Json:
    return [
        attempt.started.leaf,
        attempt.closed.leaf if attempt.closed else None,
        [commitment.leaf for commitment in attempt.commitments],
        [receipt.leaf for receipt in attempt.receipts],
    ]
