"""A member's audit of a published sum: it reads its slice of the masked uploads and adds it up again.

Decides how many chunks are asked for ahead, and what is found. Trusts only what `SumAudit` holds to the
signatures that this member saw; whatever keeps it from that is a refusal, never a match. Sees masked
chunks of other members, which stay masked: their pair masks cancel in the sum alone.
Implements SA-1 (verifiable sum).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fedproto.errors import PeerFault
from fedproto.ids import Digest, MemberId
from fedproto.secagg.audit_messages import SumTranscript
from fedproto.secagg.faults import SumDiffers
from fedproto.secagg.messages import encode
from fedproto.secagg.sum_audit import SumAudit, Witnessed, assigned

# Chunks of 1 MiB under way: enough to keep the line busy, and a bound on what a node holds.
AHEAD = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What an audit found of a transcript; without a fault, all `chunks` of this member match."""

    transcript: Digest
    chunks: int
    fault: PeerFault | None


class ChunkReader:
    """Reads chunks in a fixed order, some of them asked for ahead."""

    def __init__(
        self,
        order: Sequence[tuple[MemberId, int]],
        ask: Callable[[MemberId, int], None],
        take: Callable[[], tuple[int, bytes]],
    ) -> None:
        self._order = order
        self._ask = ask
        self._take = take
        self._asked = 0
        self._read = 0

    def __call__(self, member: MemberId, chunk: int) -> bytes:
        """Return the next chunk; raise ValueError for another than the next."""
        if self._order[self._read] != (member, chunk):
            raise ValueError("chunks are read in the order of the audit")
        while self._asked < min(self._read + AHEAD, len(self._order)):
            self._ask(*self._order[self._asked])
            self._asked += 1
        self._read += 1
        index, data = self._take()
        # A chunk of another place has another digest: the audit refuses it.
        return data if index == chunk else b""


def audit_sum(
    me: MemberId,
    seen: Witnessed,
    published: SumTranscript,
    ask: Callable[[MemberId, int], None],
    take: Callable[[], tuple[int, bytes]],
) -> Finding:
    """Audit this member's chunks; `ask` requests one, `take` waits for the next one to come."""
    chunks = assigned(me, seen)
    read = ChunkReader([(name, chunk) for chunk in chunks for name in seen.uploads], ask, take)
    fault = None
    try:
        audit = SumAudit(seen, published)
        for chunk in chunks:
            if not audit.matches(chunk, read):
                raise SumDiffers(chunk, encode(published))
    except PeerFault as found:
        fault = found
    return Finding(transcript=Digest(published.digest.hex()), chunks=len(chunks), fault=fault)
