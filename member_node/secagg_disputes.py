"""A member's side of disputes over dealt shares: as a holder that complains, as a dealer that opens.

Decides when this member shows a pair that it dealt: on a complaint that its holder signed over this
attempt's own digests, once for each holder, for at most t_c holders, and only between its check of
the share list and its confirmation. With that many pairs opened, the coordinator and t_c colluding
members hold no share that they did not hold before (see dispute_messages), and T - t_c honest shares
of each secret stay closed. What breaks a rule is refused as the coordinator's doing: it had to check
what it relays. Implements SA-1 (identifiable abort). Pure.
"""

from collections.abc import Mapping

from fedproto.ids import MemberId
from fedproto.secagg.dealing import UnusableShareError
from fedproto.secagg.dispute_messages import KEM, Complaint, Opening
from fedproto.secagg.faults import COORDINATOR, forbidden, not_genuine
from fedproto.secagg.keying_messages import DealtShare
from fedproto.secagg.messages import decode
from fedproto.secagg.stages import Secret, SharePair
from member_node.secagg_transcript import Transcript


class Disputes(Secret):
    """What one member complains of, and which of its own pairs it may still open."""

    __slots__ = ("_complaints", "_opened", "_pairs", "_tolerated", "_transcript")

    def __init__(
        self,
        transcript: Transcript,
        tolerated: int,
        pairs: Mapping[MemberId, SharePair],
    ) -> None:
        self._transcript = transcript
        self._tolerated = tolerated
        # All pairs together are this member's secrets: kept until it confirms, no longer.
        self._pairs = dict(pairs)
        self._opened: set[MemberId] = set()
        self._complaints: dict[MemberId, DealtShare] = {}

    @property
    def open(self) -> tuple[MemberId, ...]:
        """The dealers whose openings this member waits for."""
        return tuple(self._complaints)

    def complain(self, item: DealtShare, error: UnusableShareError) -> Complaint:
        """Return an unsigned complaint; refuse to take part against more dealers than may collude."""
        if len(self._complaints) >= self._tolerated:
            raise not_genuine(item.member, str(error))
        self._complaints[item.member] = item
        seen = self._transcript
        return Complaint(
            ctx=seen.ctx,
            member=seen.member,
            h1=seen.h1,
            h2=seen.h2,
            dealer=item.member,
            reason=error.reason,
        )

    def take_opening(self, raw: bytes) -> tuple[MemberId, SharePair]:
        """Return a dealer's opened pair; refuse one that does not fit the dealer's commitments."""
        seen = self._transcript
        opening = decode(Opening, raw, peer=COORDINATOR)
        item = self._complaints.get(opening.member)
        if item is None or opening.holder != seen.member:
            raise not_genuine(COORDINATOR, "it relayed an opening that nobody here asked for")
        seen.require_signed([opening], h1=seen.h1, h2=seen.h2)
        fits = seen.edge(opening.member, seen.member).commitments(opening.pair)
        if fits != (item.entry.mask_commitment, item.entry.self_commitment):
            raise not_genuine(COORDINATOR, "it relayed an opening that does not fit")
        del self._complaints[opening.member]
        return opening.member, opening.pair

    def answer(self, raw: bytes) -> Opening:
        """Return the unsigned opening of the one pair that a holder complained of."""
        seen = self._transcript
        complaint = decode(Complaint, raw, peer=COORDINATOR)
        holder = complaint.member
        if complaint.dealer != seen.member or holder not in seen.dealt:
            raise not_genuine(COORDINATOR, "it relayed a complaint that is not of this member")
        seen.require_signed([complaint], h1=seen.h1, h2=seen.h2)
        if complaint.reason == KEM:
            raise forbidden("it asked for a pair over a KEM ciphertext, which a pair cannot settle")
        if holder in self._opened:
            raise forbidden(f"it asked a second time for the pair of {holder}")
        if len(self._opened) >= self._tolerated:
            raise forbidden(f"it asked for more than {self._tolerated} pairs of this member")
        self._opened.add(holder)
        pair = self._pairs[holder]
        return Opening(
            ctx=seen.ctx,
            member=seen.member,
            h1=seen.h1,
            h2=seen.h2,
            holder=holder,
            mask_share=pair.mask_share,
            self_share=pair.self_share,
            mask_salt=pair.mask_salt,
            self_salt=pair.self_salt,
        )
