"""Whatever is thrown at `apply`, in whatever order: only what was admitted leaves a trace.

Acts valid and invalid, of every kind, by anybody, early, late, twice and damaged. What was admitted gives
the same state when it is replayed, and what was refused changes nothing.
"""

from collections import Counter
from dataclasses import replace
from functools import cache

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ledger_kit import (
    HOUR,
    RUN,
    T0,
    TRAINERS,
    Story,
    admitted,
    adopted,
    anchored,
    base_model,
    closed,
    copy_of,
    dataset,
    digest,
    full_story,
    key_of,
    mandate,
    opened_with,
    proposal,
    public,
    receipt,
    recovery_of,
    started,
)

from audit.replay import replay
from audit.state import Rejected, apply, open_next
from audit.summary import state_digest
from fedproto.errors import LocalFault
from fedproto.events.governance import (
    ActRefused,
    CharterTerms,
    Choice,
    Closing,
    EmergencyResumed,
    EmergencyStopped,
    KeyChanged,
    KeyOperation,
    KeyTerms,
    KeyUse,
    MemberStatus,
    ProposalClosed,
    ResumeTerms,
    Standing,
    StandingTerms,
    VoteCast,
)
from fedproto.events.models import DatasetWithdrawn, Remedy
from fedproto.events.oversight import IncidentReported, StateSnapshot
from fedproto.events.rounds import Outcome, UpdateCommitted
from fedproto.governance.charter import Action
from fedproto.statements import Actor, Head, leaf_id


class Dice:
    """Choices that a seed repeats."""

    def __init__(self, seed):
        self._rng = np.random.default_rng(seed)

    def randrange(self, end):
        return int(self._rng.integers(end))

    def randint(self, low, high):
        return low + self.randrange(high - low + 1)

    def choice(self, items):
        return items[self.randrange(len(items))]

    def often(self, usual, *others):
        return usual if self.randrange(8) else self.choice(others)


EVERYONE = (*TRAINERS, "coordinator", "pfn", "secretariat", "meti", "stranger")


@cache
def begun(how):
    if how == "rounds":
        return full_story()
    story = Story()
    if how == "mandate":
        story.approved()
    elif how == "seating":
        story.act("coordinator", adopted())
        for member in TRAINERS:
            story.seat(member)
    elif how == "founded":
        story.genesis()
        story.base_model()
        story.datasets()
    return story


def known(rng, items, other):
    """One of the things that the ledger knows, or something that it does not."""
    found = [*items, other]
    return found[rng.randrange(len(found))]


def attempt(rng, story, later=0):
    """The attempt that is under way (or the next round's), or another."""
    rounds = story.state.rounds(RUN)
    number = rounds[-1].started.body.round if rounds else 1 - later
    last = rounds[-1].started.body.attempt if rounds and not later else 1
    return rng.often((number + later, last), (1, 1), (1, 2), (4, 1), (number + 1, last))


def change_key(rng, story):
    member = rng.choice(TRAINERS)
    rotated = rng.choice((True, False))
    return KeyChanged(
        op=KeyOperation.ROTATE if rotated else KeyOperation.REVOKE,
        use=rng.choice(list(KeyUse)),
        key=key_of(rng.choice((member, recovery_of(member)))).verify_key.key_id,
        new=public(f"next:{member}") if rotated else None,
        reason="",
        proposal="",
        votes=(),
    )


def open_any(rng, story):
    member = rng.choice(TRAINERS)
    old = story.state.charter if story.state.charters else begun("founded").state.charter
    charter = replace(old, version=old.version + 1, prev_sha256=old.digest, witness_quorum=2)
    stop = known(rng, [stop.leaf for stop in story.state.stops], digest("no stop"))
    action, terms = rng.choice(
        (
            (Action.CHANGE_STANDING, StandingTerms(member=member, standing=Standing.SUSPENDED)),
            (
                Action.REVOKE_KEY,
                KeyTerms(member=member, key=key_of(member).verify_key.key_id, reason="lost"),
            ),
            (Action.AMEND_CHARTER, CharterTerms(charter=charter)),
            (Action.RESUME, ResumeTerms(stop=stop)),
        )
    )
    return opened_with(action, terms)


def vote(rng, story):
    leaf = known(rng, story.state.proposals, digest("no proposal"))
    found = story.state.proposals.get(leaf)
    return VoteCast(
        proposal=leaf,
        terms_sha256=found.opened.body.terms_sha256 if found else digest("terms"),
        choice=rng.choice((*[Choice.YES] * 5, *Choice)),
        reason=digest("reason"),
    )


def approve(rng, story):
    runs = [leaf for leaf, found in story.state.proposals.items() if found.opened.body.plan]
    if not runs:
        return base_model("another")
    run = rng.choice((RUN, "cd" * 16))
    return mandate(story.state, rng.choice(runs), run)


def close_proposal(rng, story):
    leaf = known(rng, story.state.proposals, digest("no proposal"))
    found = story.state.proposals.get(leaf)
    votes = tuple(sorted(ballot.leaf for ballot in found.votes)) if found else ()
    return ProposalClosed(proposal=leaf, outcome=rng.choice(list(Closing)), votes=votes)


def close_round(rng, story):
    aborted = {"outcome": Outcome.ABORTED, "reason": "RNM-ROUND-0001", "included": ()}
    return closed(story.state, *attempt(rng, story), **rng.choice(({}, aborted)))


def commit(rng, story):
    number, again = attempt(rng, story)
    return UpdateCommitted(
        run=RUN,
        round=number,
        attempt=again,
        commitment=digest(f"update:{rng.randint(0, 2)}"),
        clip_milli=1000,
        size_bucket=10,
        steps_bucket=3,
    )


def resume(rng, story):
    stop = known(rng, [stop.leaf for stop in story.state.stops], digest("no stop"))
    leaf = known(rng, story.state.proposals, digest("no proposal"))
    found = story.state.proposals.get(leaf)
    votes = tuple(sorted(ballot.leaf for ballot in found.votes)) if found else ()
    return EmergencyResumed(stop=stop, proposal=leaf, votes=votes)


def status(rng, story):
    member = rng.choice(TRAINERS)
    return MemberStatus(member=member, standing=Standing.WITHDRAWN, proposal="", votes=())


def snapshot(rng, story):
    size = rng.randint(1, story.state.size + 1)
    return StateSnapshot(size=size, state_sha256=state_digest(story.state))


def anchor(rng, story):
    at = T0 + rng.randint(-1, 3) * HOUR
    return anchored(story.leaves or [b"nothing"], at, TRAINERS[: rng.randint(2, 4)])


KINDS = {
    "dataset": lambda rng, story: dataset(rng.choice((*TRAINERS, "new", "newer"))),
    "withdrawal": lambda rng, story: DatasetWithdrawn(
        commitment=digest(f"dataset:{rng.choice(TRAINERS)}"),
        reason="consent",
        remedy=rng.choice(list(Remedy)),
    ),
    "base": lambda rng, story: base_model(rng.choice(("base", "other"))),
    "run": lambda rng, story: proposal(),
    "proposal": open_any,
    "vote": vote,
    "mandate": approve,
    "closing": close_proposal,
    "start": lambda rng, story: started(story.state, *attempt(rng, story, 1)),
    "commitment": commit,
    "receipt": lambda rng, story: receipt(rng.choice(TRAINERS), *attempt(rng, story)),
    "record": close_round,
    "key": change_key,
    "status": status,
    "stop": lambda rng, story: EmergencyStopped(run=rng.choice(("", RUN)), reason="leak"),
    "resume": resume,
    "refusal": lambda rng, story: ActRefused(
        member="nec", kind="vote.cast", sha256=digest("refused"), code="RNM-GOV-0001"
    ),
    "incident": lambda rng, story: IncidentReported(
        category="leak", severity=rng.randint(1, 4), report=digest("report")
    ),
    "snapshot": snapshot,
    "anchor": anchor,
    "charter": lambda rng, story: adopted(),
    "seat": lambda rng, story: admitted(rng.choice(("pfn", "secretariat", "meti", "nec"))),
}
# Who would do it, so that the storm is not of refusals alone.
RIGHTLY = {
    "charter": "coordinator",
    "base": "pfn",
    "run": "secretariat",
    "proposal": "secretariat",
    "mandate": "coordinator",
    "closing": "coordinator",
    "start": "coordinator",
    "record": "coordinator",
    "resume": "secretariat",
    "refusal": "coordinator",
    "snapshot": "coordinator",
    "anchor": "coordinator",
}
HEADS = (Head(size=0, root=digest("fork")), Head(size=999, root=digest("")))


RARELY = {"stop", "status", "key", "charter", "seat", "anchor"}
USUAL = sorted(KINDS.keys() - RARELY)


def thrown(rng, story):
    """Choose a leaf: an act in some state of order, one of the leaves again, or damaged bytes."""
    kind = rng.often(rng.choice(USUAL), *sorted(RARELY))
    body = KINDS[kind](rng, story)
    rightly = RIGHTLY.get(kind) or rng.choice(TRAINERS)
    if kind == "receipt":
        rightly = next((m for m in TRAINERS if digest(f"dataset:{m}") == body.dataset), rightly)
    actor = rng.often(rightly, *EVERYONE)
    signers = rng.often((actor,), (actor, f"next:{actor}"), ("stranger",))
    changes = {"at": T0 + rng.often(0, HOUR, 2 * HOUR, 100 * HOUR)}
    if not rng.randrange(12):
        changes["head"] = rng.choice(HEADS)
    if kind == "seat":
        actor = rng.choice(("pfn", "secretariat", "meti"))
        body, signers = admitted(actor), (actor, recovery_of(actor))
    if kind == "key":
        named = rng.choice((actor, recovery_of(actor)))
        signers = rng.choice(((named,), (named, f"next:{actor}")))
        changes["actor"] = Actor(member=actor, key=key_of(named).verify_key.key_id)
    leaf = story.leaf(actor, body, signers=signers, **changes)
    return damaged(rng, story, leaf) if not rng.randrange(12) else leaf


def damaged(rng, story, leaf):
    at = rng.randrange(len(leaf))
    flipped = leaf[:at] + bytes([leaf[at] ^ 1]) + leaf[at + 1 :]
    return rng.choice((leaf[:at], flipped, *story.leaves[-2:]))


def throw(story, leaf):
    """Ask for admission; return what was admitted or why it was not."""
    try:
        signed = open_next(story.state, leaf)
    except LocalFault as fault:
        return None, fault.code
    result = apply(story.state, leaf_id(leaf), signed)
    if isinstance(result, Rejected):
        return None, result.code
    return result, signed.event.type


def storm(how, rng, acts):
    """Throw acts at a story; return how often each kind was admitted, or each code said."""
    story, seen = copy_of(begun(how)), Counter()
    story.counter = 10_000
    for _ in range(acts):
        leaf = thrown(rng, story)
        before = state_digest(story.state)
        result, said = throw(story, leaf)
        seen[said] += 1
        assert state_digest(story.state) == before
        if result is None:
            # Asked again, it is refused again, by the same rule.
            assert throw(story, leaf) == (None, said)
            continue
        assert state_digest(result) != before
        story.state = result
        story.leaves.append(leaf)
    found = replay(story.leaves)
    assert found.violations == ()
    assert state_digest(found.state) == state_digest(story.state)
    assert found.state.head == story.state.head
    return seen


STARTS = ("nothing", "seating", "founded", "mandate", "rounds")


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(STARTS), st.integers(0, 2**32), st.integers(1, 25))
def test_what_was_admitted_is_all_there_is(how, seed, acts):
    storm(how, Dice(seed), acts)


def test_a_storm_is_not_of_refusals_alone():
    """The same with fixed dice: most kinds are admitted now and then, and every sort of rule refuses."""
    storms = [storm(how, Dice(seed), 80) for how in STARTS for seed in range(4)]
    seen = sum(storms, Counter())
    kinds = {said for said in seen if not said.startswith("RNM-")}
    assert len(kinds) >= 15, seen
    assert {
        "RNM-GOV-0001",
        "RNM-GOV-0002",
        "RNM-GOV-0003",
        "RNM-GOV-0004",
        "RNM-SIG-0001",
        "RNM-SIG-0002",
        "RNM-FORM-0001",
    } <= set(seen), seen
