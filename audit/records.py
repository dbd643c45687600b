"""The ledger's state as a value: what the entries so far have decided, and where each act stands.

Decides nothing: `audit.state` does. Holds what readers need to answer "who, when, under which
mandate" with entry indices and leaf hashes. Pure.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Generic, TypeVar

from audit import merkle
from audit.checkpoint import TreeHead
from audit.trie import Trie
from fedproto.authorisation import recovery_threshold
from fedproto.events.governance import (
    CharterAdopted,
    EmergencyStopped,
    KeyUse,
    ProposalOpened,
    Standing,
    VoteCast,
)
from fedproto.events.models import (
    BaseModelApproved,
    DatasetDeclared,
    EvaluationAttested,
    ReleaseApproved,
)
from fedproto.events.rounds import (
    BudgetSpent,
    Outcome,
    ParticipationSigned,
    RoundClosed,
    RoundStarted,
    RunApproved,
    SumAudited,
    UpdateCommitted,
    Verdict,
)
from fedproto.governance.charter import Charter, Clause, Role
from fedproto.governance.rules import Ballot, refuse
from fedproto.identity import VerifyKey
from fedproto.ids import Digest, KeyId, MemberId, RunId

B_co = TypeVar("B_co", covariant=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Logged(Generic[B_co]):
    """An admitted act: its place, who acted, when by its own clock, and under which charter."""

    index: int
    leaf: Digest
    member: MemberId
    at: int
    charter: Digest
    signers: tuple[KeyId, ...]
    body: B_co


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """A proposal, its ballots in the order of the ledger, and what it led to.

    `carried` is the entry since which it is carried, `vetoed` the veto that ended it, `decided` the
    entry that carried it out or closed it.
    """

    opened: Logged[ProposalOpened]
    votes: tuple[Logged[VoteCast], ...] = ()
    run: RunId | None = None
    carried: int | None = None
    vetoed: int | None = None
    decided: int | None = None

    @property
    def ballots(self) -> dict[MemberId, Ballot]:
        """The ballots by member, as the rules count them."""
        return {v.member: Ballot(leaf=v.leaf, choice=v.body.choice) for v in self.votes}


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One attempt at a round; `closed` is its record once there is one."""

    started: Logged[RoundStarted]
    commitments: tuple[Logged[UpdateCommitted], ...] = ()
    receipts: tuple[Logged[ParticipationSigned], ...] = ()
    audits: tuple[Logged[SumAudited], ...] = ()
    closed: Logged[RoundClosed] | None = None

    @property
    def aggregated(self) -> bool:
        """Whether the attempt led to an adapter."""
        return self.closed is not None and self.closed.body.outcome is Outcome.AGGREGATED

    @property
    def disputed(self) -> Logged[SumAudited] | None:
        """The first audit that refused the sum; nothing rests on an adapter whose sum is disputed."""
        return next((act for act in self.audits if act.body.verdict is Verdict.REFUSED), None)

    @property
    def auditors(self) -> tuple[MemberId, ...]:
        """The members that found the recorded sum right, in the order of the ledger."""
        return self._right(self.closed.body.transcript_sha256) if self.closed else ()

    def _right(self, transcript: Digest) -> tuple[MemberId, ...]:
        return tuple(
            act.member
            for act in self.audits
            if act.body.verdict is Verdict.MATCHES and act.body.transcript_sha256 == transcript
        )

    def unaudited(self, threshold: int, tolerated: int) -> str:
        """Say of a closed round what `missing_audits` says of one that is to be closed."""
        if self.closed is None:
            return "it is not closed"
        body = self.closed.body
        sums, of_all = (body.groups, None) if body.groups else ((body.included,), threshold)
        return self.missing_audits(body.transcript_sha256, sums, of_all, tolerated)

    def missing_audits(
        self,
        transcript: Digest,
        sums: Sequence[Sequence[MemberId]],
        threshold: int | None,
        tolerated: int,
    ) -> str:
        """Say which sum too few of its own members found right; nothing if none.

        `sums` are the members in each. Of the one sum of a cohort `threshold` have to, which is the
        cohort's T; of each group, where it is None, T of the group's members in the sum.
        """
        right = self._right(transcript)
        for members in sums:
            needed = recovery_threshold(len(members), tolerated) if threshold is None else threshold
            count = sum(name in members for name in right)
            if count < needed:
                return f"{count} members audited its sum, fewer than {needed}"
        return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A mandate and every attempt made under it, in order."""

    mandate: Logged[RunApproved]
    voters: frozenset[MemberId]  # whose votes counted at its entry
    rounds: tuple[Round, ...] = ()

    @property
    def last(self) -> Round | None:
        """The newest attempt."""
        return self.rounds[-1] if self.rounds else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A key that a member brought: in force from entry `since` on, until entry `until` ended it."""

    member: MemberId
    use: KeyUse
    verify_key: VerifyKey
    since: int
    until: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Seat:
    """A member that took its seat: its keys in force, and whether its acts count."""

    admitted: int
    acting: KeyId | None
    recovery: KeyId | None
    standing: Standing = Standing.ACTIVE


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchor:
    """A point of the log's own clock: entries before `size` were there at `time_s` (Unix seconds)."""

    index: int
    size: int
    time_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """A declared dataset, what was spent on it, and the entry that withdrew it."""

    declared: Logged[DatasetDeclared]
    spent: tuple[Logged[BudgetSpent], ...] = ()
    withdrawn: int | None = None

    @property
    def epsilon_micro(self) -> int:
        """The accountant's total over the dataset, in millionths."""
        return self.spent[-1].body.total_epsilon_micro if self.spent else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """An approved release, and the entry that revoked it."""

    approved: Logged[ReleaseApproved]
    revoked: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """Everything that follows from the entries so far, including their tree.

    `waiting` names the proposals that are not decided and have not lapsed, oldest first; `founded`
    says that everyone whom the first charter counts on has consented to it.
    """

    frontier: merkle.Frontier = ()
    roots: Trie[Digest] = field(default_factory=Trie)
    leaves: Trie[int] = field(default_factory=Trie)
    events: Trie[int] = field(default_factory=Trie)
    charters: tuple[Logged[CharterAdopted], ...] = ()
    founded: bool = False
    seats: Mapping[MemberId, Seat] = field(default_factory=lambda: MappingProxyType({}))
    keys: Trie[Key] = field(default_factory=Trie)
    anchors: tuple[Anchor, ...] = ()
    stops: tuple[Logged[EmergencyStopped], ...] = ()
    base_models: Trie[Logged[BaseModelApproved]] = field(default_factory=Trie)
    datasets: Trie[Dataset] = field(default_factory=Trie)
    proposals: Trie[Proposal] = field(default_factory=Trie)
    waiting: tuple[Digest, ...] = ()
    runs: Trie[Run] = field(default_factory=Trie)
    evaluations: Trie[tuple[Logged[EvaluationAttested], ...]] = field(default_factory=Trie)
    releases: Trie[Release] = field(default_factory=Trie)
    erased: Trie[int] = field(default_factory=Trie)
    refused: Trie[int] = field(default_factory=Trie)

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

    @property
    def unseated(self) -> tuple[MemberId, ...]:
        """The members that the charter counts on and that have not taken their seat, in id order."""
        charter = self.charter
        needed = {m for clause in charter.actions.values() for m in charter.eligible(clause)}
        needed.update(charter.with_role(Role.OPERATOR))
        return tuple(sorted(needed - self.seats.keys()))

    def standing(self, member: MemberId) -> Standing | None:
        """Return a member's standing, or nothing where it has no seat under this charter."""
        seat = self.seats.get(member)
        return seat.standing if seat and self.charter.member(member) else None

    def voters(self, charter: Charter, clause: Clause) -> frozenset[MemberId]:
        """Return whose vote counts under a clause: those with a seat, not suspended, not gone."""
        active = {m for m, seat in self.seats.items() if seat.standing is Standing.ACTIVE}
        return charter.eligible(clause) & active

    def key(self, key: KeyId) -> Key | None:
        """Return a key that is in force, of a member of the charter in force."""
        found = self.keys.get(key)
        if found is None or found.until is not None or not self.charter.member(found.member):
            return None
        return found

    def verify_key(self, key: KeyId) -> VerifyKey | None:
        """Return a key in force, or nothing; a resolver for `open_envelope`."""
        found = self.key(key) if self.charters else None
        return found.verify_key if found else None

    def acting_key(self, member: MemberId) -> VerifyKey | None:
        """Return the key with which a member in good standing acts now, or nothing."""
        seat = self.seats.get(member)
        if seat is None or seat.acting is None or seat.standing is not Standing.ACTIVE:
            return None
        return self.verify_key(seat.acting)

    @property
    def clock_s(self) -> int:
        """The log's own clock, in Unix seconds: no entry after it is older. 0 before any anchor."""
        return self.anchors[-1].time_s if self.anchors else 0

    def bracket_s(self, index: int) -> tuple[int | None, int | None]:
        """Return between which witnessed times an entry was made; None where no anchor bounds it."""
        before = [anchor.time_s for anchor in self.anchors if anchor.size <= index]
        after = [anchor.time_s for anchor in self.anchors if anchor.size > index]
        return (before[-1] if before else None, after[0] if after else None)

    def stopped(self, run: RunId) -> Logged[EmergencyStopped] | None:
        """Return the stop that holds a run, or everything, or nothing."""
        return next((stop for stop in self.stops if stop.body.run in {"", run}), None)

    def base_model(self, manifest: Digest) -> Logged[BaseModelApproved] | None:
        """Return the approval of base weights, by the digest of their manifest."""
        return self.base_models.get(manifest)

    def dataset(self, commitment: Digest) -> Logged[DatasetDeclared] | None:
        """Return the declaration of a dataset that is in use."""
        found = self.datasets.get(commitment)
        return found.declared if found and found.withdrawn is None else None

    def proposal(self, leaf: Digest) -> Proposal | None:
        """Return a proposal by its leaf hash."""
        return self.proposals.get(leaf)

    def open_proposals(self) -> Iterator[Proposal]:
        """Yield the proposals that are not decided and have not lapsed, oldest first."""
        return (self.proposals[leaf] for leaf in self.waiting)

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
