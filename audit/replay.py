"""The auditor: derives the ledger's state again from its leaves, and lists what should not be there.

Decides nothing new: it applies the same rules as admission did. Trusts no index, table or summary of
the coordinator. Pure.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from audit.faults import unverified
from audit.records import EMPTY, Round, Run, State
from audit.state import Rejected, apply, integrate, open_next
from fedproto import jcs
from fedproto.errors import LocalFault
from fedproto.governance.rules import refuse
from fedproto.ids import Digest, MemberId, RunId, sha256_hex
from fedproto.statements import Outcome, SignedEvent, leaf_id


@dataclass(frozen=True, slots=True)
class Violation:
    """An entry that does not follow from those before it."""

    index: int
    code: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """A derived state, the events (None where a leaf could not be opened) and the violations."""

    state: State
    events: tuple[SignedEvent | None, ...]
    violations: tuple[Violation, ...]


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


def advance(state: State, leaf: bytes) -> tuple[State, SignedEvent]:
    """Verify the next leaf and apply it; raise what `open_next` or the broken rule says."""
    signed = open_next(state, leaf)
    result = apply(state, leaf_id(leaf), signed)
    if isinstance(result, Rejected):
        raise refuse(result.why, result.code)
    return result, signed


def replay(leaves: Iterable[bytes], *, genesis_sha256: Digest | None = None) -> Replay:
    """Derive the state from leaves; a violating entry is listed and has no effect.

    Raises:
        LocalFault: RNM-LEDGER-0001 the first charter is not the one that was pinned.
    """
    state = EMPTY
    events: list[SignedEvent | None] = []
    violations: list[Violation] = []
    for index, leaf in enumerate(leaves):
        try:
            state, signed = advance(state, leaf)
            events.append(signed)
        except LocalFault as fault:
            violations.append(Violation(index, fault.code, fault.why))
            state = integrate(state, leaf_id(leaf))
            events.append(None)
    check_genesis(state, genesis_sha256)
    return Replay(state=state, events=tuple(events), violations=tuple(violations))


def check_genesis(state: State, pinned: Digest | None) -> None:
    """Refuse a ledger whose first charter is another than the one pinned (RNM-LEDGER-0001)."""
    if pinned is None or not state.charters:
        return
    found = state.charters[0].body.sha256
    if found != pinned:
        raise unverified(
            "the ledger was refused",
            f"its first charter is {found[:16]}…, pinned is {pinned[:16]}…",
            "compare the pinned digest with the other members; this is another consortium's ledger",
        )


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
    rounds = {
        name: [
            [attempt.started.leaf, attempt.closed.leaf if attempt.closed else None]
            + [receipt.leaf for receipt in attempt.receipts]
            for attempt in run.rounds
        ]
        for name, run in state.runs.items()
    }
    return sha256_hex(
        b"renmei/v1/state\n"
        + jcs.dumps(
            {
                "size": state.size,
                "root": state.root,
                "charters": [act.leaf for act in state.charters],
                "base_models": [act.leaf for act in state.base_models.values()],
                "datasets": [act.leaf for act in state.datasets.values()],
                "proposals": {
                    leaf: [proposal.run or "", *(vote.leaf for vote in proposal.votes)]
                    for leaf, proposal in state.proposals.items()
                },
                "mandates": {name: run.mandate.leaf for name, run in state.runs.items()},
                "rounds": {name: list(map(list, attempts)) for name, attempts in rounds.items()},
            }
        )
    )
