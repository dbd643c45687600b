"""The ledger's state as a value: what the entries so far have decided, and where each act stands.

Decides nothing: `audit.state` does. Holds what readers need to answer "who, when, under which
mandate" with entry indices and leaf hashes. Pure.
"""

from dataclasses import dataclass, field
from typing import Generic, TypeVar

from audit import merkle
from audit.checkpoint import TreeHead
from audit.trie import Trie
from fedproto.governance.charter import Charter
from fedproto.governance.rules import Ballot, refuse
from fedproto.identity import VerifyKey
from fedproto.ids import Digest, KeyId, MemberId, RunId
from fedproto.statements import (
    BaseModelApproved,
    CharterAdopted,
    DatasetDeclared,
    Outcome,
    ParticipationSigned,
    ProposalOpened,
    RoundClosed,
    RoundStarted,
    RunApproved,
    VoteCast,
)

B_co = TypeVar("B_co", covariant=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Logged(Generic[B_co]):
    """An admitted act: its place, who acted, when by its own clock, and under which charter."""

    index: int
    leaf: Digest
    member: MemberId
    at: int
    charter: Digest
    body: B_co


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """A proposal, its ballots in the order of the ledger, and the run it led to."""

    opened: Logged[ProposalOpened]
    votes: tuple[Logged[VoteCast], ...] = ()
    run: RunId | None = None

    @property
    def ballots(self) -> dict[MemberId, Ballot]:
        """The ballots by member, as the rules count them."""
        return {v.member: Ballot(leaf=v.leaf, choice=v.body.choice) for v in self.votes}


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One attempt at a round; `closed` is its record once there is one."""

    started: Logged[RoundStarted]
    receipts: tuple[Logged[ParticipationSigned], ...] = ()
    closed: Logged[RoundClosed] | None = None

    @property
    def aggregated(self) -> bool:
        """Whether the attempt led to an adapter."""
        return self.closed is not None and self.closed.body.outcome is Outcome.AGGREGATED


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A mandate and every attempt made under it, in order."""

    mandate: Logged[RunApproved]
    rounds: tuple[Round, ...] = ()

    @property
    def last(self) -> Round | None:
        """The newest attempt."""
        return self.rounds[-1] if self.rounds else None


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """Everything that follows from the entries so far, including their tree."""

    frontier: merkle.Frontier = ()
    roots: Trie[Digest] = field(default_factory=Trie)
    leaves: Trie[int] = field(default_factory=Trie)
    events: Trie[int] = field(default_factory=Trie)
    charters: tuple[Logged[CharterAdopted], ...] = ()
    base_models: Trie[Logged[BaseModelApproved]] = field(default_factory=Trie)
    datasets: Trie[Logged[DatasetDeclared]] = field(default_factory=Trie)
    proposals: Trie[Proposal] = field(default_factory=Trie)
    runs: Trie[Run] = field(default_factory=Trie)

    @property
    def size(self) -> int:
        """How many entries there are; the index of the next."""
        return len(self.roots)

    @property
    def root(self) -> Digest:
        """The root over all entries."""
        return self.root_at(self.size)

    @property
    def head(self) -> TreeHead:
        """Size and root."""
        return TreeHead(self.size, self.root)

    def root_at(self, size: int) -> Digest:
        """Return the root that the log had at a size; raise KeyError beyond its end."""
        return EMPTY_DIGEST if size == 0 else self.roots[size_key(size)]

    @property
    def charter(self) -> Charter:
        """The charter in force; raise RNM-GOV-0001 before the first."""
        if not self.charters:
            raise refuse("no charter is in force: the first entry adopts one")
        return self.charters[-1].body.charter

    def charter_at(self, size: int) -> Charter:
        """Return the charter in force in the log of a size."""
        adopted = [act for act in self.charters if act.index < size]
        if not adopted:
            raise refuse(f"no charter was in force at size {size}")
        return adopted[-1].body.charter

    def verify_key(self, key: KeyId) -> VerifyKey | None:
        """Return an acting key of the charter in force, or nothing."""
        return self.charter.verify_key(key) if self.charters else None

    def base_model(self, manifest: Digest) -> Logged[BaseModelApproved] | None:
        """Return the approval of base weights, by the digest of their manifest."""
        return self.base_models.get(manifest)

    def dataset(self, commitment: Digest) -> Logged[DatasetDeclared] | None:
        """Return a dataset's declaration."""
        return self.datasets.get(commitment)

    def proposal(self, leaf: Digest) -> Proposal | None:
        """Return a proposal by its leaf hash."""
        return self.proposals.get(leaf)

    def ballots(self, proposal: Digest) -> dict[MemberId, Ballot]:
        """Return the ballots on a proposal, by member."""
        found = self.proposals.get(proposal)
        return found.ballots if found else {}

    def mandate(self, run: RunId) -> Logged[RunApproved] | None:
        """Return a run's mandate with its leaf hash and index, or nothing."""
        found = self.runs.get(run)
        return found.mandate if found else None

    def rounds(self, run: RunId) -> tuple[Round, ...]:
        """Return every attempt of a run, in order."""
        found = self.runs.get(run)
        return found.rounds if found else ()

    def model_out(self, run: RunId) -> Digest | None:
        """Return the adapter that the run stands at; nothing before its first round is closed."""
        closed = [attempt.closed for attempt in self.rounds(run) if attempt.closed]
        return closed[-1].body.model_out if closed else None


def size_key(size: int) -> str:
    """Return a size as a key of `roots`; low digits first, so that the trie stays shallow."""
    return f"{size:016x}"[::-1]


EMPTY_DIGEST = Digest(merkle.EMPTY_ROOT.hex())
EMPTY = State()
