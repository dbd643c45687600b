"""The acts that stand in the ledger: one envelope, one event, one leaf.

Decides what every act says besides its body, and which bodies there are (`fedproto.events`). Trusts no
payload before its envelope verified. Pure.
"""

from dataclasses import dataclass
from typing import TypeAlias

from fedproto import envelope
from fedproto.errors import LocalFault
from fedproto.events.codes import require_digests
from fedproto.events.governance import (
    ActRefused,
    CharterAdopted,
    EmergencyResumed,
    EmergencyStopped,
    KeyChanged,
    MemberAdmitted,
    MemberStatus,
    ProposalClosed,
    ProposalOpened,
    VoteCast,
)
from fedproto.events.models import (
    BaseModelApproved,
    DatasetDeclared,
    DatasetWithdrawn,
    EvaluationAttested,
    ReleaseApproved,
    ReleaseRevoked,
)
from fedproto.events.oversight import (
    AccessGranted,
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
from fedproto.events.rounds import (
    BudgetSpent,
    ParticipationSigned,
    RoundClosed,
    RoundStarted,
    RunApproved,
    SumAudited,
    UpdateCommitted,
)
from fedproto.identity import SigningKey
from fedproto.ids import Digest, KeyId, MemberId, is_run_id, sha256_hex
from fedproto.jcs import Json
from fedproto.schema import from_json, to_json


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """Who acts, with which key."""

    member: MemberId
    key: KeyId


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """Size and root of the last checkpoint that the signer verified: split views show in the log."""

    size: int
    root: Digest

    def __post_init__(self) -> None:
        require_digests(self.root)
        if self.size < 0:
            raise ValueError("a log's size is not negative")


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """W3C trace and span id of the act; zeros where tracing is off."""

    trace_id: str
    span_id: str

    def __post_init__(self) -> None:
        for text, length in ((self.trace_id, 32), (self.span_id, 16)):
            if len(text) != length or set(text) - set("0123456789abcdef"):
                raise ValueError("a trace or span id is not lower-case hex of its length")


Body: TypeAlias = (
    CharterAdopted
    | MemberAdmitted
    | MemberStatus
    | KeyChanged
    | ProposalOpened
    | VoteCast
    | ProposalClosed
    | EmergencyStopped
    | EmergencyResumed
    | ActRefused
    | BaseModelApproved
    | DatasetDeclared
    | DatasetWithdrawn
    | EvaluationAttested
    | ReleaseApproved
    | ReleaseRevoked
    | RunApproved
    | RoundStarted
    | UpdateCommitted
    | ParticipationSigned
    | RoundClosed
    | SumAudited
    | BudgetSpent
    | AnchorMade
    | StateSnapshot
    | LogContinued
    | AccessGranted
    | ExportIssued
    | IncidentReported
    | RemediationDone
    | ErasureDone
    | StatementAttached
    | SoftwareDeployed
)

BODIES: dict[str, type[Body]] = {
    "charter.adopted": CharterAdopted,
    "member.admitted": MemberAdmitted,
    "member.status": MemberStatus,
    "key.changed": KeyChanged,
    "proposal.opened": ProposalOpened,
    "vote.cast": VoteCast,
    "proposal.closed": ProposalClosed,
    "emergency.stopped": EmergencyStopped,
    "emergency.resumed": EmergencyResumed,
    "act.refused": ActRefused,
    "base_model.approved": BaseModelApproved,
    "dataset.declared": DatasetDeclared,
    "dataset.withdrawn": DatasetWithdrawn,
    "evaluation.attested": EvaluationAttested,
    "release.approved": ReleaseApproved,
    "release.revoked": ReleaseRevoked,
    "run.approved": RunApproved,
    "round.started": RoundStarted,
    "update.committed": UpdateCommitted,
    "participation.signed": ParticipationSigned,
    "round.closed": RoundClosed,
    "sum.audited": SumAudited,
    "budget.spent": BudgetSpent,
    "anchor.made": AnchorMade,
    "state.snapshot": StateSnapshot,
    "log.continued": LogContinued,
    "access.granted": AccessGranted,
    "export.issued": ExportIssued,
    "incident.reported": IncidentReported,
    "remediation.done": RemediationDone,
    "erasure.done": ErasureDone,
    "statement.attached": StatementAttached,
    "software.deployed": SoftwareDeployed,
}
_TYPE_OF = {cls: name for name, cls in BODIES.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """What every act says besides its body. `at` is the signer's clock in ms: a claim, not proof."""

    log: str
    id: str
    at: int
    actor: Actor
    charter: Digest
    head: Head
    trace: Trace
    body: Body

    def __post_init__(self) -> None:
        require_digests(self.charter)
        if not is_run_id(self.id) or self.at < 0:
            raise ValueError("an event has a 128-bit id and a time")

    @property
    def type(self) -> str:
        """The event type, for example `vote.cast`."""
        return _TYPE_OF[type(self.body)]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Common:
    """The wire fields of an event, its body not yet read."""

    v: int
    log: str
    id: str
    type: str
    at: int
    actor: Actor
    charter: Digest
    head: Head
    trace: Trace


_SHARED = ("log", "id", "at", "actor", "charter", "head", "trace")


def event_to_json(event: Event) -> Json:
    """Return the payload of an event."""
    shared = {name: getattr(event, name) for name in _SHARED}
    common = _Common(v=1, type=event.type, **shared)
    fields = to_json(common)
    assert isinstance(fields, dict)  # noqa: S101  # a dataclass always becomes an object
    return {**fields, "body": to_json(event.body)}


def event_from_json(payload: Json) -> Event:
    """Read a payload strictly; raise RNM-FORM-0002 on any difference."""
    if not isinstance(payload, dict) or "body" not in payload:
        raise _unreadable("it is not an event with a body")
    common = from_json(_Common, {k: v for k, v in payload.items() if k != "body"}, "event")
    body_class = BODIES.get(common.type)
    if common.v != 1 or body_class is None:
        raise _unreadable(f"version {common.v} of type {common.type!r} is not known here")
    body: Body = from_json(body_class, payload["body"], common.type)
    try:
        return Event(**{name: getattr(common, name) for name in _SHARED}, body=body)
    except ValueError as error:
        raise _unreadable(str(error)) from None


def _unreadable(why: str) -> LocalFault:
    return LocalFault(
        "RNM-FORM-0002",
        what="a ledger entry was refused",
        why=why,
        mend="both sides need versions of Renmei that speak the same format; upgrade the older one",
    )


def seal_event(event: Event, keys: tuple[SigningKey, ...]) -> bytes:
    """Return the leaf of an event: its signed envelope."""
    return envelope.seal(envelope.EVENT_TYPE, event_to_json(event), keys)


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedEvent:
    """An event whose signatures were verified; `signers` are the keys that made them."""

    event: Event
    signers: tuple[KeyId, ...]


def open_event(leaf: bytes, resolve: envelope.Resolver) -> SignedEvent:
    """Verify a leaf and read its event.

    Raises:
        LocalFault: RNM-SIG-*, RNM-FORM-* as `open_envelope`; RNM-SIG-0002 if the actor did not sign.
    """
    return read_event(envelope.open_envelope(leaf, envelope.EVENT_TYPE, resolve))


def read_event(opened: envelope.Opened) -> SignedEvent:
    """Read the event of an envelope that was verified.

    Raises:
        LocalFault: RNM-FORM-0002 it is not of this format; RNM-SIG-0002 the actor did not sign.
    """
    event = event_from_json(opened.payload)
    if event.actor.key not in opened.signers:
        raise LocalFault(
            "RNM-SIG-0002",
            what=f"a {event.type} entry was refused",
            why=f"its actor {event.actor.member} did not sign it",
            mend="the actor signs its own acts",
        )
    return SignedEvent(event=event, signers=opened.signers)


def leaf_id(leaf: bytes) -> Digest:
    """Return the RFC 6962 leaf hash, by which entries refer to each other."""
    return sha256_hex(b"\x00" + leaf)
