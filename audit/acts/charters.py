"""The rules of charters, seats, standing and keys: who belongs, and under which key.

Decides one event type each, on top of the common checks of `audit.state`. Trusts only admitted acts.
Every refusal raises RNM-GOV-*. Pure.
"""

from dataclasses import replace
from types import MappingProxyType

from audit import decision
from audit.decision import AGAIN, QUORUM
from audit.policy import WitnessPolicy
from audit.records import Key, Logged, Seat, State
from audit.validation import validators
from fedproto.events.governance import (
    CharterAdopted,
    CharterTerms,
    KeyChanged,
    KeyOperation,
    KeyTerms,
    KeyUse,
    MemberAdmitted,
    MemberStatus,
    PublicKey,
    Standing,
    StandingTerms,
)
from fedproto.governance.charter import Action, Charter, Member, Role
from fedproto.governance.rules import check_roles, refuse
from fedproto.ids import ZERO_DIGEST, Digest, KeyId, MemberId


def adopt_charter(state: State, act: Logged[CharterAdopted]) -> State:
    """The first charter, by its operator; or the next one, by the vote that it cites."""
    body, charter = act.body, act.body.charter
    check_fit(charter)
    if not state.charters:
        return _found(state, act)
    decision.check_executor(state, act.member, Action.AMEND_CHARTER, "charter.adopted")
    # An empty citation is no proposal's leaf, and is refused as one that does not exist.
    proposal = decision.require_carried(
        state, Digest(body.proposal), body.votes, Action.AMEND_CHARTER, act.at
    )
    if proposal.opened.body.terms != CharterTerms(charter=charter):
        raise refuse("the charter is not the one that was voted on")
    check_succession(state.charter, charter)
    # What else was open has lapsed: nobody voted on it under the new rules.
    adopted = replace(
        decision.decided(state, proposal), charters=(*state.charters, act), waiting=()
    )
    return _unseat(adopted, {member.id for member in charter.members})


def _unseat(state: State, members: set[MemberId]) -> State:
    """End the seats and keys of who is a member no longer: a later charter admits them anew, or not."""
    gone = state.seats.keys() - members
    keys = state.keys
    for key_id, key in state.keys.items():
        if key.member in gone and key.until is None:
            keys = keys.with_item(key_id, replace(key, until=state.size))
    left = {member: seat for member, seat in state.seats.items() if member not in gone}
    return replace(state, keys=keys, seats=MappingProxyType(left))


def check_fit(charter: Charter) -> None:
    """Refuse a charter that could not govern: no operator, or a witness policy that does not hold."""
    try:
        WitnessPolicy.from_charter(charter)
        validators(charter)
    except ValueError as error:
        raise refuse(f"the charter's witness policy does not hold: {error}") from None
    if not charter.with_role(Role.OPERATOR):
        raise refuse("the charter names no operator")


def check_succession(old: Charter, new: Charter) -> None:
    """Refuse an amendment that is not the next version of this log's charter."""
    if new.version != old.version + 1 or new.prev_sha256 != old.digest:
        raise refuse(f"an amendment of version {old.version} is version {old.version + 1} after it")
    if (new.consortium, new.origin) != (old.consortium, old.origin):
        raise refuse("an amendment keeps the consortium and the log's origin")
    if new.log_vkey != old.log_vkey:
        raise refuse("an amendment keeps the log key: a new log key starts a new log")


def _found(state: State, act: Logged[CharterAdopted]) -> State:
    charter, brought = act.body.charter, act.body.operator_key
    if charter.version != 1 or charter.prev_sha256 != ZERO_DIGEST:
        raise refuse("the first charter is version 1 and has no predecessor")
    check_roles(charter, act.member, (Role.OPERATOR,), "charter.adopted")
    member = _listed(charter, act.member)
    if member.recovery:
        raise refuse("the operator founds with its acting key alone")
    if brought is None or brought.verify_key.digest != member.key:
        raise refuse("the operator's key is not the one that the charter names")
    return _seat(replace(state, charters=(act,)), act.member, act.index, brought, None)


def admit_member(state: State, act: Logged[MemberAdmitted]) -> State:
    """A member of the charter takes its seat with just the keys that the charter names for it."""
    member, body = _listed(state.charter, act.member), act.body
    seat = state.seats.get(act.member)
    if seat is not None and seat.acting is not None:
        raise refuse(f"{act.member} has its seat, and a key in force", AGAIN)
    if seat is not None and seat.standing is not Standing.ACTIVE:
        raise refuse(f"{act.member} is {seat.standing.value}")
    if body.acting.verify_key.digest != member.key:
        raise refuse("the acting key is not the one that the charter names")
    recovery = body.recovery.verify_key.digest if body.recovery else ""
    if recovery != member.recovery:
        raise refuse("the recovery key is not the one that the charter names")
    return _seat(state, act.member, act.index, body.acting, body.recovery)


def _seat(
    state: State, member: MemberId, index: int, acting: PublicKey, recovery: PublicKey | None
) -> State:
    keys = state.keys
    brought = [(acting, KeyUse.ACT), *([(recovery, KeyUse.RECOVERY)] if recovery else [])]
    for public, use in brought:
        key = public.verify_key
        # A key that was ended must not come back, by whomever: acts under it are on the ledger.
        kept = keys.get(key.key_id)
        if kept is not None and use is KeyUse.RECOVERY and _in_force(kept, member, use):
            continue
        if kept is not None:
            raise refuse(f"key {key.key_id} is or was on the ledger", AGAIN)
        entry = Key(member=member, use=use, verify_key=key, since=index)
        keys = keys.with_item(key.key_id, entry)
    seat = Seat(
        admitted=index,
        acting=acting.verify_key.key_id,
        recovery=recovery.verify_key.key_id if recovery else None,
    )
    seated = _with_seat(replace(state, keys=keys), member, seat)
    return decision.recount(replace(seated, founded=state.founded or not seated.unseated))


def _in_force(key: Key, member: MemberId, use: KeyUse) -> bool:
    return (key.member, key.use, key.until) == (member, use, None)


def change_standing(state: State, act: Logged[MemberStatus]) -> State:
    """A member leaves by itself; the others suspend, expel or reinstate it by vote."""
    body = act.body
    seat = state.seats.get(body.member)
    if seat is None or state.charter.member(body.member) is None:
        raise refuse(f"{body.member} has no seat")
    if seat.standing in {Standing.WITHDRAWN, Standing.EXPELLED}:
        raise refuse(f"{body.member} is {seat.standing.value}; a charter may admit it again", AGAIN)
    if seat.standing is body.standing:
        raise refuse(f"{body.member} is {body.standing.value} already", AGAIN)
    changed = replace(seat, standing=body.standing)
    if not body.proposal:
        if act.member != body.member:
            raise refuse("a member withdraws by itself")
        return decision.recount(_with_seat(state, body.member, changed))
    decision.check_executor(state, act.member, Action.CHANGE_STANDING, "member.status")
    proposal = decision.require_carried(
        state, Digest(body.proposal), body.votes, Action.CHANGE_STANDING, act.at
    )
    if proposal.opened.body.terms != StandingTerms(member=body.member, standing=body.standing):
        raise refuse("the change is not the one that was voted on")
    return decision.recount(_with_seat(decision.decided(state, proposal), body.member, changed))


def change_key(state: State, act: Logged[KeyChanged]) -> State:
    """A key is replaced by its holder, or ended by the recovery key or the others' vote."""
    body = act.body
    key = state.key(body.key)
    if key is None or key.use is not body.use:
        raise refuse(f"key {body.key[:32]} is not in force for this use")
    if body.op is KeyOperation.ROTATE:
        return _rotate(state, act, key)
    if not body.proposal:
        seat = state.seats[key.member]
        if act.member != key.member or act.signers != (seat.recovery,):
            raise refuse(
                "a revocation is signed by the member's recovery key, or cites a vote", QUORUM
            )
        return _end_key(state, body.key, key)
    decision.check_executor(state, act.member, Action.REVOKE_KEY, "key.changed")
    proposal = decision.require_carried(
        state, Digest(body.proposal), body.votes, Action.REVOKE_KEY, act.at
    )
    voted = KeyTerms(member=key.member, key=body.key, reason=body.reason)
    if proposal.opened.body.terms != voted:
        raise refuse("the key is not the one that was voted on")
    return _end_key(decision.decided(state, proposal), body.key, key)


def _rotate(state: State, act: Logged[KeyChanged], old: Key) -> State:
    assert act.body.new is not None  # noqa: S101  # a rotation brings a key: KeyChanged refuses another
    new = act.body.new.verify_key
    if act.member != old.member:
        raise refuse("a member rotates its own keys")
    # The old key's signature says that its holder wants it, the new one's that the holder has it.
    if set(act.signers) != {act.body.key, new.key_id}:
        raise refuse("a rotation is signed by the old and by the new key", QUORUM)
    if new.key_id in state.keys:
        raise refuse(f"key {new.key_id} is or was on the ledger", AGAIN)
    ended = _end_key(state, act.body.key, old)
    entry = Key(member=old.member, use=old.use, verify_key=new, since=act.index)
    seat = ended.seats[old.member]
    if old.use is KeyUse.ACT:
        seat = replace(seat, acting=new.key_id)
    else:
        seat = replace(seat, recovery=new.key_id)
    renewed = replace(ended, keys=ended.keys.with_item(new.key_id, entry))
    return _with_seat(renewed, old.member, seat)


def _end_key(state: State, key_id: KeyId, key: Key) -> State:
    """End a key from this entry on; what it signed before stays valid."""
    seat = state.seats[key.member]
    seat = replace(seat, acting=None) if key.use is KeyUse.ACT else replace(seat, recovery=None)
    ended = state.keys.with_item(key_id, replace(key, until=state.size))
    return _with_seat(replace(state, keys=ended), key.member, seat)


def _with_seat(state: State, member: MemberId, seat: Seat) -> State:
    return replace(state, seats=MappingProxyType({**state.seats, member: seat}))


def _listed(charter: Charter, name: MemberId) -> Member:
    member = charter.member(name)
    if member is None:
        raise refuse(f"{name} is not a member under this charter")
    return member
