"""Every way in which a coordinator and one colluding member can show survivor sets to three honest ones.

The real halves, explored exhaustively: each honest member is shown each survivor set that holds it, the
colluder confirms whatever helps and gives away all its shares, and each member is handed every list of
confirmations that can be made. Counted at the end: which sums can be opened, and of which members both
secrets can be recovered.
"""

import itertools
from collections import Counter

from fedproto.errors import FederationError
from fedproto.secagg.masking_messages import (
    Confirm,
    Confirmations,
    MaskedHeader,
    Reveal,
    SurvivorList,
    survivor_list_digest,
)
from fedproto.secagg.messages import decode, encode

N, TOLERATED, COLLUDER = 4, 1, "m03"
THRESHOLD = (N + TOLERATED) // 2 + 1
NAMES = tuple(f"m{i:02d}" for i in range(N))
HONEST = NAMES[:3]
SETS = tuple(
    subset for size in range(THRESHOLD, N + 1) for subset in itertools.combinations(NAMES, size)
)
SHOWN = list(itertools.product(*(tuple(s for s in SETS if name in s) for name in HONEST)))


class Played:
    """One attempt in which each honest member was shown the set that the coordinator chose for it."""

    def __init__(self, attempt, shown):
        self.run = attempt(N, d=8, tolerated=TOLERATED)
        self.run.advertise()
        self.run.share()
        headers = {}
        for name in NAMES:
            header = decode(MaskedHeader, self.run.mask_of(name).header, peer=name).header
            headers[name] = header
        self.lists = {s: tuple(headers[name] for name in s) for s in SETS}
        self.h3 = {
            s: survivor_list_digest(self.run.authorisation.ctx, headers["m00"].h2, listed)
            for s, listed in self.lists.items()
        }
        self.shown = dict(zip(HONEST, shown, strict=True))
        self.confirms = {s: {} for s in SETS}
        for name, chosen in self.shown.items():
            raw = self.run.clients[name].confirm(encode(SurvivorList(headers=self.lists[chosen])))
            self.confirms[chosen][name] = decode(Confirm, raw, peer=name)
        for chosen in SETS:
            if COLLUDER in chosen:
                self.confirms[chosen][COLLUDER] = self.colluding(chosen, headers["m00"])
        self.reveals = {name: self.reveal(name) for name in HONEST}

    def colluding(self, chosen, header):
        message = Confirm(
            ctx=header.ctx, member=COLLUDER, h1=header.h1, h2=header.h2, h3=self.h3[chosen]
        )
        return message.signed_by(self.run.keys[COLLUDER])

    def reveal(self, name):
        """Return what a member reveals to the best list that can be made for it, or nothing."""
        chosen = self.shown[name]
        confirms = self.confirms[chosen]
        listed = tuple(confirms[member] for member in sorted(confirms))
        try:
            raw = self.run.clients[name].reveal(encode(Confirmations(confirms=listed)))
        except FederationError:
            return None
        return decode(Reveal, raw, peer=name)


def plays(attempt):
    for shown in SHOWN:
        yield Played(attempt, shown)


def test_at_most_one_sum_can_be_opened_and_never_both_secrets_of_a_member(attempt):
    opened = Counter()
    for played in plays(attempt):
        by_set = Counter(played.shown[name] for name, raw in played.reveals.items() if raw)
        # The colluder adds its shares to any set, in it or not.
        released = [s for s, count in by_set.items() if count + TOLERATED >= THRESHOLD]
        assert len(released) <= 1, (played.shown, released)
        selves, masks = Counter(), Counter()
        for reveal in filter(None, played.reveals.values()):
            selves.update(item.member for item in reveal.self_shares)
            masks.update(item.member for item in reveal.mask_shares)
        for name in NAMES:
            both = min(selves[name], masks[name]) + TOLERATED
            assert both < THRESHOLD, f"both secrets of {name} are open when shown {played.shown}"
        opened.update(released)
    # The exploration reaches both ends: sums that open, and plays in which nothing does.
    assert set(opened) == {s for s in SETS if len(set(s) & set(HONEST)) + 1 >= THRESHOLD}
    assert sum(opened.values()) < len(SHOWN)


def test_the_count_would_find_a_threshold_that_is_too_low():
    """With T - 1 two sums could open in one play: what 2T > n + t_c is for."""
    found = 0
    for shown in SHOWN:
        by_set = Counter(shown)
        found += sum(count + TOLERATED >= THRESHOLD - 1 for count in by_set.values()) > 1
    assert found
