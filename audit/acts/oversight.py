"""The rules of the acts by which the ledger answers for itself.

Decides one event type each, on top of the common checks of `audit.state`. Trusts only admitted acts.
Every refusal raises RNM-GOV-*. Pure.
"""

from dataclasses import replace

from audit.checkpoint import open_checkpoint
from audit.decision import AGAIN
from audit.policy import policy_of
from audit.records import Anchor, Logged, State
from audit.summary import state_digest
from fedproto.errors import LocalFault
from fedproto.events.oversight import (
    AccessGranted,
    AnchorKind,
    AnchorMade,
    ErasureDone,
    ExportIssued,
    IncidentReported,
    LogContinued,
    RemediationDone,
    SoftwareDeployed,
    StatementAttached,
    StateSnapshot,
)
from fedproto.governance.charter import Role
from fedproto.governance.rules import check_roles, refuse

_ANYONE = tuple(role for role in Role if role is not Role.OBSERVER)


def make_anchor(state: State, act: Logged[AnchorMade]) -> State:
    """A cosigned checkpoint moves the log's clock, to the median of its witnesses' times."""
    check_roles(state.charter, act.member, (Role.OPERATOR, Role.AUDITOR), "anchor.made")
    body = act.body
    if body.size > state.size:
        raise refuse(f"the anchor covers {body.size} entries, this log has {state.size}")
    if body.kind is not AnchorKind.WITNESSED:
        return state
    if state.anchors and body.size <= state.anchors[-1].size:
        raise refuse(f"an anchor of size {state.anchors[-1].size} is in the ledger", AGAIN)
    anchor = Anchor(index=act.index, size=body.size, time_s=_witnessed_time(state, body))
    if anchor.time_s < state.clock_s:
        raise refuse("the anchor would set the log's clock back")
    return replace(state, anchors=(*state.anchors, anchor))


def _witnessed_time(state: State, body: AnchorMade) -> int:
    """Return the median time of the witnesses; less than half of them cannot move it beyond others'."""
    policy = policy_of(state.charter_at(body.size))
    try:
        signed = open_checkpoint(body.note.encode(), policy.log, policy.origin)
        cosigned = policy.check_quorum(signed)
    except LocalFault as fault:
        raise refuse(f"the anchor's note does not verify: {fault.why}") from None
    if (signed.head.size, signed.head.root) != (body.size, state.root_at(body.size)):
        raise refuse("the anchor's note is of another tree")
    if len(signed.note.lines) != 1 + len(cosigned.cosignatures):
        raise refuse("the anchor's note carries lines that are not its witnesses'")
    times = sorted(item.timestamp for item in cosigned.cosignatures)
    return times[(len(times) - 1) // 2]


def take_snapshot(state: State, act: Logged[StateSnapshot]) -> State:
    """A digest of the state before this entry; refused unless it is just that."""
    check_roles(state.charter, act.member, (Role.OPERATOR,), "state.snapshot")
    if act.body.size != state.size:
        raise refuse(f"the snapshot is of size {act.body.size}, this log has {state.size}")
    if act.body.state_sha256 != state_digest(state):
        raise refuse("the snapshot is not the digest of this state")
    return state


def continue_log(state: State, act: Logged[LogContinued]) -> State:
    """This log goes on from another; said before any member takes its seat, so that all consent."""
    check_roles(state.charter, act.member, (Role.OPERATOR,), "log.continued")
    if state.size != 1:
        raise refuse("a log says where it continues from in its second entry")
    if act.body.origin == state.charter.origin:
        raise refuse("a log does not continue itself")
    return state


def grant_access(state: State, act: Logged[AccessGranted]) -> State:
    """A class of content is opened to a party, by the operator or an administrator."""
    check_roles(state.charter, act.member, (Role.OPERATOR, Role.ADMINISTRATOR), "access.granted")
    body = act.body
    if state.charter.member(body.grantee) is None:
        raise refuse(f"{body.grantee} is not a member under this charter")
    if body.content not in state.charter.disclosure:
        raise refuse(f"the charter knows no class {body.content!r}")
    check_roles(
        state.charter, body.grantee, state.charter.disclosure[body.content], "this class of content"
    )
    if body.until <= act.at:
        raise refuse("the access ends before it begins")
    return state


def issue_export(state: State, act: Logged[ExportIssued]) -> State:
    """A bundle left the ledger; whoever made it says so."""
    check_roles(state.charter, act.member, _ANYONE, "export.issued")
    body = act.body
    if body.size > state.size:
        raise refuse(f"the bundle holds {body.size} entries, this log has {state.size}")
    if state.charter.member(body.recipient) is None:
        raise refuse(f"{body.recipient} is not a member under this charter")
    return state


def report_incident(state: State, act: Logged[IncidentReported]) -> State:
    """Anyone on the roster may report; what happened stays behind the commitment."""
    check_roles(state.charter, act.member, _ANYONE, "incident.reported")
    return state


def remedy(state: State, act: Logged[RemediationDone]) -> State:
    """What was done about an entry that is in the ledger."""
    check_roles(state.charter, act.member, _ANYONE, "remediation.done")
    if act.body.cause not in state.leaves:
        raise refuse(f"there is no entry {act.body.cause[:16]}")
    return state


def erase(state: State, act: Logged[ErasureDone]) -> State:
    """The content behind a commitment is gone, once; by whom it belonged to, if it is a dataset's."""
    check_roles(state.charter, act.member, _ANYONE, "erasure.done")
    commitment = act.body.commitment
    if commitment in state.erased:
        raise refuse(f"commitment {commitment[:16]} is erased already", AGAIN)
    dataset = state.datasets.get(commitment)
    if dataset is not None and dataset.declared.member != act.member:
        raise refuse(f"dataset {commitment[:16]} belongs to {dataset.declared.member}")
    return replace(state, erased=state.erased.with_item(commitment, act.index))


def attach_statement(state: State, act: Logged[StatementAttached]) -> State:
    """A statement of another format about an artifact is kept by who attached it."""
    check_roles(state.charter, act.member, _ANYONE, "statement.attached")
    return state


def deploy_software(state: State, act: Logged[SoftwareDeployed]) -> State:
    """A party says what it runs."""
    check_roles(state.charter, act.member, _ANYONE, "software.deployed")
    return state
