"""One pure function, `apply`, that decides whether an act follows from the ledger before it.

Used alike by admission at the coordinator, by validating witnesses and mirrors, and by the auditor's
replay. Decides under the charter in force; trusts only a SignedEvent that `open_next` verified. Never
sees a clock: an event's `at` is its signer's claim. Pure.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from audit import merkle
from audit.acts import charters, models, oversight, proposals, runs
from audit.records import EMPTY, Logged, Proposal, Round, Run, State, size_key
from fedproto import envelope
from fedproto.errors import LocalFault
from fedproto.events import governance, rounds
from fedproto.events import models as model_events
from fedproto.events import oversight as oversight_events
from fedproto.events.governance import (
    CharterAdopted,
    KeyChanged,
    KeyOperation,
    KeyUse,
    MemberAdmitted,
    MemberStatus,
    PublicKey,
    Standing,
)
from fedproto.governance.rules import refuse
from fedproto.identity import VerifyKey
from fedproto.ids import Digest, KeyId
from fedproto.statements import Body, Event, SignedEvent, event_from_json, open_event

__all__ = [
    "EMPTY",
    "RULES",
    "Logged",
    "Proposal",
    "Rejected",
    "Round",
    "Run",
    "State",
    "apply",
    "claim_next",
    "integrate",
    "open_next",
]

# The rule of each event type; a type without one cannot be admitted, and a test counts them.
RULES: dict[type[Body], Callable[[State, Logged[Any]], State]] = {
    CharterAdopted: charters.adopt_charter,
    MemberAdmitted: charters.admit_member,
    MemberStatus: charters.change_standing,
    KeyChanged: charters.change_key,
    governance.ProposalOpened: proposals.open_proposal,
    governance.VoteCast: proposals.cast_vote,
    governance.ProposalClosed: proposals.close_proposal,
    governance.EmergencyStopped: proposals.stop,
    governance.EmergencyResumed: proposals.resume,
    governance.ActRefused: proposals.record_refusal,
    model_events.BaseModelApproved: models.approve_base_model,
    model_events.DatasetDeclared: models.declare_dataset,
    model_events.DatasetWithdrawn: models.withdraw_dataset,
    model_events.EvaluationAttested: models.attest_evaluation,
    model_events.ReleaseApproved: models.approve_release,
    model_events.ReleaseRevoked: models.revoke_release,
    rounds.RunApproved: runs.approve_run,
    rounds.RoundStarted: runs.start_round,
    rounds.UpdateCommitted: runs.commit_update,
    rounds.ParticipationSigned: runs.sign_participation,
    rounds.SumAudited: runs.audit_sum,
    rounds.RoundClosed: runs.close_round,
    rounds.BudgetSpent: runs.spend_budget,
    oversight_events.AnchorMade: oversight.make_anchor,
    oversight_events.StateSnapshot: oversight.take_snapshot,
    oversight_events.LogContinued: oversight.continue_log,
    oversight_events.AccessGranted: oversight.grant_access,
    oversight_events.ExportIssued: oversight.issue_export,
    oversight_events.IncidentReported: oversight.report_incident,
    oversight_events.RemediationDone: oversight.remedy,
    oversight_events.ErasureDone: oversight.erase,
    oversight_events.StatementAttached: oversight.attach_statement,
    oversight_events.SoftwareDeployed: oversight.deploy_software,
}


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
    """Verify a leaf by the keys in force, and read it.

    Raises:
        LocalFault: RNM-SIG-*, RNM-FORM-* as `open_event`.
    """
    return open_event(leaf, _resolver(state, leaf))


def claim_next(state: State, leaf: bytes) -> envelope.Claimed:
    """Return what a leaf claims, by the keys in force, for who verifies it elsewhere.

    Raises:
        LocalFault: RNM-SIG-*, RNM-FORM-* as `envelope.claim`.
    """
    return envelope.claim(leaf, envelope.EVENT_TYPE, _resolver(state, leaf))


def _resolver(state: State, leaf: bytes) -> envelope.Resolver:
    """Look keys up in a state.

    A key that comes with its act (the first charter's, a new seat's, a rotation's) verifies it too;
    whether it may come is for `apply` to say. Before entry 0 there is nothing else to verify by: the
    first charter's digest must be pinned by the caller.
    """
    brought: dict[KeyId, VerifyKey] | None = None

    def resolve(key: KeyId) -> VerifyKey | None:
        nonlocal brought
        known = state.verify_key(key)
        if known is None:
            brought = _brought(leaf) if brought is None else brought
            known = brought.get(key)
        return known

    return resolve


_BRINGING = {"charter.adopted", "member.admitted", "key.changed"}


def _brought(leaf: bytes) -> dict[KeyId, VerifyKey]:
    """Return the keys that an act brings, read before it is verified by them."""
    payload = envelope.peek(leaf, envelope.EVENT_TYPE)
    if not isinstance(payload, dict) or payload.get("type") not in _BRINGING:
        return {}
    keys = [public.verify_key for public in _keys_in(event_from_json(payload).body)]
    return {key.key_id: key for key in keys}


def _keys_in(body: Body) -> tuple[PublicKey, ...]:
    found: tuple[PublicKey | None, ...]
    match body:
        case CharterAdopted():
            found = (body.operator_key,)
        case MemberAdmitted():
            found = (body.acting, body.recovery)
        case KeyChanged():
            found = (body.new,)
        case _:
            found = ()
    return tuple(key for key in found if key is not None)


def _check_common(state: State, leaf_hash: Digest, signed: SignedEvent) -> None:
    event = signed.event
    if leaf_hash in state.leaves or event.id in state.events:
        raise refuse("an entry with this event id is in the ledger", "RNM-GOV-0003")
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
    _check_founded(state, event)
    _check_signers(state, signed)
    _check_standing(state, event)
    _check_head(state, event)


def _check_founded(state: State, event: Event) -> None:
    """Until everyone has consented to the first charter, there is nothing to do but consent."""
    founding = MemberAdmitted | CharterAdopted | oversight_events.LogContinued
    if state.charters and not state.founded and not isinstance(event.body, founding):
        names = ", ".join(state.unseated)
        raise refuse(f"the consortium is not founded yet: {names} have not taken their seats")


def _check_signers(state: State, signed: SignedEvent) -> None:
    """The actor's own key in force signs, alone; an act that brings keys is signed by those too."""
    event, body = signed.event, signed.event.body
    due = {event.actor.key, *(key.verify_key.key_id for key in _keys_in(body))}
    if set(signed.signers) != due:
        raise refuse(f"{event.type} is signed by its actor alone, and by the keys that it brings")
    if isinstance(body, MemberAdmitted):
        held = event.actor.key == body.acting.verify_key.key_id
    elif isinstance(body, CharterAdopted) and body.operator_key is not None:
        held = event.actor.key == body.operator_key.verify_key.key_id
    else:
        key = state.key(event.actor.key)
        uses = {KeyUse.ACT}
        if isinstance(body, KeyChanged):
            # A key under recovery's protection is ended, and the recovery key replaced, by itself.
            uses.add(KeyUse.RECOVERY)
        held = key is not None and key.member == event.actor.member and key.use in uses
    if not held:
        raise refuse(f"key {event.actor.key[:32]} is not one of {event.actor.member}")


def _check_standing(state: State, event: Event) -> None:
    standing = state.standing(event.actor.member) if state.charters else None
    if standing in {None, Standing.ACTIVE}:
        return
    body = event.body
    leaves = isinstance(body, MemberStatus) and not body.proposal
    # Its own, by its recovery key. What others voted for is not for it to write down.
    ends_key = isinstance(body, KeyChanged) and body.op is KeyOperation.REVOKE and not body.proposal
    if not (leaves or ends_key):
        raise refuse(f"{event.actor.member} is {standing.value}: its acts do not count")


def _check_head(state: State, event: Event) -> None:
    """Refuse a signer whose last checkpoint is not of this history: one of the two logs is a fork."""
    size = event.head.size
    if size > state.size:
        raise refuse(f"the act saw {size} entries, this log has {state.size}")
    if event.head.root != state.root_at(size):
        raise refuse(f"the act saw another root at size {size}: the signer was shown another log")


def _admit(state: State, leaf: Digest, signed: SignedEvent) -> State:
    event = signed.event
    act = Logged(
        index=state.size,
        leaf=leaf,
        member=event.actor.member,
        at=event.at,
        charter=event.charter,
        signers=signed.signers,
        body=event.body,
    )
    return RULES[type(event.body)](state, act)
