"""A consortium in memory: real keys, a real charter, real signed acts through the real rules."""

import hashlib
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from charter_kit import clause, clauses, limits, member

from audit.note import NoteSigner
from audit.state import EMPTY, Rejected, apply, open_next
from fedproto.authorisation import (
    SUITE,
    WORD_BITS,
    Authorisation,
    recovery_threshold,
    seal_authorisation,
)
from fedproto.events.governance import (
    CharterAdopted,
    Choice,
    MemberAdmitted,
    ProposalOpened,
    PublicKey,
    VoteCast,
)
from fedproto.events.models import BaseModel, BaseModelApproved, DatasetDeclared, LegalBasis
from fedproto.events.rounds import (
    Excluded,
    Outcome,
    ParticipationSigned,
    RoundClosed,
    RoundStarted,
    RunApproved,
    SumAudited,
    Verdict,
)
from fedproto.governance.charter import Action, Charter, Role
from fedproto.governance.plan import Aggregation, Lora, Method, RunPlan, Training
from fedproto.identity import SigningKey
from fedproto.ids import ZERO_DIGEST, sha256_hex
from fedproto.layout import vector_digest
from fedproto.statements import Actor, Event, Head, Trace, leaf_id, seal_event
from member_node.ballot import Found
from member_node.consent import Site
from member_node.marks import NEVER
from member_node.policy import DatasetTerms, Policy

# `node_kit` is shared by several tests.
sys.path.insert(0, str(Path(__file__).parent))

TRAINERS = ("honda", "nec", "softbank", "sony")
ORIGIN = "test.example/ledger"
NOW = 1_800_000_000_000
HOUR = 3_600_000
RUN = "7" * 32
BASE = sha256_hex(b"manifest")
INITIAL = np.zeros(8, np.float32)
_ROLES = {
    "coordinator": (Role.OPERATOR,),
    "pfn": (Role.PRETRAINER,),
    "secretariat": (Role.ADMINISTRATOR,),
    **dict.fromkeys(TRAINERS, (Role.TRAINER, Role.WITNESS)),
}


@cache
def signing_key(name):
    return SigningKey(hashlib.sha512(name.encode()).digest())


def make_charter(vote_quorum=3):
    members = []
    for name, roles in sorted(_ROLES.items()):
        seed = hashlib.sha256(name.encode()).digest()
        keys = {"key": signing_key(name).verify_key.digest}
        if Role.WITNESS in roles:
            keys["witness"] = NoteSigner(f"{name}.test/w1", seed, cosigner=True).vkey
        members.append(member(name, *roles, **keys))
    run = clause((Role.ADMINISTRATOR,), (Role.TRAINER,), yes=vote_quorum)
    return Charter(
        version=1,
        prev_sha256=ZERO_DIGEST,
        consortium="test",
        origin=ORIGIN,
        log_vkey=NoteSigner(ORIGIN, hashlib.sha256(b"log").digest()).vkey,
        witness_quorum=3,
        members=tuple(members),
        actions=clauses(run),
        limits=limits(),
        retention={},
        disclosure={},
    )


def make_plan(**changes):
    plan = RunPlan(
        purpose="domain-adaptation",
        base_manifest_sha256=BASE,
        initial_adapter=vector_digest(INITIAL),
        layout_sha256=sha256_hex(b"layout"),
        parameters=INITIAL.size,
        lora=Lora(rank=4, alpha=8, targets=("q_proj",)),
        training=Training(rounds=3, steps=10, batch=4, sequence=64, lr_micro=1000, seed=1),
        aggregation=Aggregation(
            method=Method.FEDAVG,
            outer_lr_milli=1000,
            momentum_milli=0,
            clip_milli=1000,
            bits=16,
            tolerated=1,
        ),
        members=TRAINERS,
        min_members=3,
        phase_timeout_s=60,
    )
    return replace(plan, **changes)


def _excluded(members):
    return tuple(Excluded(member=member, reason="RNM-ROUND-0001") for member in members)


class World:
    """A ledger that grows act by act; `leaves` are what a coordinator would serve."""

    def __init__(self, vote_quorum=3):
        self.charter = make_charter(vote_quorum)
        self.state = EMPTY
        self.leaves = []
        self.clock = NOW
        body = CharterAdopted(
            sha256=self.charter.digest,
            charter=self.charter,
            operator_key=PublicKey.of(signing_key("coordinator").verify_key),
            proposal="",
            votes=(),
        )
        self.act("coordinator", body)
        for name in sorted(_ROLES.keys() - {"coordinator"}):
            acting = PublicKey.of(signing_key(name).verify_key)
            self.act(name, MemberAdmitted(acting=acting, recovery=None))

    def seal(self, actor, body):
        key = signing_key(actor)
        event = Event(
            log=ORIGIN,
            id=f"{len(self.leaves) + 1:032x}",
            at=self.clock,
            actor=Actor(member=actor, key=key.verify_key.key_id),
            charter=self.charter.digest,
            head=Head(size=self.state.size, root=self.state.root),
            trace=Trace(trace_id="0" * 32, span_id="0" * 16),
            body=body,
        )
        return seal_event(event, (key,))

    def admit(self, leaf):
        after = apply(self.state, leaf_id(leaf), open_next(self.state, leaf))
        assert not isinstance(after, Rejected), after
        self.state = after
        self.leaves.append(leaf)
        return leaf_id(leaf)

    def act(self, actor, body):
        return self.admit(self.seal(actor, body))

    def propose(self, plan=None):
        self.plan = plan or make_plan()
        self.act(
            "pfn",
            BaseModelApproved(
                model=BaseModel(
                    name="base",
                    manifest_sha256=self.plan.base_manifest_sha256,
                    corpus_sha256=sha256_hex(b"corpus"),
                    licence="Apache-2.0",
                    parameters=1000,
                ),
                proposal="",
                votes=(),
            ),
        )
        proposal = ProposalOpened(
            action=Action.APPROVE_RUN,
            terms=self.plan,
            terms_sha256=self.plan.digest,
            closes_at=self.clock + HOUR,
        )
        self.proposal = self.act("secretariat", proposal)
        return self.proposal

    def vote(self, member, choice=Choice.YES):
        body = VoteCast(
            proposal=self.proposal, terms_sha256=self.plan.digest, choice=choice, reason=""
        )
        return self.act(member, body)

    def approve(self, members=TRAINERS):
        votes = tuple(sorted(self.vote(member) for member in members))
        self.mandate = RunApproved(
            run=RUN,
            proposal=self.proposal,
            votes=votes,
            members=tuple(sorted(members)),
            plan=self.plan,
            plan_sha256=self.plan.digest,
            not_before=self.clock,
            not_after=self.clock + HOUR,
        )
        self.mandate_leaf = self.act("coordinator", self.mandate)
        return self.mandate_leaf

    def declare(self, member, commitment):
        body = DatasetDeclared(
            commitment=commitment,
            legal_basis=LegalBasis.NOT_PERSONAL,
            purpose="domain-adaptation",
            residency="jp",
            licence="proprietary",
            policy_sha256=sha256_hex(b"policy"),
            size_bucket=10,
        )
        return self.act(member, body)

    def authorisation(self, **changes):
        """Return what an honest coordinator would sign next, with `changes`."""
        rounds = self.state.rounds(RUN)
        closed = [r.closed for r in rounds if r.closed]
        done = [c for c in closed if c.body.outcome is Outcome.AGGREGATED]
        aborted = bool(closed) and closed[-1].body.outcome is Outcome.ABORTED
        fields = {
            "v": 1,
            "suite": SUITE,
            "consortium": "test",
            "charter": self.charter.digest,
            "mandate": self.mandate_leaf,
            "prev": closed[-1].leaf if closed else self.mandate_leaf,
            "run": RUN,
            "round": len(done) + 1,
            "attempt": closed[-1].body.attempt + 1 if aborted else 1,
            "members": self.mandate.members,
            "recovery_threshold": recovery_threshold(len(self.mandate.members), 1),
            "tolerated": 1,
            "parameters": self.plan.parameters,
            "layout_sha256": self.plan.layout_sha256,
            "plan_sha256": self.plan.digest,
            "model_in": done[-1].body.model_out if done else self.plan.initial_adapter,
            "word_bits": WORD_BITS,
            "bits": self.plan.aggregation.bits,
            "clip_milli": self.plan.aggregation.clip_milli,
            "not_after": self.clock + 600_000,
            "nonce": sha256_hex(str(len(self.leaves)).encode()),
        }
        return Authorisation(**{**fields, **changes})

    def sign(self, content, signer="coordinator"):
        return seal_authorisation(content, signing_key(signer))

    def start(self, authorisation):
        """Record the attempt, as the coordinator must before it invites anybody."""
        content = authorisation.content
        return self.act(
            "coordinator",
            RoundStarted(
                run=content.run,
                round=content.round,
                attempt=content.attempt,
                authorisation_sha256=authorisation.digest,
                model_in=content.model_in,
                invited=content.members,
            ),
        )

    def audit(self, name, verdict=Verdict.MATCHES):
        """Let a member sign for the attempt under way, and say what it found of the sum."""
        attempt = self.state.rounds(RUN)[-1]
        place = {"run": RUN, "round": attempt.started.body.round}
        place["attempt"] = attempt.started.body.attempt
        dataset = sha256_hex(f"dataset that {name} signs with".encode())
        if self.state.dataset(dataset) is None:
            self.declare(name, dataset)
        if all(receipt.member != name for receipt in attempt.receipts):
            receipt = ParticipationSigned(
                **place,
                authorisation_sha256=attempt.started.body.authorisation_sha256,
                dataset=dataset,
                upload_sha256=ZERO_DIGEST,
                upload_bytes=36,
            )
            self.act(name, receipt)
        finding = SumAudited(**place, transcript_sha256=ZERO_DIGEST, verdict=verdict, chunks=1)
        return self.act(name, finding)

    def close(self, outcome=Outcome.AGGREGATED, model_out=None, auditors=None, groups=()):
        started = self.state.rounds(RUN)[-1].started.body
        aborted = outcome is Outcome.ABORTED
        for name in () if aborted else AUDITORS if auditors is None else auditors:
            self.audit(name)
        return self.act(
            "coordinator",
            RoundClosed(
                run=RUN,
                round=started.round,
                attempt=started.attempt,
                outcome=outcome,
                reason="RNM-ROUND-0001" if aborted else "",
                model_in=started.model_in,
                model_out=started.model_in if aborted else model_out,
                transcript_sha256=ZERO_DIGEST,
                included=() if aborted else started.invited,
                excluded=_excluded(started.invited) if aborted else (),
                groups=groups,
            ),
        )


# T of the four; nec is the node under test, which signs for itself where a test needs it.
AUDITORS = ("honda", "softbank", "sony")

WILLING = Policy(
    purposes=("domain-adaptation",),
    base_models=(BASE,),
    max_rank=4,
    max_rounds=3,
    max_steps=10,
    max_phase_timeout_s=60,
    auto_vote=True,
    dataset=DatasetTerms(
        legal_basis=LegalBasis.NOT_PERSONAL,
        purpose="domain-adaptation",
        residency="jp",
        licence="proprietary",
    ),
)


@pytest.fixture
def world():
    return World()


@pytest.fixture
def approved(world):
    """A ledger with a mandate for four members."""
    world.propose()
    world.approve()
    return world


@pytest.fixture
def site():
    return Site(me="nec", policy=WILLING, last=NEVER)


@pytest.fixture
def found():
    return Found(
        layout_sha256=sha256_hex(b"layout"),
        parameters=INITIAL.size,
        initial=INITIAL,
        dataset=sha256_hex(b"dataset of nec"),
    )


@pytest.fixture
def make_world():
    return World


@pytest.fixture
def plan_of():
    return make_plan


@pytest.fixture
def key_of():
    return signing_key


@pytest.fixture
def willing():
    return WILLING
