"""Groups of a cohort: who is summed with whom, and the digest of what all groups published.

The assignment follows from h1, the hash of all phase-0 messages, so no member can choose its group: it
would have to know every other key before it sends its own. A coordinator that colludes with the last
member to advertise can try keys until it likes the groups. That wins no delta, since each group
tolerates all t_c colluders, but it may bring poisoned updates together. Implements SA-1 (groups). Pure.
"""

from collections.abc import Sequence

from fedproto.ids import MemberId, tagged_hash


def assign(h1: bytes, listed: Sequence[MemberId], groups: int) -> tuple[tuple[MemberId, ...], ...]:
    """Return the groups of U1, whose sizes differ by one at most; members sorted in each."""
    if groups == 1:
        return (tuple(listed),)
    order = sorted(listed, key=lambda name: tagged_hash("renmei/v1/sa/group", h1, name.encode()))
    return tuple(tuple(sorted(order[place::groups])) for place in range(groups))


def round_digest(ctx: bytes, transcripts: Sequence[bytes]) -> bytes:
    """Return the digest of an attempt's transcripts: of a single one, its own."""
    if len(transcripts) == 1:
        return transcripts[0]
    return tagged_hash("renmei/v1/sa/round", ctx, *transcripts)
