"""The plan of a run: everything that members agree to when they vote. Integers only. Pure."""

from dataclasses import dataclass
from enum import Enum

from fedproto import jcs
from fedproto.authorisation import LEAST_GROUPS, can_group
from fedproto.ids import Digest, MemberId, is_digest, is_member_id, sha256_hex
from fedproto.schema import to_json


class Method(Enum):
    """How members' deltas become one: each method is a sum of vectors."""

    FEDAVG = "fedavg"

    @property
    def passes(self) -> int:
        """How many sums a round has; each is a pass of secure aggregation with keys of its own."""
        return 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Lora:
    """The adapter: rank, alpha and the names of the linear modules that it attaches to."""

    rank: int
    alpha: int
    targets: tuple[str, ...]

    def __post_init__(self) -> None:
        if not 1 <= self.rank <= 1024 or self.alpha < 1:
            raise ValueError("rank must be 1 to 1024 and alpha positive")
        if not self.targets or list(self.targets) != sorted(set(self.targets)):
            raise ValueError("targets must be sorted and stand once")


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """Local training in each round; `lr_micro` is the peak learning rate times 10^6."""

    rounds: int
    steps: int
    batch: int
    sequence: int
    lr_micro: int
    seed: int

    def __post_init__(self) -> None:
        if min(self.rounds, self.steps, self.batch, self.sequence, self.lr_micro) < 1:
            raise ValueError("rounds, steps, batch, sequence and learning rate must be positive")
        if self.seed < 0:
            raise ValueError("the seed must not be negative")


class Combine(Enum):
    """What is made of the sums of a round: of one sum its mean, of several group by group."""

    MEAN = "mean"
    MEDIAN = "median"
    TRIMMED_MEAN = "trimmed_mean"


@dataclass(frozen=True, slots=True, kw_only=True)
class Aggregation:
    """The sum and the outer step: Nesterov with `outer_lr_milli` and `momentum_milli` (times 10^3).

    `clip_milli` bounds the L2 norm of a delta (times 10^3), `bits` its quantised width, `tolerated`
    is t_c, the members that may collude with the coordinator. With `groups` above 1 the cohort is
    summed in so many groups, and coordinate by coordinate a median or a trimmed mean of their means
    is taken: a few members that poison theirs do not move it far.
    """

    method: Method
    outer_lr_milli: int
    momentum_milli: int
    clip_milli: int
    bits: int
    tolerated: int
    groups: int = 1
    combine: Combine = Combine.MEAN

    def __post_init__(self) -> None:
        if (self.groups == 1) != (self.combine is Combine.MEAN):
            raise ValueError("one sum is taken as it is, several by median or trimmed mean")
        if self.groups != 1 and self.groups < LEAST_GROUPS:
            raise ValueError(f"groups are {LEAST_GROUPS} at least, or there is one")
        if self.outer_lr_milli < 1 or not 0 <= self.momentum_milli < 1000 or self.clip_milli < 1:
            raise ValueError("outer step, momentum and clip are out of range")
        if not 8 <= self.bits <= 24 or self.tolerated < 1:
            raise ValueError("bits must be 8 to 24 and at least one colluder tolerated")

    @property
    def trimmed(self) -> int:
        """How many of the groups' values a trimmed mean leaves out at each end."""
        return max(1, self.groups // 4)

    @property
    def least_groups(self) -> int:
        """How many sums a round needs: a median of three, or what is left after trimming."""
        match self.combine:
            case Combine.MEAN:
                return 1
            case Combine.MEDIAN:
                return LEAST_GROUPS
            case Combine.TRIMMED_MEAN:
                return 2 * self.trimmed + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPlan:
    """What a proposal puts to the vote and a mandate authorises.

    `initial_adapter` is the digest of the global adapter that round 1 starts from; each member's own
    trainer makes it from the seed and compares.
    """

    purpose: str
    base_manifest_sha256: Digest
    initial_adapter: Digest
    layout_sha256: Digest
    parameters: int
    lora: Lora
    training: Training
    aggregation: Aggregation
    members: tuple[MemberId, ...]
    min_members: int
    phase_timeout_s: int

    def __post_init__(self) -> None:
        named = (self.base_manifest_sha256, self.initial_adapter, self.layout_sha256)
        if not all(is_digest(digest) for digest in named):
            raise ValueError("the base model, the adapter and the layout are named by digest")
        if list(self.members) != sorted(set(self.members)):
            raise ValueError("members must be sorted and stand once")
        if not all(is_member_id(member) for member in self.members):
            raise ValueError("a member id is not well formed")
        if not 1 <= self.min_members <= len(self.members):
            raise ValueError("the minimum cohort must be within the members named")
        grouping = self.aggregation
        if grouping.groups != 1:
            if not can_group(len(self.members), grouping.groups, grouping.tolerated):
                raise ValueError("the cohort cannot be summed in so many groups")
            if self.min_members > len(self.members) // grouping.groups:
                raise ValueError("the minimum is that of each sum: a group has fewer members")
        if self.parameters < 1 or not 1 <= self.phase_timeout_s <= 86_400:
            raise ValueError("parameters and the phase timeout are out of range")
        if not self.purpose.isascii() or not 1 <= len(self.purpose) <= 64:
            raise ValueError("the purpose is a short ASCII code")

    @property
    def digest(self) -> Digest:
        """SHA-256 of the canonical JSON: the plan hash that ballots name."""
        return sha256_hex(jcs.dumps(to_json(self)))
