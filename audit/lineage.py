"""Lineage: what an adapter was made of, from its rounds down to the declarations of its datasets.

Decides which receipts fed an adapter: those of members in the sum of a round that led to it. Follows
runs that started from another run's adapter. A dataset is its commitment, never its content. Pure.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from audit.history import History, unanswered
from audit.records import Logged, Round, Run, State
from fedproto.events.oversight import RemediationDone
from fedproto.events.rounds import ParticipationSigned
from fedproto.ids import Digest, MemberId, RunId

# The round that first led to each adapter.
Made = dict[Digest, tuple[Run, Round]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A dataset that fed an adapter, by commitment, with the entries that say so."""

    commitment: Digest
    member: MemberId
    legal_basis: str
    purpose: str
    residency: str
    licence: str
    declared: int
    receipts: tuple[int, ...]
    epsilon_micro: int
    withdrawn: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A round in which an adapter became the next one; `silent` were in the sum without a receipt."""

    run: RunId
    round: int
    attempt: int
    model_in: Digest
    model_out: Digest
    started: int
    closed: int
    included: tuple[MemberId, ...]
    receipts: tuple[int, ...]
    silent: tuple[MemberId, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mandate:
    """A run that had a part in it: its mandate, and what it was approved from."""

    run: RunId
    index: int
    proposal: int
    votes: tuple[int, ...]
    base_manifest_sha256: Digest
    initial_adapter: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """The base weights under an adapter."""

    name: str
    manifest_sha256: Digest
    corpus_sha256: Digest
    licence: str
    parameters: int
    approved: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """A member's figures for the adapter."""

    member: MemberId
    index: int
    suite_sha256: Digest
    report_sha256: Digest
    metrics: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Released:
    """A release of the adapter, and the entry that revoked it."""

    index: int
    channels: tuple[str, ...]
    revoked: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Lineage:
    """Everything that an adapter was made of. `withdrawn` names datasets out of use since."""

    artifact: Digest
    steps: tuple[Step, ...]
    mandates: tuple[Mandate, ...]
    base: Base
    sources: tuple[Source, ...]
    evaluations: tuple[Evaluation, ...]
    releases: tuple[Released, ...]
    remedies: tuple[int, ...]

    @property
    def withdrawn(self) -> tuple[Source, ...]:
        """The datasets that fed it and were withdrawn later: the adapter is flagged."""
        return tuple(source for source in self.sources if source.withdrawn is not None)

    @property
    def cites(self) -> tuple[int, ...]:
        """Every entry that this rests on, in order."""
        found = {self.base.approved, *self.remedies, *(item.index for item in self.evaluations)}
        ends: set[int | None] = {source.withdrawn for source in self.sources}
        for mandate in self.mandates:
            found |= {mandate.index, mandate.proposal, *mandate.votes}
        for step in self.steps:
            found |= {step.started, step.closed, *step.receipts}
        for release in self.releases:
            found.add(release.index)
            ends.add(release.revoked)
        found |= {source.declared for source in self.sources}
        return tuple(sorted(found | {index for index in ends if index is not None}))


def adapters(state: State) -> Made:
    """Return every adapter that a round led to, and the round, in the order of the ledger."""
    made = (
        (attempt.closed.index, attempt.closed.body.model_out, run, attempt)
        for run in state.runs.values()
        for attempt in run.rounds
        if attempt.closed and attempt.aggregated
    )
    first: Made = {}
    for _, artifact, run, attempt in sorted(made, key=lambda item: item[0]):
        first.setdefault(artifact, (run, attempt))
    return first


def resolve(named: str, known: Iterable[str], what: str) -> Digest:
    """Return the one digest that begins as named; raise RNM-CONF-0001 for none or several."""
    found = [digest for digest in known if digest.startswith(named)] if named else []
    if len(found) == 1:
        return Digest(found[0])
    why = f"{len(found)} begin so" if found else "the log knows none"
    raise unanswered(
        f"{what} {named[:64]!r}: {why}", "give its digest, or more of its first digits"
    )


def trace(history: History, artifact: Digest) -> Lineage:
    """Return the lineage of an adapter; raise RNM-CONF-0001 if no round led to it."""
    state = history.state
    chain = _chain(adapters(state), artifact)
    runs = list(dict.fromkeys(run.mandate.body.run for run, _ in chain))
    base = state.base_models[state.runs[runs[0]].mandate.body.plan.base_manifest_sha256]
    sources = tuple(_sources(state, chain))
    causes = {history.leaves[s.withdrawn] for s in sources if s.withdrawn is not None}
    releases = [r for r in state.releases.values() if r.approved.body.release.artifact == artifact]
    for release in releases:
        causes.add(release.approved.leaf)
        causes |= {history.leaves[release.revoked]} if release.revoked is not None else set()
    return Lineage(
        artifact=artifact,
        steps=tuple(_step(run, attempt) for run, attempt in chain),
        mandates=tuple(_mandate(state, state.runs[run]) for run in runs),
        base=Base(
            name=base.body.model.name,
            manifest_sha256=base.body.manifest_sha256,
            corpus_sha256=base.body.model.corpus_sha256,
            licence=base.body.model.licence,
            parameters=base.body.model.parameters,
            approved=base.index,
        ),
        sources=sources,
        evaluations=tuple(
            Evaluation(
                member=act.member,
                index=act.index,
                suite_sha256=act.body.suite_sha256,
                report_sha256=act.body.report_sha256,
                metrics=act.body.metrics,
            )
            for act in state.evaluations.get(artifact, ())
        ),
        releases=tuple(
            Released(
                index=release.approved.index,
                channels=release.approved.body.release.channels,
                revoked=release.revoked,
            )
            for release in sorted(releases, key=lambda item: item.approved.index)
        ),
        remedies=tuple(_remedies(history, causes)),
    )


def fed_by(state: State, commitment: Digest) -> tuple[Digest, ...]:
    """Return the adapters that a dataset fed, directly or through an earlier adapter."""
    made, found = adapters(state), []
    for artifact in made:
        receipts = (act for _, attempt in _chain(made, artifact) for act in _counted(attempt))
        if any(receipt.body.dataset == commitment for receipt in receipts):
            found.append(artifact)
    return tuple(found)


def _chain(made: Made, artifact: Digest) -> list[tuple[Run, Round]]:
    """Return the rounds that led to an adapter, oldest first."""
    if artifact not in made:
        raise unanswered(
            f"no round led to adapter {artifact[:16]}",
            "list the adapters: renmei audit log --type round.closed",
        )
    chain: list[tuple[Run, Round]] = []
    wanted = artifact
    # An adapter stands for the rounds before it only: a ledger that repeats one does not loop us.
    while wanted in made and made[wanted] not in chain:
        chain.append(made[wanted])
        wanted = made[wanted][1].started.body.model_in
    return chain[::-1]


def _counted(attempt: Round) -> tuple[Logged[ParticipationSigned], ...]:
    included = attempt.closed.body.included if attempt.closed else ()
    return tuple(receipt for receipt in attempt.receipts if receipt.member in included)


def _step(run: Run, attempt: Round) -> Step:
    assert attempt.closed is not None  # noqa: S101  # a chain holds aggregated rounds
    started, closed = attempt.started, attempt.closed
    counted = _counted(attempt)
    signed = {receipt.member for receipt in counted}
    return Step(
        run=run.mandate.body.run,
        round=started.body.round,
        attempt=started.body.attempt,
        model_in=started.body.model_in,
        model_out=closed.body.model_out,
        started=started.index,
        closed=closed.index,
        included=closed.body.included,
        receipts=tuple(receipt.index for receipt in counted),
        silent=tuple(member for member in closed.body.included if member not in signed),
    )


def _mandate(state: State, run: Run) -> Mandate:
    body = run.mandate.body
    return Mandate(
        run=body.run,
        index=run.mandate.index,
        proposal=state.leaves[body.proposal],
        votes=tuple(sorted(state.leaves[vote] for vote in body.votes)),
        base_manifest_sha256=body.plan.base_manifest_sha256,
        initial_adapter=body.plan.initial_adapter,
    )


def _sources(state: State, chain: list[tuple[Run, Round]]) -> Iterator[Source]:
    receipts: dict[Digest, list[int]] = {}
    for _, attempt in chain:
        for receipt in _counted(attempt):
            receipts.setdefault(receipt.body.dataset, []).append(receipt.index)
    for commitment in sorted(receipts):
        dataset = state.datasets[commitment]
        declared = dataset.declared.body
        yield Source(
            commitment=commitment,
            member=dataset.declared.member,
            legal_basis=declared.legal_basis.value,
            purpose=declared.purpose,
            residency=declared.residency,
            licence=declared.licence,
            declared=dataset.declared.index,
            receipts=tuple(receipts[commitment]),
            epsilon_micro=dataset.epsilon_micro,
            withdrawn=dataset.withdrawn,
        )


def _remedies(history: History, causes: set[Digest]) -> Iterator[int]:
    for index, signed in enumerate(history.events):
        body = signed.event.body
        if isinstance(body, RemediationDone) and body.cause in causes:
            yield index
