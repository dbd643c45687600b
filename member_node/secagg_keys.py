"""A member's own secrets of one attempt, from its first key to its masked upload.

Decides what this member deals, what it accepts of others, and which seeds mask its delta. Holds the
mask secret z_u, the self seed b_u, both private keys and the KEM secrets of its edges; its owner drops
it when the upload is masked. Trusts the transcript for whose keys are whose. Implements SA-1
(Advertise, ShareKeys). Pure.
"""

from collections.abc import Callable

from fedproto.ids import MemberId
from fedproto.secagg.agreement import (
    KemSecret,
    KeyPair,
    decapsulate,
    encapsulate,
    exchange,
    mask_keys,
    pair_info,
    pair_mask,
    self_mask,
)
from fedproto.secagg.dealing import (
    UnusableShareError,
    deal_pairs,
    open_entry,
    seal_entry,
    share_point,
)
from fedproto.secagg.dispute_messages import KEM
from fedproto.secagg.faults import COORDINATOR, not_genuine
from fedproto.secagg.keying_messages import (
    Advertise,
    DealtShare,
    SealedShare,
    self_seed_commitment,
)
from fedproto.secagg.stages import MaskSeed, RoundSeeds, Secret, SharePair
from member_node.secagg_transcript import Transcript


class AttemptKeys(Secret):
    """The secrets of one attempt."""

    __slots__ = ("_entropy", "_transcript", "channel", "classic", "kem", "mask", "pairs", "seeds")

    def __init__(self, transcript: Transcript, entropy: Callable[[int], bytes]) -> None:
        self._transcript = transcript
        self._entropy = entropy
        self.seeds = RoundSeeds(mask_secret=entropy(32), self_seed=entropy(32))
        self.mask = mask_keys(self.seeds.mask_secret, transcript.ctx, transcript.member)
        self.channel = KeyPair.from_seed(entropy(96))
        self.pairs: dict[MemberId, SharePair] = {}
        # Both halves of each edge's secret: X25519's from phase 1 on, so that masking is not kept
        # waiting and a key of small order is found out before anything is dealt.
        self.classic: dict[MemberId, bytes] = {}
        self.kem: dict[MemberId, KemSecret] = {}

    def advertise(self) -> Advertise:
        """Return the public halves, unsigned."""
        mask, channel = self.mask.public, self.channel.public
        return Advertise(
            ctx=self._transcript.ctx,
            member=self._transcript.member,
            mask_x25519=mask.x25519,
            mask_mlkem=mask.mlkem,
            channel_x25519=channel.x25519,
            channel_mlkem=channel.mlkem,
        )

    def self_seed_commitment(self) -> bytes:
        """Return the commitment that stands in the header."""
        seen = self._transcript
        return self_seed_commitment(seen.ctx, seen.member, self.seeds.self_seed)

    def deal(self, threshold: int) -> tuple[SealedShare, ...]:
        """Return one entry for each member of U1, in order."""
        seen = self._transcript
        points = {name: share_point(seen.members, name) for name in seen.listed}
        pairs = deal_pairs(self.seeds, threshold, list(points.values()), self._entropy)
        self.pairs = {name: pairs[point] for name, point in points.items()}
        return tuple(self._entry(keys) for keys in seen.listed.values())

    def _entry(self, keys: Advertise) -> SealedShare:
        seen, holder = self._transcript, keys.member
        try:
            if holder in seen.neighbours:
                self.classic[holder] = exchange(self.mask, keys.mask_x25519)
                if seen.member < holder:
                    self.kem[holder] = encapsulate(keys.mask_mlkem)
            return seal_entry(
                self.pairs[holder],
                seen.edge(seen.member, holder),
                None if holder == seen.member else keys.channel,
                self.kem.get(holder),
                self.seeds.mask_secret,
            )
        except ValueError:
            raise not_genuine(holder, "its signed keys cannot be used") from None

    def open(self, item: DealtShare) -> SharePair:
        """Return what a dealer of U2 dealt to this member.

        Raises:
            PeerFault: the coordinator altered it, or let through what it had to refuse.
            UnusableShareError: the dealer signed it, and it cannot be used.
        """
        seen, dealer, entry = self._transcript, item.member, item.entry
        place = list(seen.listed).index(seen.member)
        signed = item.header.entry_digests
        if len(signed) != len(seen.listed) or signed[place] != entry.digest:
            raise not_genuine(COORDINATOR, f"it altered what {dealer} dealt to this member")
        if dealer == seen.member:
            return self.pairs[dealer]
        edge = seen.edge(dealer, seen.member)
        shared = dealer in seen.neighbours and dealer < seen.member
        if not entry.has_parts(sealed=True, edge=shared):
            raise not_genuine(COORDINATOR, f"it relayed other parts of {dealer} than are due")
        if shared:
            kem = decapsulate(self.mask, entry.kem_ciphertext)
            if edge.kem_commitment(kem.secret) != entry.kem_commitment:
                raise UnusableShareError(KEM, "its KEM secret is not the one that it committed to")
            self.kem[dealer] = kem
        return open_entry(entry, edge, self.channel)

    def mask_seeds(self) -> list[MaskSeed]:
        """Return the masks of this member's upload: its own, and one for each neighbour in U2."""
        seen = self._transcript
        own = self_mask(self.seeds.self_seed, seen.ctx, seen.h2, seen.member, add=True)
        return [own] + [
            pair_mask(
                seen.member,
                peer,
                self.classic[peer],
                self.kem[peer],
                pair_info(seen.ctx, seen.h2, seen.member, peer),
            )
            for peer in seen.neighbours
            if peer in seen.dealt
        ]
