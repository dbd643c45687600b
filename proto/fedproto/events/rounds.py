"""Acts of a run: its mandate, its rounds, receipts, commitments, records and spent privacy.

Decides the fields of each act, strictly. Nothing here tells one member's delta, norm or loss. Pure.
"""

from dataclasses import dataclass
from enum import Enum

from fedproto.events.codes import require_attempt, require_bucket, require_codes, require_digests
from fedproto.governance.plan import RunPlan
from fedproto.ids import Digest, MemberId, RunId, is_run_id


class Outcome(Enum):
    """How a round ended."""

    AGGREGATED = "aggregated"
    ABORTED = "aborted"


class Verdict(Enum):
    """What an audit of a sum found."""

    MATCHES = "matches"
    REFUSED = "refused"


class Accountant(Enum):
    """How privacy was accounted."""

    PLD = "pld"
    RDP = "rdp"


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
        require_digests(self.proposal, *self.votes)
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
        require_digests(self.authorisation_sha256, self.model_in)
        require_attempt(self.run, self.round, self.attempt)


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateCommitted:
    """A member commits to an update before its sum is known, salted so that nobody can test a guess."""

    run: RunId
    round: int
    attempt: int
    commitment: Digest
    clip_milli: int
    size_bucket: int
    steps_bucket: int

    def __post_init__(self) -> None:
        require_digests(self.commitment)
        require_attempt(self.run, self.round, self.attempt)
        require_bucket(self.size_bucket)
        require_bucket(self.steps_bucket)
        if self.clip_milli < 1:
            raise ValueError("a clipping norm is positive")


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
        require_digests(self.authorisation_sha256, self.dataset, self.upload_sha256)
        require_attempt(self.run, self.round, self.attempt)
        if self.upload_bytes < 0:
            raise ValueError("an upload has no negative length")


@dataclass(frozen=True, slots=True, kw_only=True)
class SumAudited:
    """A member of a sum added its slice, `chunks` of the sum, up again from the signed uploads."""

    run: RunId
    round: int
    attempt: int
    transcript_sha256: Digest
    verdict: Verdict
    chunks: int

    def __post_init__(self) -> None:
        require_digests(self.transcript_sha256)
        require_attempt(self.run, self.round, self.attempt)
        if self.chunks < 0:
            raise ValueError("a slice has no negative length")


@dataclass(frozen=True, slots=True, kw_only=True)
class Excluded:
    """A member that was invited but is not in the sum, and the error code that says why."""

    member: MemberId
    reason: str

    def __post_init__(self) -> None:
        require_codes(self.reason)


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundClosed:
    """The round record: who is in the sum, and the adapter that it led to.

    `groups` are the members of each sum where the cohort is summed in groups; `transcript_sha256` is
    the digest over all their transcripts.
    """

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
    groups: tuple[tuple[MemberId, ...], ...] = ()

    def __post_init__(self) -> None:
        require_digests(self.model_in, self.model_out, self.transcript_sha256)
        require_attempt(self.run, self.round, self.attempt)
        require_codes(self.reason)
        if len(self.groups) == 1 or not all(self.groups):
            raise ValueError("groups are several, and none is empty")


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetSpent:
    """A member spent privacy on a dataset, written before the mechanism ran.

    `sigma_micro`, ε in millionths; q in parts per million; δ is 10^-`delta_exp`. `total_epsilon_micro`
    is the accountant's own total over the dataset so far: it composes, it does not add.
    """

    run: RunId
    round: int
    dataset: Digest
    mechanism: str
    sigma_micro: int
    q_ppm: int
    steps: int
    delta_exp: int
    epsilon_micro: int
    total_epsilon_micro: int
    accountant: Accountant

    def __post_init__(self) -> None:
        require_digests(self.dataset)
        require_codes(self.mechanism)
        require_attempt(self.run, self.round, 1)
        if min(self.sigma_micro, self.steps, self.delta_exp) < 1 or not 1 <= self.q_ppm <= 10**6:
            raise ValueError("noise, steps, delta and sampling rate are out of range")
        if not 0 <= self.epsilon_micro <= self.total_epsilon_micro:
            raise ValueError("what is spent now is part of the total")
