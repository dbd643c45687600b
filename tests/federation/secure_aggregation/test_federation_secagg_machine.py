"""A coordinator that does as it likes, over attempts at one round: a state machine over the real halves.

It shows each honest member any lists that can be made of what members signed, in any phase and as often
as it wants, and begins again when it wants; one member helps it with every share and signature that it
has. Whatever it does, nobody answers a phase twice, no member's two secrets can both be recovered, and
at most one set's sum can be opened in the whole round: over other members the difference of two sums
would show what one member sent.
"""

from collections import Counter, defaultdict

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from fedproto.errors import FederationError
from fedproto.secagg.keying_messages import (
    Advertise,
    DealtShare,
    EncryptedShares,
    KeyList,
    ShareList,
)
from fedproto.secagg.masking_messages import (
    Confirm,
    Confirmations,
    MaskedHeader,
    Reveal,
    SurvivorList,
)
from fedproto.secagg.messages import decode, encode

N, TOLERATED, COLLUDER = 4, 1, "m03"
THRESHOLD = (N + TOLERATED) // 2 + 1
NAMES = tuple(f"m{i:02d}" for i in range(N))
HONEST = NAMES[:3]
PHASES = ("advertise", "share", "mask", "confirm", "reveal")

# What the coordinator leaves out of the list that it shows to a member: nothing, the same to all (which
# goes on), or something else to each (which mostly ends the attempt).
left_out = st.sampled_from(((), *[(name,) for name in NAMES]))
left_out_of_each = st.one_of(
    st.just(dict.fromkeys(NAMES, ())),
    left_out.map(lambda without: dict.fromkeys(NAMES, without)),
    st.fixed_dictionaries(dict.fromkeys(NAMES, left_out)),
)


class Coordinator(RuleBasedStateMachine):
    """What the coordinator has gathered, and what follows from it for the members' privacy."""

    # Whether members keep, durably and before a share leaves, over whom they helped to open a sum.
    keeps_marks = True

    def __init__(self, attempt):
        super().__init__()
        self.attempt = attempt
        self.number = 0
        self.opened = {}
        self.released = set()
        self.opening = Counter()

    @initialize()
    def first(self):
        self.begin()

    @precondition(lambda self: self.number < 3 and self.got["share"])
    @rule()
    def again(self):
        self.begin()

    def begin(self):
        self.number += 1
        self.run = self.attempt(N, d=8, tolerated=TOLERATED, attempt=self.number)
        self.run.clients = {
            name: self.run.client(name, opened=self.opened.get(name)) for name in NAMES
        }
        self.got = {phase: {} for phase in PHASES}
        self.lists = {}
        self.reveals = defaultdict(set)
        self.selves, self.masks = Counter(), Counter()

    def ask(self, phase, name, call, *arguments):
        """Ask a member; a second answer to a phase is the end of the proof."""
        try:
            answer = call(*arguments)
        except FederationError:
            return
        assert name not in self.got[phase], f"{name} answered {phase} twice"
        self.got[phase][name] = answer

    def shown(self, phase, without):
        """Return what was gathered in a phase, by the members' names, as far as it is to be shown."""
        return [self.got[phase][name] for name in sorted(self.got[phase]) if name not in without]

    @precondition(lambda self: not self.got["advertise"])
    @rule()
    def advertise(self):
        for name in NAMES:
            self.ask("advertise", name, self.run.clients[name].advertise)

    @precondition(lambda self: len(self.got["advertise"]) >= THRESHOLD and not self.got["share"])
    @rule(without=left_out_of_each)
    def share(self, without):
        for name in NAMES:
            keys = tuple(decode(Advertise, raw, peer="m") for raw in self.shown("advertise", without[name]))  # fmt: skip
            self.ask("share", name, self.run.clients[name].share_keys, encode(KeyList(keys=keys)))
            if name in self.got["share"]:
                self.lists.setdefault(name, tuple(key.member for key in keys))

    @precondition(lambda self: len(self.got["share"]) >= THRESHOLD and not self.got["mask"])
    @rule(without=left_out_of_each)
    def mask(self, without):
        for name in NAMES:
            dealt = []
            for dealer in sorted(self.got["share"]):
                if dealer not in without[name] and name in self.lists[dealer]:
                    sent = decode(EncryptedShares, self.got["share"][dealer], peer=dealer)
                    entry = sent.entries[self.lists[dealer].index(name)]
                    dealt.append(DealtShare(header=sent.header, entry=entry))
            raw = encode(ShareList(dealt=tuple(dealt)))
            self.ask("mask", name, self.upload, name, raw)

    def upload(self, name, share_list):
        delta = self.run.deltas[name]
        return self.run.clients[name].mask(share_list, delta, 0.5, bytes(32)).header

    @precondition(lambda self: len(self.got["mask"]) >= THRESHOLD and not self.got["confirm"])
    @rule(without=left_out_of_each)
    def confirm(self, without):
        for name in NAMES:
            headers = tuple(
                decode(MaskedHeader, header, peer="m").header
                for header in self.shown("mask", without[name])
            )
            raw = encode(SurvivorList(headers=headers))
            self.ask("confirm", name, self.run.clients[name].confirm, raw)

    def colluding(self, like):
        """Return what the member that helps the coordinator signs: whatever another one did."""
        message = Confirm(ctx=like.ctx, member=COLLUDER, h1=like.h1, h2=like.h2, h3=like.h3)
        return message.signed_by(self.run.keys[COLLUDER])

    @precondition(lambda self: len(self.got["confirm"]) >= THRESHOLD and not self.got["reveal"])
    @rule()
    def reveal(self):
        """Hand each member the confirmations that suit it best."""
        confirms = {n: decode(Confirm, raw, peer=n) for n, raw in self.got["confirm"].items()}
        for name in (name for name in HONEST if name in confirms):
            same = {n: c for n, c in confirms.items() if c.h3 == confirms[name].h3}
            client = self.run.clients[name]
            survivors = client.survivors
            if COLLUDER in survivors:
                same[COLLUDER] = self.colluding(confirms[name])
            if self.keeps_marks and self.opened.setdefault(name, survivors) != survivors:
                continue
            listed = tuple(same[member] for member in sorted(same))
            before = set(self.got["reveal"])
            self.ask("reveal", name, client.reveal, encode(Confirmations(confirms=listed)))
            if name in set(self.got["reveal"]) - before:
                self.count(decode(Reveal, self.got["reveal"][name], peer=name), survivors)

    def count(self, reveal, survivors):
        self.reveals[reveal.h3, survivors].add(reveal.member)
        self.selves.update(item.member for item in reveal.self_shares)
        self.masks.update(item.member for item in reveal.mask_shares)
        for (_, members), holders in self.reveals.items():
            # The colluder adds its shares to any set, in it or not.
            if len(holders) + TOLERATED >= THRESHOLD:
                self.released.add(members)

    @rule(phase=st.sampled_from(PHASES), name=st.sampled_from(HONEST))
    def ask_again(self, phase, name):
        """The very same question, of one member that has answered it."""
        if name not in self.got[phase]:
            return
        everything = dict.fromkeys(NAMES, ())
        {"advertise": self.advertise, "reveal": self.reveal}.get(
            phase, lambda: getattr(self, phase)(everything)
        )()

    @invariant()
    def one_sum_at_most_can_be_opened_in_the_round(self):
        assert len(self.released) <= 1, self.released

    @invariant()
    def never_both_secrets_of_an_honest_member(self):
        for name in HONEST if self.number else ():
            both = min(self.selves[name], self.masks[name]) + TOLERATED
            assert both < THRESHOLD, f"both secrets of {name} can be recovered"


def test_whatever_the_coordinator_does_one_sum_at_most_can_be_opened(attempt):
    run_state_machine_as_test(
        lambda: Coordinator(attempt),
        settings=settings(
            max_examples=60,
            stateful_step_count=16,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )


def play(machine, *steps):
    """Play steps in turn, each of what is left out of the lists of that phase, and check after each."""
    for phase, without in steps:
        each = dict.fromkeys(NAMES, without)
        getattr(machine, phase)(**({"without": each} if phase in PHASES[1:4] else {}))
        machine.one_sum_at_most_can_be_opened_in_the_round()
        machine.never_both_secrets_of_an_honest_member()
    return machine


def whole(without):
    """A whole attempt whose sum leaves somebody out."""
    return (
        ("begin", ()), ("advertise", ()), ("share", ()), ("mask", ()), ("confirm", without), ("reveal", ())
    )  # fmt: skip


def test_the_machine_opens_the_sum_of_an_honest_round_and_again_the_same_one(attempt):
    machine = play(Coordinator(attempt), *whole(()), *whole(()))
    assert machine.released == {NAMES}


def test_the_machine_cannot_open_a_second_sum_over_one_member_less(attempt):
    machine = play(Coordinator(attempt), *whole(()), *whole(("m01",)))
    assert machine.released == {NAMES}
    assert not machine.got["confirm"].keys() & set(HONEST)


def test_the_invariant_finds_members_that_keep_no_mark(attempt):
    """Planted: without the mark a second sum opens, and its difference from the first is m01's."""

    class Forgetful(Coordinator):
        keeps_marks = False

    with pytest.raises(AssertionError, match="m01"):
        play(Forgetful(attempt), *whole(()), *whole(("m01",)))
