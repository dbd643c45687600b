"""A small consortium for tests of the ledger: keys of fixed seeds, acts, and a log that grows."""

import hashlib
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

from audit import merkle
from audit.checkpoint import Checkpoint, TreeHead, sign
from audit.decision import approvals
from audit.note import Note, NoteSigner, parse
from audit.replay import advance
from audit.state import EMPTY, Rejected, State, apply, open_next
from fedproto.events.governance import (
    CharterAdopted,
    Choice,
    MemberAdmitted,
    ProposalOpened,
    PublicKey,
    VoteCast,
    digest_of,
)
from fedproto.events.models import BaseModel, BaseModelApproved, DatasetDeclared, LegalBasis
from fedproto.events.oversight import AnchorKind, AnchorMade
from fedproto.events.rounds import (
    Outcome,
    ParticipationSigned,
    RoundClosed,
    RoundStarted,
    RunApproved,
    SumAudited,
    Verdict,
)
from fedproto.governance.charter import Action, Charter, Clause, Limits, Member, Role, Rule
from fedproto.governance.plan import Aggregation, Lora, Method, RunPlan, Training
from fedproto.identity import SigningKey
from fedproto.ids import ZERO_DIGEST, Digest
from fedproto.statements import Actor, Event, Head, Trace, leaf_id, seal_event

ORIGIN = "ledger.consortium.example/fl-gov"
TRACE = Trace(trace_id="0" * 32, span_id="0" * 16)
T0 = 1_790_000_000_000
HOUR = 3_600_000
TRAINERS = ("honda", "nec", "softbank", "sony")
RUN = "ab" * 16


def digest(text: str) -> Digest:
    return Digest(hashlib.sha256(text.encode()).hexdigest())


@cache
def key_of(member: str) -> SigningKey:
    return SigningKey(hashlib.sha512(f"acting:{member}".encode()).digest())


def seed(text: str) -> bytes:
    return hashlib.sha256(f"lab-seed:{text}".encode()).digest()


@cache
def witness_of(member: str) -> NoteSigner:
    return NoteSigner(f"witness.{member}.example/w1", seed(f"witness:{member}"), cosigner=True)


LOG_KEY = NoteSigner(ORIGIN, seed("log"))


def member_of(name: str, *roles: Role, key: str = "", recovery: str | None = None) -> Member:
    founds = Role.OPERATOR in roles
    kept = recovery if recovery is not None else "" if founds else recovery_of(name)
    return Member(
        id=name,
        name=name.title(),
        roles=roles,
        key=key_of(key or name).verify_key.digest,
        recovery=key_of(kept).verify_key.digest if kept else "",
        witness=witness_of(name).vkey if Role.WITNESS in roles else "",
        validator="",
    )


def recovery_of(member: str) -> str:
    """The name under which `key_of` makes a member's recovery key."""
    return f"recovery:{member}"


def public(name: str) -> PublicKey:
    return PublicKey.of(key_of(name).verify_key)


def clause(propose: tuple[Role, ...], vote: tuple[Role, ...] = (), **changes: Any) -> Clause:
    """A clause of three yes votes, or a direct one where nobody votes."""
    made = Clause(
        propose=propose,
        vote=vote,
        rule=Rule.COUNT,
        yes=3 if vote else 0,
        veto=(),
        timelock_s=0,
        expires_s=86_400,
    )
    return replace(made, **changes)


def clauses() -> dict[str, Clause]:
    trainers, secretary = (Role.TRAINER,), (Role.ADMINISTRATOR,)
    made = {
        Action.APPROVE_RUN: clause(secretary, trainers),
        Action.APPROVE_BASE_MODEL: clause((Role.PRETRAINER,)),
        Action.AMEND_CHARTER: clause(secretary, trainers),
        Action.ADMIT_MEMBER: clause(secretary, trainers, rule=Rule.ALL, yes=0),
        Action.CHANGE_STANDING: clause(secretary, trainers, rule=Rule.ALL_BUT_SUBJECT, yes=0),
        Action.REVOKE_KEY: clause(secretary, trainers),
        Action.APPROVE_RELEASE: clause(secretary, trainers, veto=trainers, timelock_s=7_200),
        Action.REVOKE_RELEASE: clause(secretary, trainers, yes=2),
        Action.STOP: clause((Role.ADMINISTRATOR, Role.TRAINER)),
        Action.RESUME: clause(secretary, trainers),
    }
    return {action.value: made_clause for action, made_clause in made.items()}


@cache
def charter_of() -> Charter:
    trainer = (Role.TRAINER, Role.WITNESS)
    members = [member_of(name, *trainer) for name in TRAINERS]
    members += [
        member_of("coordinator", Role.OPERATOR),
        member_of("pfn", Role.PRETRAINER),
        member_of("secretariat", Role.ADMINISTRATOR),
        member_of("meti", Role.AUDITOR),
    ]
    return Charter(
        version=1,
        prev_sha256=ZERO_DIGEST,
        consortium="lab",
        origin=ORIGIN,
        log_vkey=LOG_KEY.vkey,
        witness_quorum=3,
        members=tuple(sorted(members, key=lambda member: member.id)),
        actions=clauses(),
        limits=Limits(
            min_members=3,
            max_rounds=5,
            tolerated=1,
            evaluations=2,
            epsilon_micro_per_run=2_000_000,
            epsilon_micro_per_dataset=3_000_000,
        ),
        retention={"ledger": 3_650},
        disclosure={"report": (Role.ADMINISTRATOR, Role.AUDITOR)},
    )


# How many entries found it: the charter, and a seat for everyone but the operator.
FOUNDED = len(charter_of().members)


def plan_of(**changes: Any) -> RunPlan:
    plan = RunPlan(
        purpose="demo",
        base_manifest_sha256=digest("base"),
        initial_adapter=digest("adapter:0"),
        layout_sha256=digest("layout"),
        parameters=1000,
        lora=Lora(rank=4, alpha=8, targets=("k_proj", "q_proj")),
        training=Training(rounds=3, steps=5, batch=2, sequence=64, lr_micro=1000, seed=1),
        aggregation=Aggregation(
            method=Method.FEDAVG,
            outer_lr_milli=700,
            momentum_milli=900,
            clip_milli=1000,
            bits=16,
            tolerated=1,
        ),
        members=TRAINERS,
        min_members=3,
        phase_timeout_s=60,
    )
    return replace(plan, **changes)


@dataclass
class Story:
    """A log under construction: each act is sealed, opened, applied and kept."""

    state: State = EMPTY
    leaves: list[bytes] = field(default_factory=list)
    counter: int = 0
    now: int = T0

    def event(self, actor: str, body: Any, /, **changes: Any) -> Event:
        self.counter += 1
        charter = (
            self.state.charters[-1].body.sha256 if self.state.charters else adopted_digest(body)
        )
        head = self.state.head
        event = Event(
            log=ORIGIN,
            id=hashlib.sha256(f"event:{self.counter}".encode()).hexdigest()[:32],
            at=self.now,
            actor=Actor(member=actor, key=key_of(actor).verify_key.key_id),
            charter=charter,
            head=Head(size=head.size, root=head.root),
            trace=TRACE,
            body=body,
        )
        return replace(event, **changes)

    def leaf(
        self, actor: str, body: Any, /, *, signers: tuple[str, ...] = (), **changes: Any
    ) -> bytes:
        keys = tuple(key_of(name) for name in signers or (actor,))
        return seal_event(self.event(actor, body, **changes), keys)

    def act(self, actor: str, body: Any, /, **changes: Any) -> Digest:
        """Log an act that must be admitted; return its leaf hash."""
        leaf = self.leaf(actor, body, **changes)
        self.state, _ = advance(self.state, leaf)
        self.leaves.append(leaf)
        return leaf_id(leaf)

    def try_act(self, actor: str, body: Any, /, **changes: Any) -> Rejected | State:
        """Return what `apply` says of an act, without logging it."""
        leaf = self.leaf(actor, body, **changes)
        return apply(self.state, leaf_id(leaf), open_next(self.state, leaf))

    # one method an act, with what an honest party would say

    def genesis(self, charter: Charter | None = None) -> Digest:
        """Adopt the first charter, and have every member take its seat."""
        adopted_leaf = self.act("coordinator", adopted(charter))
        for member in (charter or charter_of()).members:
            if Role.OPERATOR not in member.roles:
                self.seat(member.id)
        return adopted_leaf

    def seat(self, member: str) -> Digest:
        return self.act(member, admitted(member), signers=(member, recovery_of(member)))

    def anchor(self, at: int, witnesses: tuple[str, ...] = TRAINERS) -> Digest:
        """Log a checkpoint that the witnesses cosigned at a time in ms."""
        return self.act("coordinator", anchored(self.leaves, at, witnesses))

    def open(self, action: Action, terms: Any, **changes: Any) -> Digest:
        return self.act("secretariat", opened_with(action, terms, self.now, **changes))

    def carried(self, action: Action, terms: Any, voters: tuple[str, ...] = TRAINERS) -> Digest:
        """Open a proposal and have its voters say yes."""
        proposed = self.open(action, terms)
        for member in voters:
            self.vote(member, proposed)
        return proposed

    def cited(self, proposed: Digest) -> dict[str, Any]:
        """What a decision says of the proposal that carried it."""
        return {
            "proposal": proposed,
            "votes": approvals(self.state, self.state.proposals[proposed]),
        }

    def base_model(self) -> Digest:
        return self.act("pfn", base_model())

    def datasets(self) -> None:
        for member in TRAINERS:
            self.act(member, dataset(member))

    def proposal(self, plan: RunPlan | None = None) -> Digest:
        return self.act("secretariat", proposal(plan, self.now))

    def vote(self, member: str, proposed: Digest, choice: Choice = Choice.YES) -> Digest:
        opened = self.state.proposals[proposed].opened.body
        return self.act(
            member,
            VoteCast(
                proposal=proposed,
                terms_sha256=opened.terms_sha256,
                choice=choice,
                reason=digest("reason") if choice is Choice.VETO else "",
            ),
        )

    def mandate(self, proposed: Digest, run: str = RUN) -> Digest:
        return self.act("coordinator", mandate(self.state, proposed, run, self.now))

    def approved(self, run: str = RUN) -> Digest:
        """From nothing to a mandate."""
        self.genesis()
        self.base_model()
        self.datasets()
        proposed = self.proposal()
        for member in TRAINERS:
            self.vote(member, proposed)
        return self.mandate(proposed, run)

    def start(self, number: int, attempt: int = 1, **changes: Any) -> Digest:
        return self.act("coordinator", started(self.state, number, attempt), **changes)

    def receipt(self, member: str, number: int, attempt: int = 1) -> Digest:
        return self.act(member, receipt(member, number, attempt))

    def close(self, number: int, attempt: int = 1, **changes: Any) -> Digest:
        return self.act("coordinator", closed(self.state, number, attempt, **changes))

    def whole_round(self, number: int) -> None:
        self.start(number)
        for member in TRAINERS:
            self.receipt(member, number)
        self.close(number)


def adopted_digest(body: Any) -> Digest:
    return body.sha256 if isinstance(body, CharterAdopted) else charter_of().digest


def adopted(charter: Charter | None = None) -> CharterAdopted:
    charter = charter or charter_of()
    return CharterAdopted(
        sha256=charter.digest,
        charter=charter,
        operator_key=public("coordinator"),
        proposal="",
        votes=(),
    )


def admitted(member: str) -> MemberAdmitted:
    return MemberAdmitted(acting=public(member), recovery=public(recovery_of(member)))


def anchored(
    leaves: list[bytes], at: int = T0, witnesses: tuple[str, ...] = TRAINERS
) -> AnchorMade:
    note = cosign(signed_note(leaves), witnesses, at // 1000)
    return AnchorMade(
        kind=AnchorKind.WITNESSED, size=len(leaves), note=note.decode(), token_sha256=""
    )


def opened_with(action: Action, terms: Any, now: int = T0, **changes: Any) -> ProposalOpened:
    body = ProposalOpened(
        action=action, terms=terms, terms_sha256=digest_of(terms), closes_at=now + HOUR
    )
    return replace(body, **changes)


def described_base() -> BaseModel:
    return BaseModel(
        name="base",
        manifest_sha256=digest("base"),
        corpus_sha256=digest("corpus"),
        licence="Apache-2.0",
        parameters=1000,
    )


def base_model(manifest: str = "base") -> BaseModelApproved:
    model = replace(described_base(), manifest_sha256=digest(manifest))
    return BaseModelApproved(model=model, proposal="", votes=())


def dataset(member: str) -> DatasetDeclared:
    return DatasetDeclared(
        commitment=digest(f"dataset:{member}"),
        legal_basis=LegalBasis.NOT_PERSONAL,
        purpose="demo",
        residency="JP",
        licence="proprietary",
        policy_sha256=digest("policy"),
        size_bucket=20,
    )


def proposal(plan: RunPlan | None = None, now: int = T0, **changes: Any) -> ProposalOpened:
    return opened_with(Action.APPROVE_RUN, plan or plan_of(), now, **changes)


def mandate(
    state: State, proposed: Digest, run: str = RUN, now: int = T0, **changes: Any
) -> RunApproved:
    found = state.proposals[proposed]
    yes = {m: b for m, b in found.ballots.items() if b.choice is Choice.YES}
    plan = found.opened.body.plan
    assert plan is not None
    body = RunApproved(
        run=run,
        proposal=proposed,
        votes=tuple(sorted(ballot.leaf for ballot in yes.values())),
        members=tuple(member for member in plan.members if member in yes),
        plan=plan,
        plan_sha256=plan.digest,
        not_before=now,
        not_after=now + 10 * HOUR,
    )
    return replace(body, **changes)


def authorisation(number: int, attempt: int) -> Digest:
    return digest(f"authorisation:{number}:{attempt}")


def model_before(state: State) -> Digest:
    return state.model_out(RUN) or digest("adapter:0")


def started(state: State, number: int, attempt: int = 1, **changes: Any) -> RoundStarted:
    body = RoundStarted(
        run=RUN,
        round=number,
        attempt=attempt,
        authorisation_sha256=authorisation(number, attempt),
        model_in=model_before(state),
        invited=TRAINERS,
    )
    return replace(body, **changes)


def receipt(member: str, number: int, attempt: int = 1, **changes: Any) -> ParticipationSigned:
    body = ParticipationSigned(
        run=RUN,
        round=number,
        attempt=attempt,
        authorisation_sha256=authorisation(number, attempt),
        dataset=digest(f"dataset:{member}"),
        upload_sha256=digest(f"upload:{member}:{number}"),
        upload_bytes=4096,
    )
    return replace(body, **changes)


def audited(member: str, number: int, attempt: int = 1, **changes: Any) -> SumAudited:
    body = SumAudited(
        run=RUN,
        round=number,
        attempt=attempt,
        transcript_sha256=digest("transcript"),
        verdict=Verdict.MATCHES,
        chunks=3,
    )
    return replace(body, **changes)


def closed(state: State, number: int, attempt: int = 1, **changes: Any) -> RoundClosed:
    body = RoundClosed(
        run=RUN,
        round=number,
        attempt=attempt,
        outcome=Outcome.AGGREGATED,
        reason="",
        model_in=model_before(state),
        model_out=digest(f"adapter:{number}"),
        transcript_sha256=digest("transcript"),
        included=TRAINERS,
        excluded=(),
    )
    return replace(body, **changes)


@cache
def full_story(rounds: int = 2) -> Story:
    """A story that is told once; take a `copy_of` to go on with it."""
    story = Story()
    story.approved()
    for number in range(1, rounds + 1):
        story.whole_round(number)
    return story


def copy_of(story: Story) -> Story:
    return Story(story.state, list(story.leaves), story.counter, story.now)


def signed_note(leaves: list[bytes], key: NoteSigner = LOG_KEY) -> bytes:
    root = merkle.root_of(map(merkle.leaf_hash, leaves))
    return sign(Checkpoint(ORIGIN, TreeHead(len(leaves), Digest(root.hex()))), key)


def cosigned_note(leaves: list[bytes], witnesses: tuple[str, ...] = TRAINERS) -> bytes:
    return cosign(signed_note(leaves), witnesses)


def cosign(note: bytes, witnesses: tuple[str, ...] = TRAINERS, at: int = T0 // 1000) -> bytes:
    parsed = parse(note)
    lines = tuple(witness_of(name).cosign(parsed.text, at) for name in witnesses)
    return Note(parsed.text, (*parsed.lines, *lines)).encode()


def witness_lines(note: bytes, witnesses: tuple[str, ...] = TRAINERS) -> bytes:
    text = parse(note).text
    return b"".join(witness_of(name).cosign(text, T0 // 1000).encode() for name in witnesses)
