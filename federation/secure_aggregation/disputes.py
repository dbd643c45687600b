"""Disputes over dealt shares: which complaints are heard, what settles one, and who is named.

A holder's complaint goes to the dealer; the dealer opens that one pair; a pair that fits the dealer's
own signed commitments settles the dispute and goes to the holder. Whatever else comes of it ends the
attempt before anything is unmasked. Decided by counting on at most t_c colluding members: a holder is
heard against t_c dealers, and t_c + 1 complaints against one dealer convict it, since one of them is
honest, and an honest holder has no complaint of an honest dealer (see dispute_messages). A dispute over
a KEM ciphertext cannot be settled: holder and dealer are both named. Implements SA-1 (identifiable
abort). Pure.
"""

from federation.secure_aggregation.keying import Keying
from fedproto.ids import MemberId
from fedproto.secagg.dispute_messages import KEM, Complaint, Opening
from fedproto.secagg.faults import IdentifiableAbort, not_genuine
from fedproto.secagg.keying_messages import DealtShare
from fedproto.secagg.messages import encode


class Disputes:
    """The complaints of one attempt."""

    def __init__(self, keying: Keying, tolerated: int) -> None:
        self._keying = keying
        self._tolerated = tolerated
        # By dealer and holder; a settled one has its opening.
        self._complaints: dict[tuple[MemberId, MemberId], Complaint] = {}
        self._openings: dict[tuple[MemberId, MemberId], Opening] = {}

    def complain(self, complaint: Complaint) -> bool:
        """Hear a signed complaint; return whether it is new and has to go to its dealer.

        Raises:
            PeerFault: RNM-SECAGG-0001 naming the holder: it complains of too many, or of nobody.
            IdentifiableAbort: a dispute that cannot be settled, or one too many against a dealer.
        """
        holder, dealer = complaint.member, complaint.dealer
        if dealer not in self._keying.shares:
            raise not_genuine(holder, f"it complains of {dealer}, who dealt nothing")
        known = self._complaints.get((dealer, holder))
        if known is not None and known != complaint:
            raise not_genuine(holder, f"it complains of {dealer} twice")
        if known is not None:
            return False
        if sum(name == holder for _, name in self._complaints) >= self._tolerated:
            raise not_genuine(holder, f"it complains of more than {self._tolerated} dealers")
        if complaint.reason == KEM and not self._keying.entry(dealer, holder).kem_ciphertext:
            raise not_genuine(holder, f"{dealer} has no KEM ciphertext for it")
        self._complaints[dealer, holder] = complaint
        self._judge(dealer, holder, complaint)
        return True

    def settle(self, opening: Opening) -> bool:
        """Hear a signed opening; return whether it is new and has to go to its holder.

        Raises:
            PeerFault: RNM-SECAGG-0001 naming the dealer: nobody asked for this opening.
            IdentifiableAbort: the opened pair does not fit what the dealer committed to.
        """
        dealer, holder = opening.member, opening.holder
        if (dealer, holder) not in self._complaints:
            raise not_genuine(dealer, f"{holder} has no complaint of it")
        if (dealer, holder) in self._openings:
            return False
        entry = self._keying.entry(dealer, holder)
        fits = self._keying.edge(dealer, holder).commitments(opening.pair)
        if fits != (entry.mask_commitment, entry.self_commitment):
            raise self._abort(
                (dealer,),
                f"{dealer} opened for {holder} another pair than it committed to",
                opening,
            )
        self._openings[dealer, holder] = opening
        return True

    def is_disputing(self, holder: MemberId) -> bool:
        """Say whether a holder waits for an opening; it has nothing to upload until then."""
        return any(name == holder for _, name in self._unsettled())

    def require_settled(self) -> None:
        """Raise IdentifiableAbort, naming each dealer that did not open what it was asked to."""
        dealers = tuple(sorted({dealer for dealer, _ in self._unsettled()}))
        if dealers:
            raise self._abort(dealers, f"{' and '.join(dealers)} did not open a disputed share")

    def _unsettled(self) -> list[tuple[MemberId, MemberId]]:
        return [place for place in self._complaints if place not in self._openings]

    def _judge(self, dealer: MemberId, holder: MemberId, complaint: Complaint) -> None:
        if complaint.reason == KEM:
            # To ask the dealer for the pair would burn it and show nothing.
            raise self._abort(
                (dealer, holder),
                f"{holder} disputes the KEM ciphertext of {dealer}, which no opening can settle",
            )
        holders = [name for who, name in self._complaints if who == dealer]
        if len(holders) > self._tolerated:
            raise self._abort(
                (dealer,),
                f"{len(holders)} members complain of {dealer}, more than may collude against it",
            )

    def _abort(
        self, culprits: tuple[MemberId, ...], why: str, *opened: Opening
    ) -> IdentifiableAbort:
        evidence: list[bytes] = []
        for (dealer, holder), complaint in self._complaints.items():
            if dealer in culprits:
                dealt = DealtShare(
                    header=self._keying.shares[dealer].header,
                    entry=self._keying.entry(dealer, holder),
                )
                evidence += [encode(complaint), encode(dealt)]
        return IdentifiableAbort(culprits, why, [*evidence, *map(encode, opened)])
