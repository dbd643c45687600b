"""Acts that make the ledger answer for itself: time, snapshots, access, exports, incidents, erasure.

Decides the fields of each act, strictly. Pure.
"""

from dataclasses import dataclass
from enum import Enum

from fedproto.events.codes import require_bucket, require_codes, require_digests, require_members
from fedproto.ids import Digest, MemberId

MAX_ANCHOR = 24_576


class AnchorKind(Enum):
    """What vouches for a time: the log's own witnesses, a time-stamping authority, another log."""

    WITNESSED = "witnessed"
    RFC3161 = "rfc3161"
    LOG = "log"


class Method(Enum):
    """How an incident or a withdrawal was remedied."""

    RETRAINED = "retrain"
    REAGGREGATED = "reaggregate"
    REVOKED = "revoke"
    ACCEPTED = "accepted"


class Authority(Enum):
    """Why a committed content was erased."""

    RETENTION = "retention"
    DATA_SUBJECT = "data-subject"
    COURT = "court"
    CONTRACT = "contract"


@dataclass(frozen=True, slots=True, kw_only=True)
class AnchorMade:
    """The log's own clock: a cosigned checkpoint of this log, or a token by others over its root.

    For `witnessed`, `note` is the checkpoint of `size` with its cosignatures; their median time moves
    the log's clock. For the others `note` is empty and `token_sha256` names the token.
    """

    kind: AnchorKind
    size: int
    note: str
    token_sha256: str

    def __post_init__(self) -> None:
        if self.size < 1 or len(self.note) > MAX_ANCHOR:
            raise ValueError("an anchor covers entries, and its note is not larger than needed")
        if (self.kind is AnchorKind.WITNESSED) != bool(self.note):
            raise ValueError("a witnessed anchor brings its note, others bring none")
        if (self.kind is AnchorKind.WITNESSED) == bool(self.token_sha256):
            raise ValueError("an anchor by others names its token, a witnessed one has none")
        require_digests(*filter(None, (self.token_sha256,)))


@dataclass(frozen=True, slots=True, kw_only=True)
class StateSnapshot:
    """What the state was when the log had `size` entries, for readers that compare their own."""

    size: int
    state_sha256: Digest

    def __post_init__(self) -> None:
        require_digests(self.state_sha256)
        if self.size < 1:
            raise ValueError("a snapshot is of a log with entries")


@dataclass(frozen=True, slots=True, kw_only=True)
class LogContinued:
    """This log goes on from another, whose last cosigned checkpoint is named by digest."""

    origin: str
    size: int
    root: Digest
    log_vkey: str

    def __post_init__(self) -> None:
        require_codes(self.origin, self.log_vkey)
        require_digests(self.root)
        if self.size < 1:
            raise ValueError("a log that goes on had entries")


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessGranted:
    """A party may read a class of content until a time (ms)."""

    grantee: MemberId
    content: str
    until: int

    def __post_init__(self) -> None:
        require_members(self.grantee)
        require_codes(self.content)
        if self.until < 1:
            raise ValueError("access ends at a time")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportIssued:
    """A bundle of the log's first `size` entries was handed out."""

    recipient: MemberId
    bundle_sha256: Digest
    size: int

    def __post_init__(self) -> None:
        require_members(self.recipient)
        require_digests(self.bundle_sha256)
        if self.size < 1:
            raise ValueError("a bundle holds entries")


@dataclass(frozen=True, slots=True, kw_only=True)
class IncidentReported:
    """Something went wrong; what, is behind a commitment. Severity 1 (low) to 4."""

    category: str
    severity: int
    report: Digest

    def __post_init__(self) -> None:
        require_codes(self.category)
        require_digests(self.report)
        if not 1 <= self.severity <= 4:
            raise ValueError("a severity is 1 to 4")


@dataclass(frozen=True, slots=True, kw_only=True)
class RemediationDone:
    """What was done about an incident, a withdrawal or a revocation, named by its leaf."""

    cause: Digest
    method: Method
    evidence: Digest

    def __post_init__(self) -> None:
        require_digests(self.cause, self.evidence)


@dataclass(frozen=True, slots=True, kw_only=True)
class ErasureDone:
    """The salt and content behind a commitment are gone; what is left is a number."""

    commitment: Digest
    authority: Authority

    def __post_init__(self) -> None:
        require_digests(self.commitment)


@dataclass(frozen=True, slots=True, kw_only=True)
class StatementAttached:
    """A statement of another format (in-toto, SBOM) about a digest is kept, by its own digest."""

    subject: Digest
    predicate_type: str
    sha256: Digest

    def __post_init__(self) -> None:
        require_digests(self.subject, self.sha256)
        require_codes(self.predicate_type)


@dataclass(frozen=True, slots=True, kw_only=True)
class SoftwareDeployed:
    """A party runs a build of a component; `size_bucket` is log2 of its bytes."""

    component: str
    image_sha256: Digest
    provenance_sha256: Digest
    size_bucket: int

    def __post_init__(self) -> None:
        require_codes(self.component)
        require_digests(self.image_sha256, self.provenance_sha256)
        require_bucket(self.size_bucket)
