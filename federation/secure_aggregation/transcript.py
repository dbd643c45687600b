"""What the coordinator publishes of a finished attempt, for members to add the sum up again.

Decides which secrets are published: self seeds of survivors, mask secrets of dropouts, as phase 4
revealed them, and the entries on the edges between the two. Reveals were checked as they came in.
`publish` is called after `finish`, with the unmasked words of the sum. Pure.
"""

from collections.abc import Mapping, Sequence

from federation.secure_aggregation.keying import Keying
from fedproto.ids import MemberId
from fedproto.secagg.audit_messages import (
    EdgeEntry,
    RecoveredSecret,
    SumTranscript,
    sum_chunk_digest,
)
from fedproto.secagg.dealing import share_point
from fedproto.secagg.masking_messages import MaskedHeader, Reveal
from fedproto.secagg.params import Params, Words
from fedproto.secagg.shamir import lagrange, recover


def publish(
    *,
    keying: Keying,
    params: Params,
    members: Sequence[MemberId],
    h3: bytes,
    messages: bytes,
    uploads: Mapping[MemberId, MaskedHeader],
    reveals: Mapping[MemberId, Reveal],
    total: Words,
) -> SumTranscript:
    """Return the publication of an attempt; `members` are those of the authorisation."""
    survivors = tuple(sorted(uploads))
    dropped = tuple(name for name in keying.shares if name not in uploads)
    chosen = tuple(reveals)[: params.threshold]
    by_point = {share_point(members, name): reveals[name] for name in chosen}
    coefficients = lagrange(tuple(by_point))

    def recovered(kind: str, place: int) -> bytes:
        of = {point: getattr(item, kind)[place].share for point, item in by_point.items()}
        return recover(of, coefficients)

    return SumTranscript(
        ctx=keying.ctx,
        h3=h3,
        messages=messages,
        uploads=tuple(uploads[name] for name in survivors),
        self_seeds=tuple(
            RecoveredSecret(member=name, secret=recovered("self_shares", place))
            for place, name in enumerate(survivors)
        ),
        mask_secrets=tuple(
            RecoveredSecret(member=name, secret=recovered("mask_shares", place))
            for place, name in enumerate(dropped)
        ),
        edges=_edges(keying, survivors, dropped),
        words=params.words,
        sum_digests=tuple(
            sum_chunk_digest(index, total[start : start + params.chunk_size].tobytes())
            for index, start in enumerate(range(0, total.size, params.chunk_size))
        ),
    )


def _edges(
    keying: Keying, survivors: Sequence[MemberId], dropped: Sequence[MemberId]
) -> tuple[EdgeEntry, ...]:
    pairs = [
        sorted((name, peer))
        for name in dropped
        for peer in keying.neighbours(name)
        if peer in survivors
    ]
    return tuple(
        EdgeEntry(dealer=low, holder=high, entry=keying.entry(low, high)) for low, high in pairs
    )
