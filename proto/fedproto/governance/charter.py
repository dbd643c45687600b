"""The charter: members, roles, keys by digest, thresholds and limits, as versioned data.

Decides what a well-formed charter is. Whether it was adopted is decided by the ledger's state, and so
is which keys stand in a member's name now: the charter only names the digest of the key with which a
member takes its seat, so that sixty-four members fit into one entry. Pure.
"""

from dataclasses import dataclass
from enum import Enum

from fedproto import jcs
from fedproto.authorisation import GROUPED_FROM, GROUPED_TO
from fedproto.ids import Digest, MemberId, is_digest, is_member_id, sha256_hex
from fedproto.schema import to_json

MAX_MEMBERS = 64


class Role(Enum):
    """What a party may do; each gRPC method and each act names the roles that it is open to."""

    OPERATOR = "operator"
    ADMINISTRATOR = "administrator"
    TRAINER = "trainer"
    PRETRAINER = "pretrainer"
    EVALUATOR = "evaluator"
    WITNESS = "witness"
    AUDITOR = "auditor"
    OBSERVER = "observer"


class Action(Enum):
    """What a clause decides."""

    APPROVE_RUN = "run.approve"
    APPROVE_BASE_MODEL = "base_model.approve"
    AMEND_CHARTER = "charter.amend"
    ADMIT_MEMBER = "member.admit"
    CHANGE_STANDING = "member.status"
    REVOKE_KEY = "key.revoke"
    APPROVE_RELEASE = "release.approve"
    REVOKE_RELEASE = "release.revoke"
    STOP = "emergency.stop"
    RESUME = "emergency.resume"


class Rule(Enum):
    """How many of the voters must say yes."""

    COUNT = "count"
    ALL = "all"
    ALL_BUT_SUBJECT = "all-but-subject"


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A party on the roster.

    `key` and `recovery` are the digests of the keys with which it takes its seat; `recovery` is empty
    if it keeps none. `witness` and `validator` are C2SP vkeys: the one cosigns what extends the log,
    the other only what was replayed under the charter. Empty where it does neither.
    """

    id: MemberId
    name: str
    roles: tuple[Role, ...]
    key: Digest
    recovery: str
    witness: str
    validator: str

    def __post_init__(self) -> None:
        if not is_member_id(self.id) or not self.roles:
            raise ValueError(f"member {self.id!r} needs a well-formed id and a role")
        if len(set(self.roles)) != len(self.roles):
            raise ValueError(f"member {self.id}: a role stands twice")
        if (Role.WITNESS in self.roles) != bool(self.witness):
            raise ValueError(f"member {self.id}: a witness role and a witness key go together")
        if self.validator and not self.witness:
            raise ValueError(f"member {self.id}: who validates is a witness too")
        if not is_digest(self.key) or (self.recovery and not is_digest(self.recovery)):
            raise ValueError(f"member {self.id}: a key is named by its digest")
        if self.key == self.recovery:
            raise ValueError(f"member {self.id}: the recovery key is the acting key")


@dataclass(frozen=True, slots=True, kw_only=True)
class Clause:
    """How one action is decided.

    `propose` may propose it; with `yes` 0 under COUNT they do it themselves, without a vote. `vote`
    may vote, `veto` may also end it with one signed reason. A carried proposal takes effect no sooner
    than `timelock_s` after it was cosigned as carried, and no later than `expires_s` after it opened.
    """

    propose: tuple[Role, ...]
    vote: tuple[Role, ...]
    rule: Rule
    yes: int
    veto: tuple[Role, ...]
    timelock_s: int
    expires_s: int

    def __post_init__(self) -> None:
        if not self.propose or self.expires_s < 1 or self.timelock_s < 0:
            raise ValueError("a clause needs proposers and a term")
        if self.yes < 0 or (self.rule is not Rule.COUNT and self.yes):
            raise ValueError("a clause counts its yes votes, or asks for all of them")
        if self.direct:
            if self.vote or self.veto or self.timelock_s:
                raise ValueError("a clause without a vote has no voters, no veto and no timelock")
        elif not self.vote:
            raise ValueError("a clause with a vote needs voters")
        if not set(self.veto) <= set(self.vote):
            raise ValueError("a veto is a vote: who may veto is among the voters")

    @property
    def direct(self) -> bool:
        """Whether the proposers act without a vote."""
        return self.rule is Rule.COUNT and self.yes == 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds that no mandate and no release may cross; ε in millionths, for each dataset.

    Cohorts of `robust_from` members and more are summed in groups; 0 asks it of nobody.
    """

    min_members: int
    max_rounds: int
    tolerated: int
    evaluations: int
    epsilon_micro_per_run: int
    epsilon_micro_per_dataset: int
    robust_from: int = 0

    def __post_init__(self) -> None:
        if self.robust_from and not GROUPED_FROM <= self.robust_from <= GROUPED_TO:
            raise ValueError(f"cohorts of {GROUPED_FROM} to {GROUPED_TO} are summed in groups")
        # A sum over two tells each of them the other's delta.
        if self.min_members < 3 or self.max_rounds < 1 or self.tolerated < 1:
            raise ValueError("at least three members, one round and one tolerated colluder")
        if self.evaluations < 0 or not (
            0 <= self.epsilon_micro_per_run <= self.epsilon_micro_per_dataset
        ):
            raise ValueError("a release's attestations and the ε limits are not in order")


@dataclass(frozen=True, slots=True, kw_only=True)
class Charter:
    """One version of the consortium's rules; itself a leaf of the ledger.

    `retention` gives days by class of content, `disclosure` the roles that may read it.
    """

    version: int
    prev_sha256: Digest
    consortium: str
    origin: str
    log_vkey: str
    witness_quorum: int
    members: tuple[Member, ...]
    actions: dict[str, Clause]
    limits: Limits
    retention: dict[str, int]
    disclosure: dict[str, tuple[Role, ...]]

    def __post_init__(self) -> None:
        ids = [member.id for member in self.members]
        keys = [key for m in self.members for key in (m.key, m.recovery) if key]
        if ids != sorted(set(ids)) or len(ids) > MAX_MEMBERS:
            raise ValueError(f"members must be sorted by id and stand once, at most {MAX_MEMBERS}")
        if len(keys) != len(set(keys)):
            raise ValueError("one key belongs to two members, or serves two uses")
        if not is_digest(self.prev_sha256) or self.version < 1:
            raise ValueError("a charter has a version and names its predecessor")
        if self.actions.keys() != {action.value for action in Action}:
            raise ValueError("a charter decides every action, and no other")
        witnesses = sum(Role.WITNESS in member.roles for member in self.members)
        if not 1 <= self.witness_quorum <= witnesses:
            raise ValueError("the witness quorum must be within the number of witnesses")
        for clause in self.actions.values():
            if clause.yes > len(self.eligible(clause)):
                raise ValueError("a clause asks for more votes than there are voters")
            if not clause.direct and not self.eligible(clause):
                raise ValueError("a clause has no voters")
        if min(self.retention.values(), default=1) < 1:
            raise ValueError("a retention is a number of days")

    @property
    def digest(self) -> Digest:
        """SHA-256 of the canonical JSON; the name under which acts cite this version."""
        return sha256_hex(jcs.dumps(to_json(self)))

    def member(self, member: MemberId) -> Member | None:
        """Return a member by id, or nothing."""
        return next((m for m in self.members if m.id == member), None)

    def clause(self, action: Action) -> Clause:
        """Return the clause that decides an action."""
        return self.actions[action.value]

    def eligible(self, clause: Clause) -> frozenset[MemberId]:
        """Return the members whose roles let them vote under a clause, whatever their standing."""
        return frozenset(m.id for m in self.members if set(m.roles) & set(clause.vote))

    def with_role(self, role: Role) -> tuple[MemberId, ...]:
        """Return the members that hold a role, in id order."""
        return tuple(m.id for m in self.members if role in m.roles)
