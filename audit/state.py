"""One pure function, `apply`, that decides whether an act follows from the ledger before it.

Used alike by admission at the coordinator, by validating witnesses and mirrors, and by the auditor's
replay. Decides under the charter in force; trusts only a SignedEvent that `open_next` verified. Never
sees a clock: an event's `at` is its signer's claim. Pure.
"""

from dataclasses import dataclass, replace
from typing import TypeVar, assert_never

from audit import acts, merkle
from audit.records import EMPTY, Logged, Proposal, Round, Run, State, size_key
from fedproto import envelope
from fedproto.errors import LocalFault
from fedproto.governance.charter import Charter
from fedproto.governance.rules import refuse
from fedproto.identity import VerifyKey
from fedproto.ids import Digest, KeyId
from fedproto.statements import (
    BaseModelApproved,
    CharterAdopted,
    DatasetDeclared,
    Event,
    ParticipationSigned,
    ProposalOpened,
    RoundClosed,
    RoundStarted,
    RunApproved,
    SignedEvent,
    VoteCast,
    event_from_json,
    open_event,
)

__all__ = [
    "EMPTY",
    "Logged",
    "Proposal",
    "Rejected",
    "Round",
    "Run",
    "State",
    "apply",
    "integrate",
    "open_next",
]

A = TypeVar("A")


@dataclass(frozen=True, slots=True)
class Rejected:
    """An act that does not follow: an RNM-GOV-* code and the rule that it breaks."""

    code: str
    why: str


def apply(state: State, leaf_hash: Digest, signed: SignedEvent) -> State | Rejected:
    """Return the state after an act, or why the act is not one."""
    try:
        _check_common(state, leaf_hash, signed)
        return integrate(_admit(state, leaf_hash, signed), leaf_hash, signed.event.id)
    except LocalFault as fault:
        return Rejected(fault.code, fault.why)


def integrate(state: State, leaf_hash: Digest, event_id: str | None = None) -> State:
    """Add a leaf to the tree without judging it; for a reader who goes on after a violation."""
    size = state.size
    frontier = merkle.extend(state.frontier, size, bytes.fromhex(leaf_hash))
    root = Digest(merkle.frontier_root(frontier).hex())
    return replace(
        state,
        frontier=frontier,
        roots=state.roots.with_item(size_key(size + 1), root),
        leaves=state.leaves.with_item(leaf_hash, size),
        events=state.events.with_item(event_id, size) if event_id else state.events,
    )


def open_next(state: State, leaf: bytes) -> SignedEvent:
    """Verify a leaf under the charter in force.

    A charter's adoption may also be signed by keys that only the new charter lists; whether that is
    enough is for `apply` to say. Before entry 0 there is no charter, so the one inside is all there
    is: its digest must be pinned by the caller.

    Raises:
        LocalFault: RNM-SIG-*, RNM-FORM-* as `open_event`.
    """
    proposed: Charter | None = None

    def resolve(key: KeyId) -> VerifyKey | None:
        nonlocal proposed
        known = state.verify_key(key)
        if known is None and (proposed := proposed or _proposed_charter(leaf)) is not None:
            known = proposed.verify_key(key)
        return known

    return open_event(leaf, resolve)


def _proposed_charter(leaf: bytes) -> Charter | None:
    payload = envelope.peek(leaf, envelope.EVENT_TYPE)
    if not isinstance(payload, dict) or payload.get("type") != "charter.adopted":
        return None
    body = event_from_json(payload).body
    return body.charter if isinstance(body, CharterAdopted) else None


def _check_common(state: State, leaf_hash: Digest, signed: SignedEvent) -> None:
    event = signed.event
    if leaf_hash in state.leaves or event.id in state.events:
        raise refuse("an entry with this event id is in the ledger", "RNM-GOV-0003")
    adoption = isinstance(event.body, CharterAdopted)
    if state.charters:
        charter, digest = state.charter, state.charters[-1].body.sha256
    elif isinstance(event.body, CharterAdopted):
        charter, digest = event.body.charter, event.body.sha256
    else:
        raise refuse("no charter is in force: the first entry adopts one")
    if event.log != charter.origin:
        raise refuse(f"the act is for the log {event.log!r}, this is {charter.origin!r}")
    if event.charter != digest:
        raise refuse(f"the act cites charter {event.charter[:16]}, in force is {digest[:16]}")
    holder = charter.holder(event.actor.key)
    if holder is None or holder.id != event.actor.member:
        raise refuse(f"key {event.actor.key[:32]} is not one of {event.actor.member}")
    if not adoption and signed.signers != (event.actor.key,):
        raise refuse(f"{event.type} is signed by its actor alone")
    _check_head(state, event)


def _check_head(state: State, event: Event) -> None:
    """Refuse a signer whose last checkpoint is not of this history: one of the two logs is a fork."""
    size = event.head.size
    if size > state.size:
        raise refuse(f"the act saw {size} entries, this log has {state.size}")
    if event.head.root != state.root_at(size):
        raise refuse(f"the act saw another root at size {size}: the signer was shown another log")


def _admit(state: State, leaf: Digest, signed: SignedEvent) -> State:
    event, body = signed.event, signed.event.body
    match body:
        case CharterAdopted():
            admitted = acts.adopt_charter(state, _logged(state, leaf, event, body), signed.signers)
        case BaseModelApproved():
            admitted = acts.approve_base_model(state, _logged(state, leaf, event, body))
        case DatasetDeclared():
            admitted = acts.declare_dataset(state, _logged(state, leaf, event, body))
        case ProposalOpened():
            admitted = acts.open_proposal(state, _logged(state, leaf, event, body))
        case VoteCast():
            admitted = acts.cast_vote(state, _logged(state, leaf, event, body))
        case RunApproved():
            admitted = acts.approve_run(state, _logged(state, leaf, event, body))
        case RoundStarted():
            admitted = acts.start_round(state, _logged(state, leaf, event, body))
        case ParticipationSigned():
            admitted = acts.sign_participation(state, _logged(state, leaf, event, body))
        case RoundClosed():
            admitted = acts.close_round(state, _logged(state, leaf, event, body))
        case _:
            assert_never(body)
    return admitted


def _logged(state: State, leaf: Digest, event: Event, body: A) -> Logged[A]:
    return Logged(
        index=state.size,
        leaf=leaf,
        member=event.actor.member,
        at=event.at,
        charter=event.charter,
        body=body,
    )
