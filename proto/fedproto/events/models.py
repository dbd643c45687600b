"""Acts on what the consortium makes and uses: base weights, datasets, evaluations and releases.

Decides the fields of each act, strictly. A dataset is a commitment, a model a digest. Pure.
"""

import re
from dataclasses import dataclass
from enum import Enum

from fedproto.events.codes import (
    require_bucket,
    require_codes,
    require_decision,
    require_digests,
    require_sorted,
)
from fedproto.ids import Digest, RunId, is_run_id

_DECIMAL = re.compile(r"-?(0|[1-9][0-9]{0,11})(\.[0-9]{1,9})?")
MAX_METRICS = 64


class LegalBasis(Enum):
    """Why a member may train on a dataset (APPI 27-29, 30-2, 41, 43)."""

    CONSENT = "consent"
    CONTRACT = "contract"
    ENTRUSTMENT = "entrustment"
    JOINT_USE = "joint-use"
    STATISTICAL = "statistical-exception"
    ANONYMISED = "anonymised"
    PSEUDONYMISED = "pseudonymised"
    NOT_PERSONAL = "not-personal"


class Remedy(Enum):
    """What is done about models made from a dataset that was withdrawn."""

    NONE_MADE = "none-made"
    TO_BE_VOTED = "to-be-voted"


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseModel:
    """Base weights, by the digests of their manifest and of their corpus."""

    name: str
    manifest_sha256: Digest
    corpus_sha256: Digest
    licence: str
    parameters: int

    def __post_init__(self) -> None:
        require_digests(self.manifest_sha256, self.corpus_sha256)
        require_codes(self.name, self.licence)
        if self.parameters < 1:
            raise ValueError("base weights have parameters")


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseModelApproved:
    """Base weights may be built on; cites its vote where the charter asks for one."""

    model: BaseModel
    proposal: str
    votes: tuple[Digest, ...]

    def __post_init__(self) -> None:
        if self.proposal:
            require_decision(self.proposal, self.votes)
        elif self.votes:
            raise ValueError("votes without a proposal decide nothing")

    @property
    def manifest_sha256(self) -> Digest:
        """The digest under which the weights are known."""
        return self.model.manifest_sha256


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetDeclared:
    """A member commits to a dataset without showing it; `size_bucket` is log2 of its bytes."""

    commitment: Digest
    legal_basis: LegalBasis
    purpose: str
    residency: str
    licence: str
    policy_sha256: Digest
    size_bucket: int

    def __post_init__(self) -> None:
        require_digests(self.commitment, self.policy_sha256)
        require_codes(self.purpose, self.residency, self.licence)
        require_bucket(self.size_bucket)


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetWithdrawn:
    """A dataset is out of use from this entry on; models that it fed are flagged, not unmade."""

    commitment: Digest
    reason: str
    remedy: Remedy

    def __post_init__(self) -> None:
        require_digests(self.commitment)
        require_codes(self.reason)


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationAttested:
    """A member's measurement of an adapter or a base model; figures are decimal texts, for a ledger holds no float."""

    artifact: Digest
    suite_sha256: Digest
    report_sha256: Digest
    metrics: dict[str, str]

    def __post_init__(self) -> None:
        require_digests(self.artifact, self.suite_sha256, self.report_sha256)
        require_codes(*self.metrics)
        if not 1 <= len(self.metrics) <= MAX_METRICS:
            raise ValueError(f"an evaluation has one to {MAX_METRICS} figures")
        if not all(_DECIMAL.fullmatch(figure) for figure in self.metrics.values()):
            raise ValueError("a figure is not a plain decimal number")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseTerms:
    """A release as it is put to the vote: an adapter of one run, and where it may go."""

    artifact: Digest
    made_by: RunId
    channels: tuple[str, ...]
    conditions_sha256: Digest

    def __post_init__(self) -> None:
        require_digests(self.artifact, self.conditions_sha256)
        require_codes(*self.channels)
        require_sorted(self.channels, "channels")
        if not self.channels or not is_run_id(self.made_by):
            raise ValueError("a release names the run that made it, and a channel")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseApproved:
    """An adapter may be used; cites the vote and the evaluations that it rests on."""

    release: ReleaseTerms
    evaluations: tuple[Digest, ...]
    proposal: Digest
    votes: tuple[Digest, ...]

    def __post_init__(self) -> None:
        require_digests(*self.evaluations)
        require_sorted(self.evaluations, "the evaluations that a release rests on")
        require_decision(self.proposal, self.votes)


@dataclass(frozen=True, slots=True, kw_only=True)
class RevocationTerms:
    """The end of a release (by its leaf) as it is put to the vote; severity 1 (low) to 4."""

    release: Digest
    reason: str
    severity: int

    def __post_init__(self) -> None:
        require_digests(self.release)
        require_codes(self.reason)
        if not 1 <= self.severity <= 4:
            raise ValueError("a severity is 1 to 4")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseRevoked:
    """A release ends at once, by the vote that it cites."""

    revocation: RevocationTerms
    proposal: Digest
    votes: tuple[Digest, ...]

    def __post_init__(self) -> None:
        require_decision(self.proposal, self.votes)
