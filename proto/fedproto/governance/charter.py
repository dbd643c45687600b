"""The charter: members, roles, keys, thresholds and limits, as versioned data.

Decides what a well-formed charter is. Whether it was adopted is decided by the ledger's state. Pure.
"""

from dataclasses import dataclass
from enum import Enum

from fedproto import jcs
from fedproto.identity import ALGORITHM, VerifyKey
from fedproto.ids import Digest, KeyId, MemberId, is_digest, is_member_id, sha256_hex
from fedproto.schema import to_json


class Role(Enum):
    """What a party may do; each gRPC method and each act names the roles that it is open to."""

    OPERATOR = "operator"
    ADMINISTRATOR = "administrator"
    TRAINER = "trainer"
    PRETRAINER = "pretrainer"
    WITNESS = "witness"
    AUDITOR = "auditor"


class Action(Enum):
    """What is put to the vote."""

    APPROVE_RUN = "run.approve"


@dataclass(frozen=True, slots=True, kw_only=True)
class ActingKey:
    """A member's acting key as the charter lists it."""

    id: KeyId
    alg: str
    pub: str

    def __post_init__(self) -> None:
        if self.alg != ALGORITHM:
            raise ValueError(f"key algorithm {self.alg!r} is not {ALGORITHM}")
        if VerifyKey.from_text(self.pub).key_id != self.id:
            raise ValueError(f"key id {self.id} does not belong to its key")

    @property
    def verify_key(self) -> VerifyKey:
        """The key itself."""
        return VerifyKey.from_text(self.pub)


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A party on the roster. `witness` is its C2SP vkey, empty if it is no witness."""

    id: MemberId
    name: str
    roles: tuple[Role, ...]
    keys: tuple[ActingKey, ...]
    witness: str

    def __post_init__(self) -> None:
        if not is_member_id(self.id) or not self.roles:
            raise ValueError(f"member {self.id!r} needs a well-formed id and a role")
        if (Role.WITNESS in self.roles) != bool(self.witness):
            raise ValueError(f"member {self.id}: a witness role and a witness key go together")


@dataclass(frozen=True, slots=True, kw_only=True)
class Clause:
    """How one action is decided: who proposes, who votes, how many yes, and until when it holds."""

    propose: tuple[Role, ...]
    vote: tuple[Role, ...]
    yes: int
    expires_s: int

    def __post_init__(self) -> None:
        if self.yes < 1 or self.expires_s < 1 or not self.propose or not self.vote:
            raise ValueError("a clause needs proposers, voters, a quorum and a term")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds that no mandate may cross."""

    min_members: int
    max_rounds: int
    tolerated: int

    def __post_init__(self) -> None:
        # A sum over two tells each of them the other's delta.
        if self.min_members < 3 or self.max_rounds < 1 or self.tolerated < 1:
            raise ValueError("at least three members, one round and one tolerated colluder")


@dataclass(frozen=True, slots=True, kw_only=True)
class Charter:
    """One version of the consortium's rules; itself a leaf of the ledger."""

    version: int
    prev_sha256: Digest
    consortium: str
    origin: str
    log_vkey: str
    witness_quorum: int
    members: tuple[Member, ...]
    actions: dict[str, Clause]
    limits: Limits

    def __post_init__(self) -> None:
        ids = [member.id for member in self.members]
        keys = [key.id for member in self.members for key in member.keys]
        if ids != sorted(set(ids)):
            raise ValueError("members must be sorted by id and stand once")
        if len(keys) != len(set(keys)):
            raise ValueError("one acting key belongs to two members")
        if not is_digest(self.prev_sha256) or self.version < 1:
            raise ValueError("a charter has a version and names its predecessor")
        if self.actions.keys() != {action.value for action in Action}:
            raise ValueError("a charter decides every action, and no other")
        witnesses = sum(Role.WITNESS in member.roles for member in self.members)
        if not 1 <= self.witness_quorum <= witnesses:
            raise ValueError("the witness quorum must be within the number of witnesses")
        for clause in self.actions.values():
            if clause.yes > sum(bool(set(clause.vote) & set(m.roles)) for m in self.members):
                raise ValueError("a clause asks for more votes than there are voters")

    @property
    def digest(self) -> Digest:
        """SHA-256 of the canonical JSON; the name under which acts cite this version."""
        return sha256_hex(jcs.dumps(to_json(self)))

    def member(self, member: MemberId) -> Member | None:
        """Return a member by id, or nothing."""
        return next((m for m in self.members if m.id == member), None)

    def holder(self, key: KeyId) -> Member | None:
        """Return the member that holds an acting key, or nothing."""
        return next((m for m in self.members if any(k.id == key for k in m.keys)), None)

    def verify_key(self, key: KeyId) -> VerifyKey | None:
        """Return a listed acting key, or nothing; a resolver for `open_envelope`."""
        for member in self.members:
            for listed in member.keys:
                if listed.id == key:
                    return listed.verify_key
        return None

    def with_role(self, role: Role) -> tuple[MemberId, ...]:
        """Return the members that hold a role, in id order."""
        return tuple(m.id for m in self.members if role in m.roles)
