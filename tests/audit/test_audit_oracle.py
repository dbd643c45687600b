"""A second reading of the charter, written apart from the first: both must allow the same acts.

The oracle (`second_reading`) counts raw JSON in plain loops and shares no line with `audit.decision`,
`audit.acts` or `fedproto.governance`. Hypothesis tells stories: charters, ballots, suspensions,
departures and amendments in any order; after each step every proposal is tried.
"""

import json
from collections import Counter
from dataclasses import dataclass, field, replace
from functools import cache

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ledger_kit import (
    HOUR,
    T0,
    TRAINERS,
    Story,
    admitted,
    adopted,
    base_model,
    charter_of,
    clause,
    digest,
    key_of,
    member_of,
    opened_with,
    plan_of,
    recovery_of,
)
from second_reading import allowed, counted_yes, votes_on

from audit.state import Rejected, apply
from fedproto import jcs
from fedproto.events.governance import (
    CharterAdopted,
    CharterTerms,
    Choice,
    KeyChanged,
    KeyOperation,
    KeyTerms,
    KeyUse,
    MemberStatus,
    Standing,
    StandingTerms,
    VoteCast,
)
from fedproto.events.rounds import RunApproved
from fedproto.governance.charter import Action, Role, Rule
from fedproto.statements import SignedEvent, event_from_json, event_to_json, leaf_id

CAST = ("honda", "nec", "pfn", "softbank", "sony")
VOTING = (Role.TRAINER, Role.EVALUATOR, Role.ADMINISTRATOR)
ASKED = (
    Action.APPROVE_RUN,
    Action.AMEND_CHARTER,
    Action.ADMIT_MEMBER,
    Action.CHANGE_STANDING,
    Action.REVOKE_KEY,
)
SECRETARY = (Role.ADMINISTRATOR, Role.PRETRAINER)


@cache
def key_id(name):
    return key_of(name).verify_key.key_id


@dataclass
class Tale(Story):
    """A story whose acts are not signed: `apply` gets them as verified, the oracle gets their bytes."""

    log: list = field(default_factory=list)
    proposals: list = field(default_factory=list)
    tried: Counter = field(default_factory=Counter)

    def read(self, actor, body, **changes):
        payload = jcs.dumps(event_to_json(self.event(actor, body, **changes)))
        return leaf_id(payload), json.loads(payload)

    def ask(self, leaf, raw, signers=()):
        """Return what `apply` says."""
        names = signers or (raw["actor"]["member"],)
        keys = tuple(sorted(key_id(name) for name in names))
        return apply(self.state, leaf, SignedEvent(event=event_from_json(raw), signers=keys))

    def keep(self, leaf, raw, result):
        if not isinstance(result, Rejected):
            self.state = result
            self.log.append((leaf, raw))

    def tell(self, actor, body, signers=(), **changes):
        """Something that both sides take for given."""
        leaf, raw = self.read(actor, body, **changes)
        result = self.ask(leaf, raw, signers)
        assert not isinstance(result, Rejected), result
        self.keep(leaf, raw, result)
        return leaf

    def compare(self, actor, body, *, keep, signers=(), **changes):
        leaf, raw = self.read(actor, body, **changes)
        result = self.ask(leaf, raw, signers)
        admits, expected = not isinstance(result, Rejected), allowed(self.log, raw)
        self.tried[raw["type"], expected] += 1
        assert admits == expected, (result if not admits else "admitted", raw)
        if keep:
            self.keep(leaf, raw, result)

    def found(self, charter):
        self.tell("coordinator", adopted(charter))
        for member in charter.members:
            if member.id != "coordinator":
                self.tell(member.id, admitted(member.id), (member.id, recovery_of(member.id)))
        self.tell("secretariat", base_model())

    def body_of(self, leaf):
        return next(raw for found, raw in self.log if found == leaf)

    def decision(self, proposal, cited):
        """The act that would carry a proposal out."""
        terms = self.state.proposals[proposal].opened.body.terms
        cites = {"proposal": proposal, "votes": tuple(sorted(leaf for leaf, _ in cited))}
        match terms:
            case CharterTerms():
                charter = terms.charter
                return CharterAdopted(
                    sha256=charter.digest, charter=charter, operator_key=None, **cites
                )
            case StandingTerms():
                return MemberStatus(member=terms.member, standing=terms.standing, **cites)
            case KeyTerms():
                return KeyChanged(
                    op=KeyOperation.REVOKE,
                    use=KeyUse.ACT,
                    key=terms.key,
                    new=None,
                    reason=terms.reason,
                    **cites,
                )
        willing = {who for _, who in cited}
        return RunApproved(
            run=proposal[:32],
            members=tuple(name for name in terms.members if name in willing),
            plan=terms,
            plan_sha256=terms.digest,
            not_before=T0,
            not_after=T0 + HOUR,
            **cites,
        )

    def check_decisions(self):
        """Try to carry out every proposal, citing each set of votes that one might take for right."""
        for leaf, opened in self.proposals:
            votes = votes_on(self.log, leaf)
            yes = [
                (vote, act["actor"]["member"])
                for vote, act in votes
                if act["body"]["choice"] == "yes"
            ]
            counted = counted_yes(self.log, opened, votes)
            for cited in {tuple(yes), tuple(counted), tuple(counted[:-1])}:
                self.compare("coordinator", self.decision(leaf, cited), keep=False)


def new_terms(tale, about, edit):
    """The terms of a proposal about a member, or nothing where there is nothing to propose."""
    now, key = tale.state.charter, key_id(about)
    members = {member.id: member for member in now.members}
    actions = now.actions
    match edit:
        case Standing():
            return Action.CHANGE_STANDING, StandingTerms(member=about, standing=edit)
        case "key":
            return Action.REVOKE_KEY, KeyTerms(member=about, key=key, reason="lost")
        case "run":
            trainers = now.with_role(Role.TRAINER)
            return Action.APPROVE_RUN, plan_of(members=trainers, min_members=min(3, len(trainers)))
        case "join" if "toyota" not in tale.state.seats:
            members["toyota"] = member_of("toyota", Role.TRAINER)
        case "drop":
            members.pop(about, None)
        case "train" if about in members:
            changed = tuple(dict.fromkeys((*members[about].roles, Role.TRAINER)))
            members[about] = replace(members[about], roles=changed)
        case Rule():
            asks = replace(actions[Action.AMEND_CHARTER.value], rule=edit, yes=0)
            actions = {**actions, Action.AMEND_CHARTER.value: asks}
    charter = replace(
        now,
        version=now.version + 1,
        prev_sha256=now.digest,
        members=tuple(members[name] for name in sorted(members)),
        actions=actions,
    )
    return Action.AMEND_CHARTER, CharterTerms(charter=charter)


def open_one(tale, about, edit):
    try:
        action, terms = new_terms(tale, about, edit)
    except ValueError:
        return  # no charter, or no plan, can be written that way
    leaf, raw = tale.read("secretariat", opened_with(action, terms, T0))
    result = tale.ask(leaf, raw)
    # Opening is judged by other tests; here a proposal is only what ballots are about.
    if not isinstance(result, Rejected):
        tale.keep(leaf, raw, result)
        tale.proposals.append((leaf, raw))


def poll(tale, which, choices, late=False):
    """Ballots on one of the proposals, by whoever is named, entitled or not."""
    if not tale.proposals:
        return
    leaf, opened = tale.proposals[which % len(tale.proposals)]
    for member, choice in choices:
        ballot = VoteCast(
            proposal=leaf,
            terms_sha256=opened["body"]["terms_sha256"],
            choice=choice,
            reason=digest("reason") if choice is Choice.VETO else "",
        )
        at = opened["body"]["closes_at"] + (1 if late else 0)
        tale.compare(member, ballot, keep=True, at=at)


def carry_out(tale, which, actor):
    if tale.proposals:
        leaf, opened = tale.proposals[which % len(tale.proposals)]
        counted = counted_yes(tale.log, opened, votes_on(tale.log, leaf))
        tale.compare(actor, tale.decision(leaf, counted), keep=True)


def leave(tale, member):
    body = MemberStatus(member=member, standing=Standing.WITHDRAWN, proposal="", votes=())
    tale.compare(member, body, keep=True)


def sit(tale):
    if tale.state.charter.member("toyota") and "toyota" not in tale.state.seats:
        tale.tell("toyota", admitted("toyota"), ("toyota", recovery_of("toyota")))


STEPS = {
    "open": open_one, "poll": poll, "carry out": carry_out, "leave": leave, "sit": sit
}  # fmt: skip
everyone = st.sampled_from((*CAST, "coordinator", "secretariat", "toyota"))
which = st.integers(0, 5)
answers = st.sampled_from((*[Choice.YES] * 7, Choice.NO, Choice.ABSTAIN, Choice.VETO))
polls = st.lists(st.tuples(everyone, answers), max_size=9)


@st.composite
def nearly_unanimous(draw):
    """Everyone says yes, but for one or none, who may come first or last."""
    names = draw(st.permutations((*CAST, "coordinator", "secretariat")))
    other = draw(st.integers(0, len(names)))
    answer = draw(st.sampled_from((Choice.VETO, Choice.NO, Choice.YES)))
    return [(name, answer if at == other else Choice.YES) for at, name in enumerate(names)]


edits = st.sampled_from(
    (
        Standing.SUSPENDED,
        Standing.SUSPENDED,
        Standing.EXPELLED,
        Standing.ACTIVE,
        "key",
        "run",
        "run",
        "join",
        "drop",
        "train",
        *Rule,
    )
)
opens = st.tuples(st.just("open"), everyone, edits)
ballots = st.tuples(
    st.just("poll"), which, st.one_of(polls, nearly_unanimous(), nearly_unanimous())
)
steps = st.one_of(
    opens,
    ballots,
    ballots,
    st.tuples(st.just("poll"), which, polls, st.just(True)),
    st.tuples(st.just("carry out"), which, st.just("coordinator")),
    st.tuples(st.just("carry out"), which, everyone),
    st.tuples(st.just("leave"), everyone),
    st.tuples(st.just("sit")),
)
programs = st.tuples(opens, ballots, opens, st.lists(steps, max_size=8)).map(
    lambda parts: [*parts[:3], *parts[3]]
)


@st.composite
def charters(draw):
    """A charter over a cast of five, an operator and a secretariat, any of whom may hold a vote."""
    roles = {name: set(draw(st.sets(st.sampled_from(VOTING)))) for name in CAST}
    roles["secretariat"] = {*SECRETARY, *draw(st.sets(st.sampled_from(VOTING)))}
    roles["coordinator"] = {Role.OPERATOR, *draw(st.sets(st.sampled_from(VOTING)))}
    # Whatever the votes are asked of, somebody holds them, and a run has its trainers.
    for name in TRAINERS[:3]:
        roles[name].add(Role.TRAINER)
    roles["honda"] |= {Role.EVALUATOR, Role.WITNESS}
    members = [
        member_of(name, *sorted(held or {Role.OBSERVER}, key=lambda role: role.value))
        for name, held in sorted(roles.items())
    ]
    actions = charter_of().actions
    for action in ASKED:
        actions = {**actions, action.value: draw(decided_by(roles))}
    return replace(charter_of(), members=tuple(members), actions=actions, witness_quorum=1)


@st.composite
def decided_by(draw, roles):
    vote = tuple(draw(st.lists(st.sampled_from(VOTING), min_size=1, max_size=2, unique=True)))
    rule = draw(st.sampled_from(list(Rule)))
    able = sum(1 for held in roles.values() if held & set(vote))
    return clause(
        (Role.ADMINISTRATOR,),
        vote,
        rule=rule,
        yes=draw(st.integers(1, min(able, 4))) if rule is Rule.COUNT else 0,
        veto=tuple(draw(st.lists(st.sampled_from(vote), unique=True))),
    )


def plain(**asks):
    """The kit's own charter, with other clauses."""
    actions = {Action(name.replace("__", ".")).value: asked for name, asked in asks.items()}
    old = charter_of()
    made = [m for m in old.members if m.id != "meti"]
    held = {"secretariat": SECRETARY, "pfn": (Role.OBSERVER,)}
    made = [member_of(m.id, *held.get(m.id, m.roles)) for m in made]
    return replace(old, members=tuple(made), actions={**old.actions, **actions})


YES = [(name, Choice.YES) for name in TRAINERS]
SUSPENSION = ("open", "nec", Standing.SUSPENDED)
CARRY = "carry out"


def tell(charter, program):
    tale = Tale()
    tale.found(charter)
    for step, *arguments in program:
        STEPS[step](tale, *arguments)
        tale.check_decisions()
    return tale


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(charters(), programs)
def test_the_ledger_allows_what_a_second_reading_of_the_charter_allows(charter, program):
    tell(charter, program)


TOLD = {
    "a yes of a member that is suspended afterwards carries nothing and is not cited": (
        plain(),
        [
            ("open", "nec", "run"),
            ("poll", 0, YES[:3]),
            SUSPENSION,
            ("poll", 1, YES),
            (CARRY, 1, "coordinator"),
            ("poll", 0, YES[3:]),
            (CARRY, 0, "coordinator"),
        ],
        {"run.approved": True},
    ),
    "a member that leaves after its yes is not bound by the mandate of the others": (
        plain(),
        [("open", "nec", "run"), ("poll", 0, YES), ("leave", "nec"), (CARRY, 0, "coordinator")],
        {"run.approved": True},
    ),
    "with all but the subject the subject has no say": (
        plain(),
        [
            SUSPENSION,
            ("poll", 0, YES),
            (CARRY, 0, "nec"),
            (CARRY, 0, "secretariat"),
            ("open", "nec", Standing.ACTIVE),
            ("poll", 1, YES),
            (CARRY, 1, "coordinator"),
        ],
        {"member.status": True},
    ),
    "a suspended member's silence does not hold up a vote of all": (
        plain(key__revoke=clause((Role.ADMINISTRATOR,), (Role.TRAINER,), rule=Rule.ALL, yes=0)),
        [
            ("open", "sony", "key"),
            ("poll", 0, [*YES[:1], *YES[2:]]),
            SUSPENSION,
            ("poll", 1, YES),
            (CARRY, 1, "coordinator"),
            (CARRY, 0, "coordinator"),
            ("open", "honda", "run"),
            ("poll", 2, YES),
        ],
        {"key.changed": True},
    ),
    "one veto outweighs every yes": (
        plain(
            run__approve=clause((Role.ADMINISTRATOR,), (Role.TRAINER,), veto=(Role.TRAINER,)),
        ),
        [
            ("open", "nec", "run"),
            ("poll", 0, [("sony", Choice.VETO), *YES]),
            (CARRY, 0, "coordinator"),
        ],
        {"run.approved": False},
    ),
    "a veto ends a vote on standing as well, though all the others say yes": (
        plain(member__status=clause(SECRETARY, (Role.TRAINER,), veto=(Role.TRAINER,), yes=2)),
        [SUSPENSION, ("poll", 0, [*YES[1:], ("honda", Choice.VETO)]), (CARRY, 0, "coordinator")],
        {"member.status": False},
    ),
    "a veto outlives its voter's seat, though a yes came after it": (
        plain(
            run__approve=clause((Role.ADMINISTRATOR,), (Role.TRAINER,), yes=2, veto=(Role.TRAINER,))
        ),
        [
            ("open", "nec", "run"),
            ("poll", 0, [("nec", Choice.VETO), *YES]),
            ("leave", "nec"),
            (CARRY, 0, "coordinator"),
        ],
        {"run.approved": False},
    ),
    "where nobody is left to vote, all of nobody carries nothing": (
        plain(
            member__status=clause(
                SECRETARY, (Role.ADMINISTRATOR,), rule=Rule.ALL_BUT_SUBJECT, yes=0
            )
        ),
        [
            ("open", "secretariat", Standing.EXPELLED),
            ("poll", 0, [("secretariat", Choice.YES), *YES]),
            (CARRY, 0, "coordinator"),
        ],
        {"member.status": False},
    ),
    "an amendment asks the new charter as well, which counts a member from its seat on": (
        plain(),
        [
            ("open", "nec", "join"),
            ("poll", 0, YES),
            (CARRY, 0, "secretariat"),
            ("open", "nec", Rule.ALL),
            ("poll", 1, YES),
            ("sit",),
            (CARRY, 1, "coordinator"),
            ("poll", 1, [("toyota", Choice.YES)]),
            (CARRY, 1, "coordinator"),
        ],
        {"charter.adopted": True},
    ),
    "an amendment ends what was open": (
        plain(),
        [
            ("open", "nec", "run"),
            ("poll", 0, YES),
            ("open", "sony", "drop"),
            ("poll", 1, YES),
            (CARRY, 1, "coordinator"),
            ("poll", 0, YES),
            (CARRY, 0, "coordinator"),
        ],
        {"charter.adopted": True, "run.approved": True},
    ),
    "who has left writes down no vote, not even on a key": (
        plain(),
        [
            ("open", "nec", "key"),
            ("poll", 0, YES),
            ("leave", "coordinator"),
            (CARRY, 0, "coordinator"),
        ],
        {"key.changed": False},
    ),
}


@pytest.mark.parametrize(("charter", "program", "answers"), TOLD.values(), ids=TOLD)
def test_both_readings_agree_on_what_was_told(charter, program, answers):
    """Each story reaches the answer that it is about: agreeing on nothing would be no agreement."""
    tale = tell(charter, program)
    for kind, answer in answers.items():
        assert tale.tried[kind, answer] > 0, tale.tried


def test_the_stories_reach_both_answers_for_every_kind_of_act():
    tried = sum((tell(charter, program).tried for charter, program, _ in TOLD.values()), Counter())
    kinds = ("vote.cast", "member.status", "key.changed", "charter.adopted", "run.approved")
    assert {(kind, answer) for kind in kinds for answer in (True, False)} <= set(tried), tried


def test_what_was_told_came_about():
    """The directed stories end where the charter's text says, whatever the two readings say."""
    ends = {name: tell(charter, program) for name, (charter, program, _) in TOLD.items()}
    states = [tale.state for tale in ends.values()]
    runs = [run.mandate.body.members for state in states for run in state.runs.values()]
    without_nec = tuple(name for name in TRAINERS if name != "nec")
    assert runs == [without_nec, without_nec]
    assert [state.standing("nec").value for state in states] == [
        "suspended", "withdrawn", "active", "suspended", *["active"] * 2, "withdrawn", *["active"] * 4
    ]  # fmt: skip
    assert [state.acting_key("sony") is None for state in states] == [
        *[False] * 3, True, *[False] * 5, True, False
    ]  # fmt: skip
    assert [state.charter.version for state in states] == [*[1] * 8, 3, 2, 1]
