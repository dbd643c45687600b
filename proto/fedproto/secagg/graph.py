"""Which members share a pairwise mask: everybody up to 16 members, a circulant graph above.

The circulant graph is fixed by the sorted list U1, so nobody can bias it. Its degree t_c + drop + 1
keeps honest survivors connected whatever t_c members collude and `drop` drop out (Harary graphs are
k-connected), so only their whole sum can be opened. Implements SA-1 (graph). Pure.
"""

from collections.abc import Sequence

from fedproto.ids import MemberId

COMPLETE_UP_TO = 16


def neighbours(
    members: Sequence[MemberId], member: MemberId, *, tolerated: int, threshold: int
) -> tuple[MemberId, ...]:
    """Return the members of sorted U1 with whom `member` shares a mask, sorted."""
    count = len(members)
    reach = (tolerated + (count - threshold) + 2) // 2
    if count <= COMPLETE_UP_TO or 2 * reach >= count - 1:
        return tuple(other for other in members if other != member)
    place = members.index(member)
    near = {members[(place + step) % count] for step in range(-reach, reach + 1) if step}
    return tuple(sorted(near))
