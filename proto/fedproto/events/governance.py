"""Acts of self-government: charters, seats, keys, proposals, ballots, standing and emergencies.

Decides the fields of each act, strictly. What it takes to be admitted is the ledger's state to say. Pure.
"""

from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

from fedproto import jcs
from fedproto.events.codes import (
    require_codes,
    require_decision,
    require_digests,
    require_members,
)
from fedproto.events.models import BaseModel, ReleaseTerms, RevocationTerms
from fedproto.governance.charter import Action, Charter
from fedproto.governance.plan import RunPlan
from fedproto.identity import ALGORITHM, VerifyKey
from fedproto.ids import Digest, KeyId, MemberId, sha256_hex
from fedproto.schema import to_json


class Choice(Enum):
    """A ballot's answer."""

    YES = "yes"
    NO = "no"
    ABSTAIN = "abstain"
    VETO = "veto"


class Standing(Enum):
    """Whether a member's acts count."""

    ACTIVE = "active"
    SUSPENDED = "suspended"
    WITHDRAWN = "withdrawn"
    EXPELLED = "expelled"


class KeyUse(Enum):
    """What a key is for."""

    ACT = "act"
    RECOVERY = "recovery"


class KeyOperation(Enum):
    """How a key came or went."""

    ROTATE = "rotate"
    REVOKE = "revoke"


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicKey:
    """A hybrid key as it stands in the ledger."""

    alg: str
    pub: str

    def __post_init__(self) -> None:
        if self.alg != ALGORITHM:
            raise ValueError(f"key algorithm {self.alg!r} is not {ALGORITHM}")
        VerifyKey.from_text(self.pub)

    @property
    def verify_key(self) -> VerifyKey:
        """The key itself."""
        return VerifyKey.from_text(self.pub)

    @classmethod
    def of(cls, key: VerifyKey) -> "PublicKey":
        """Return a key's form in the ledger."""
        return cls(alg=ALGORITHM, pub=key.to_text())


@dataclass(frozen=True, slots=True, kw_only=True)
class CharterAdopted:
    """A charter comes into force.

    The first one brings the operator's key, by which the ledger starts; each member then takes its
    own seat. A later one cites the proposal that carried it.
    """

    sha256: Digest
    charter: Charter
    operator_key: PublicKey | None
    proposal: str
    votes: tuple[Digest, ...]

    def __post_init__(self) -> None:
        if self.charter.digest != self.sha256:
            raise ValueError("the digest is not that of the charter")
        if (self.operator_key is None) != bool(self.proposal):
            raise ValueError(
                "the first charter brings the operator's key, a later one cites a vote"
            )
        if self.proposal:
            require_decision(self.proposal, self.votes)
        elif self.votes:
            raise ValueError("the first charter cites no votes")


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberAdmitted:
    """A member takes its seat: it consents to the charter, with the keys that the charter names."""

    acting: PublicKey
    recovery: PublicKey | None


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberStatus:
    """A member's standing changes: by its own withdrawal, or by a vote of the others."""

    member: MemberId
    standing: Standing
    proposal: str
    votes: tuple[Digest, ...]

    def __post_init__(self) -> None:
        require_members(self.member)
        if self.proposal:
            require_decision(self.proposal, self.votes)
        elif self.standing is not Standing.WITHDRAWN or self.votes:
            raise ValueError("only a withdrawal needs no vote")


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyChanged:
    """A key is replaced (signed by the old and the new one) or ended from this entry on.

    A revocation is signed by the member's recovery key, or cites the vote of the others.
    """

    op: KeyOperation
    use: KeyUse
    key: KeyId
    new: PublicKey | None
    reason: str
    proposal: str
    votes: tuple[Digest, ...]

    def __post_init__(self) -> None:
        require_codes(self.key, self.reason)
        if (self.op is KeyOperation.ROTATE) != (self.new is not None):
            raise ValueError("a rotation brings a key, a revocation brings none")
        if self.proposal:
            require_decision(self.proposal, self.votes)
        elif self.votes:
            raise ValueError("votes without a proposal decide nothing")
        if self.proposal and self.op is KeyOperation.ROTATE:
            raise ValueError("nobody rotates another's key")


@dataclass(frozen=True, slots=True, kw_only=True)
class CharterTerms:
    """An amendment as it is put to the vote: the whole new charter."""

    charter: Charter


@dataclass(frozen=True, slots=True, kw_only=True)
class StandingTerms:
    """A change of a member's standing as it is put to the vote of the others."""

    member: MemberId
    standing: Standing

    def __post_init__(self) -> None:
        require_members(self.member)
        if self.standing is Standing.WITHDRAWN:
            raise ValueError("a member withdraws by itself")


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyTerms:
    """The end of a member's key as it is put to the vote of the others."""

    member: MemberId
    key: KeyId
    reason: str

    def __post_init__(self) -> None:
        require_members(self.member)
        require_codes(self.key, self.reason)


@dataclass(frozen=True, slots=True, kw_only=True)
class ResumeTerms:
    """The end of an emergency stop, named by its leaf."""

    stop: Digest

    def __post_init__(self) -> None:
        require_digests(self.stop)


Terms: TypeAlias = (
    RunPlan
    | CharterTerms
    | BaseModel
    | StandingTerms
    | KeyTerms
    | ReleaseTerms
    | RevocationTerms
    | ResumeTerms
)

TERMS_OF: dict[Action, type[Terms]] = {
    Action.APPROVE_RUN: RunPlan,
    Action.AMEND_CHARTER: CharterTerms,
    Action.APPROVE_BASE_MODEL: BaseModel,
    Action.CHANGE_STANDING: StandingTerms,
    Action.REVOKE_KEY: KeyTerms,
    Action.APPROVE_RELEASE: ReleaseTerms,
    Action.REVOKE_RELEASE: RevocationTerms,
    Action.RESUME: ResumeTerms,
}


def digest_of(terms: Terms) -> Digest:
    """Return the SHA-256 of the canonical JSON of what is put to the vote; for a run, its plan hash."""
    return sha256_hex(jcs.dumps(to_json(terms)))


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposalOpened:
    """Something is put to the vote, whole. `closes_at` is in ms."""

    action: Action
    terms: Terms
    terms_sha256: Digest
    closes_at: int

    def __post_init__(self) -> None:
        if TERMS_OF.get(self.action) is not type(self.terms):
            raise ValueError(f"{self.action.value} is not proposed with such terms")
        if digest_of(self.terms) != self.terms_sha256:
            raise ValueError("the digest is not that of the terms")

    @property
    def plan(self) -> RunPlan | None:
        """The plan, where a run is proposed."""
        return self.terms if isinstance(self.terms, RunPlan) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class VoteCast:
    """A member's ballot, bound to one proposal (by leaf hash) and to its terms.

    A veto gives its reason as a commitment: the text stays with who may read it.
    """

    proposal: Digest
    terms_sha256: Digest
    choice: Choice
    reason: str

    def __post_init__(self) -> None:
        require_digests(self.proposal, self.terms_sha256, *filter(None, (self.reason,)))
        if self.choice is Choice.VETO and not self.reason:
            raise ValueError("a veto gives its reason")


class Closing(Enum):
    """How a proposal ended that was not carried out."""

    REJECTED = "rejected"
    VETOED = "vetoed"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposalClosed:
    """A proposal ended without effect; `votes` are all its ballots."""

    proposal: Digest
    outcome: Closing
    votes: tuple[Digest, ...]

    def __post_init__(self) -> None:
        require_decision(self.proposal, self.votes)


@dataclass(frozen=True, slots=True, kw_only=True)
class EmergencyStopped:
    """Work stops at once, in one run or (with an empty `run`) everywhere."""

    run: str
    reason: str

    def __post_init__(self) -> None:
        require_codes(self.run, self.reason)


@dataclass(frozen=True, slots=True, kw_only=True)
class EmergencyResumed:
    """A stop ends, by the vote that it cites."""

    stop: Digest
    proposal: Digest
    votes: tuple[Digest, ...]

    def __post_init__(self) -> None:
        require_digests(self.stop)
        require_decision(self.proposal, self.votes)


@dataclass(frozen=True, slots=True, kw_only=True)
class ActRefused:
    """The operator refused an act that a member had signed: which, by digest, and by what rule."""

    member: MemberId
    kind: str
    sha256: Digest
    code: str

    def __post_init__(self) -> None:
        require_members(self.member)
        require_digests(self.sha256)
        require_codes(self.kind, self.code)
