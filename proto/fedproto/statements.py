"""The acts that stand in the ledger: one envelope, one event, one leaf.

Decides the fields of each event type, strictly. No free text, no host or person names: what is on an
append-only ledger cannot be taken back. Pure.
"""

from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

from fedproto import envelope
from fedproto.errors import LocalFault
from fedproto.governance.charter import Action, Charter
from fedproto.governance.plan import RunPlan
from fedproto.identity import SigningKey
from fedproto.ids import Digest, KeyId, MemberId, RunId, is_digest, is_run_id, sha256_hex
from fedproto.jcs import Json
from fedproto.schema import from_json, to_json


class Choice(Enum):
    """A ballot's answer."""

    YES = "yes"
    NO = "no"
    ABSTAIN = "abstain"


class Outcome(Enum):
    """How a round ended."""

    AGGREGATED = "aggregated"
    ABORTED = "aborted"


class LegalBasis(Enum):
    """Why a member may train on a dataset (APPI 27-29, 30-2, 41, 43)."""

    CONSENT = "consent"
    CONTRACT = "contract"
    STATISTICAL = "statistical-exception"
    ANONYMISED = "anonymised"
    PSEUDONYMISED = "pseudonymised"
    NOT_PERSONAL = "not-personal"


def _require_digests(*digests: str) -> None:
    if not all(is_digest(digest) for digest in digests):
        raise ValueError("a digest is not 64 hex digits")


def _require_codes(*texts: str) -> None:
    """Refuse what is no short code: an append-only ledger takes no free text."""
    if not all(text.isascii() and text.isprintable() and len(text) <= 128 for text in texts):
        raise ValueError("a text is not a short code in printable ASCII")


def _require_attempt(run: str, number: int, attempt: int) -> None:
    if not is_run_id(run) or number < 1 or attempt < 1:
        raise ValueError("an attempt has a run, a round and a number, counted from 1")


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
        _require_digests(self.root)
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


@dataclass(frozen=True, slots=True, kw_only=True)
class CharterAdopted:
    """A charter comes into force, signed by every member that votes under it."""

    sha256: Digest
    charter: Charter

    def __post_init__(self) -> None:
        if self.charter.digest != self.sha256:
            raise ValueError("the digest is not that of the charter")


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseModelApproved:
    """The pretrainer releases base weights, by digest."""

    name: str
    manifest_sha256: Digest
    corpus_sha256: Digest
    licence: str
    parameters: int

    def __post_init__(self) -> None:
        _require_digests(self.manifest_sha256, self.corpus_sha256)
        _require_codes(self.name, self.licence)
        if self.parameters < 1:
            raise ValueError("base weights have parameters")


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetDeclared:
    """A member commits to a dataset without showing it; `size_bucket` is log2 of its bytes."""

    commitment: Digest
    legal_basis: LegalBasis
    purpose: str
    residency: str
    policy_sha256: Digest
    size_bucket: int

    def __post_init__(self) -> None:
        _require_digests(self.commitment, self.policy_sha256)
        _require_codes(self.purpose, self.residency)
        if not 0 <= self.size_bucket <= 63:
            raise ValueError("a size bucket is a power of two, 0 to 63")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposalOpened:
    """An administrator puts a plan to the vote."""

    action: Action
    plan: RunPlan
    plan_sha256: Digest
    closes_at: int

    def __post_init__(self) -> None:
        if self.plan.digest != self.plan_sha256:
            raise ValueError("the plan hash is not that of the plan")


@dataclass(frozen=True, slots=True, kw_only=True)
class VoteCast:
    """A member's ballot, bound to one proposal (by leaf hash) and to its plan hash."""

    proposal: Digest
    plan_sha256: Digest
    choice: Choice

    def __post_init__(self) -> None:
        _require_digests(self.proposal, self.plan_sha256)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunApproved:
    """The mandate: a carried proposal, its votes (leaf hashes) and the members that take part."""

    run: RunId
    proposal: Digest
    votes: tuple[Digest, ...]
    members: tuple[MemberId, ...]
    plan: RunPlan
    plan_sha256: Digest
    not_before: int
    not_after: int

    def __post_init__(self) -> None:
        _require_digests(self.proposal, *self.votes)
        if not is_run_id(self.run):
            raise ValueError("a run id is 32 hex digits")
        if self.plan.digest != self.plan_sha256:
            raise ValueError("the plan hash is not that of the plan")
        if not self.not_before < self.not_after:
            raise ValueError("the mandate's term is empty")


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundStarted:
    """The coordinator opens one attempt at a round under a mandate."""

    run: RunId
    round: int
    attempt: int
    authorisation_sha256: Digest
    model_in: Digest
    invited: tuple[MemberId, ...]

    def __post_init__(self) -> None:
        _require_digests(self.authorisation_sha256, self.model_in)
        _require_attempt(self.run, self.round, self.attempt)


@dataclass(frozen=True, slots=True, kw_only=True)
class ParticipationSigned:
    """A member's receipt: what it gave to one attempt, as the digest of its masked upload."""

    run: RunId
    round: int
    attempt: int
    authorisation_sha256: Digest
    dataset: Digest
    upload_sha256: Digest
    upload_bytes: int

    def __post_init__(self) -> None:
        _require_digests(self.authorisation_sha256, self.dataset, self.upload_sha256)
        _require_attempt(self.run, self.round, self.attempt)
        if self.upload_bytes < 0:
            raise ValueError("an upload has no negative length")


@dataclass(frozen=True, slots=True, kw_only=True)
class Excluded:
    """A member that was invited but is not in the sum, and the error code that says why."""

    member: MemberId
    reason: str

    def __post_init__(self) -> None:
        _require_codes(self.reason)


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundClosed:
    """The round record: who is in the sum, and the adapter that it led to."""

    run: RunId
    round: int
    attempt: int
    outcome: Outcome
    reason: str
    model_in: Digest
    model_out: Digest
    transcript_sha256: Digest
    included: tuple[MemberId, ...]
    excluded: tuple[Excluded, ...]

    def __post_init__(self) -> None:
        _require_digests(self.model_in, self.model_out, self.transcript_sha256)
        _require_attempt(self.run, self.round, self.attempt)
        _require_codes(self.reason)


Body: TypeAlias = (
    CharterAdopted
    | BaseModelApproved
    | DatasetDeclared
    | ProposalOpened
    | VoteCast
    | RunApproved
    | RoundStarted
    | ParticipationSigned
    | RoundClosed
)

BODIES: dict[str, type[Body]] = {
    "charter.adopted": CharterAdopted,
    "base_model.approved": BaseModelApproved,
    "dataset.declared": DatasetDeclared,
    "proposal.opened": ProposalOpened,
    "vote.cast": VoteCast,
    "run.approved": RunApproved,
    "round.started": RoundStarted,
    "participation.signed": ParticipationSigned,
    "round.closed": RoundClosed,
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
        _require_digests(self.charter)
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
    opened = envelope.open_envelope(leaf, envelope.EVENT_TYPE, resolve)
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
