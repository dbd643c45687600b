"""Phase 4 at the coordinator: from revealed shares to the masks that are left in the sum.

Decides who is to blame for shares that lead nowhere. A share that its dealer did not commit to names
the holder; shares that all fit their commitments and give another secret than the dealer's header, its
keys or its entries show name the dealer. Recovers self seeds of survivors and mask secrets of dropouts,
never both of one member: a survivor's mask shares are refused with the message that brings them.
Implements SA-1 (Unmask). Pure.
"""

from collections.abc import Iterable, Mapping, Sequence

from federation.secure_aggregation.keying import Keying
from fedproto.ids import MemberId
from fedproto.secagg.agreement import (
    KemSecret,
    KeyPair,
    decapsulate,
    exchange,
    mask_keys,
    pair_info,
    pair_mask,
    self_mask,
    unwrap,
)
from fedproto.secagg.dealing import share_point
from fedproto.secagg.faults import IdentifiableAbort, not_genuine
from fedproto.secagg.keying_messages import self_seed_commitment
from fedproto.secagg.masking_messages import Reveal, RevealedShare
from fedproto.secagg.messages import encode
from fedproto.secagg.shamir import lagrange, recover
from fedproto.secagg.stages import MaskSeed


class Recovery:
    """The survivors and dropouts of one attempt, and what is revealed of each."""

    def __init__(
        self, keying: Keying, survivors: tuple[MemberId, ...], dropped: tuple[MemberId, ...]
    ) -> None:
        self._keying = keying
        self._survivors = survivors
        self._dropped = dropped
        self._chosen: tuple[Reveal, ...] = ()

    def require_shares(self, holder: MemberId, message: Reveal) -> None:
        """Refuse, naming the holder, shares that are not due or not those that it was dealt."""
        self._require(holder, "self", message.self_shares, self._survivors)
        self._require(holder, "mask", message.mask_shares, self._dropped)

    def left_masks(
        self, reveals: Mapping[MemberId, Reveal], members: Sequence[MemberId], threshold: int
    ) -> list[MaskSeed]:
        """Return the masks that are left in the sum: of survivors their own, of dropouts the pairs."""
        chosen = tuple(reveals)[:threshold]
        self._chosen = tuple(reveals[name] for name in chosen)
        by_point = {share_point(members, name): reveals[name] for name in chosen}
        coefficients = lagrange(tuple(by_point))
        seeds = []
        for place, dealer in enumerate(self._survivors):
            shares = {point: item.self_shares[place].share for point, item in by_point.items()}
            seeds.append(self._survivor_mask(dealer, shares, coefficients))
        for place, dealer in enumerate(self._dropped):
            shares = {point: item.mask_shares[place].share for point, item in by_point.items()}
            seeds.extend(self._dropout_masks(dealer, shares, coefficients))
        return seeds

    def _require(
        self, holder: MemberId, kind: str, shares: Sequence[RevealedShare], of: Sequence[MemberId]
    ) -> None:
        if tuple(item.member for item in shares) != tuple(of):
            raise not_genuine(holder, f"its {kind} shares are not those of the confirmed set")
        for item in shares:
            entry = self._keying.entry(item.member, holder)
            committed = entry.mask_commitment if kind == "mask" else entry.self_commitment
            edge = self._keying.edge(item.member, holder)
            if edge.commitment(kind, item.share, item.salt) != committed:
                raise not_genuine(
                    holder, f"its {kind} share of {item.member} is not the one dealt to it"
                )

    def _survivor_mask(
        self, dealer: MemberId, shares: Mapping[int, bytes], coefficients: Mapping[int, int]
    ) -> MaskSeed:
        keying = self._keying
        secret = self._recovered(dealer, shares, coefficients)
        committed = keying.shares[dealer].header.self_seed_commitment
        # Every share is the one that its dealer committed to, so only the dealer can be wrong here.
        if self_seed_commitment(keying.ctx, dealer, secret) != committed:
            raise self._convicted(dealer, "dealt shares of another self seed than it committed to")
        return self_mask(secret, keying.ctx, keying.h2, dealer, add=False)

    def _dropout_masks(
        self, dealer: MemberId, shares: Mapping[int, bytes], coefficients: Mapping[int, int]
    ) -> Iterable[MaskSeed]:
        keying = self._keying
        secret = self._recovered(dealer, shares, coefficients)
        keys = mask_keys(secret, keying.ctx, dealer)
        if keys.public != keying.keys[dealer].mask:
            raise self._convicted(dealer, "dealt shares of another mask secret than its keys show")
        # Adding the dropout's own half of each pair cancels the half that a survivor added.
        return [
            pair_mask(
                dealer,
                peer,
                exchange(keys, keying.keys[peer].mask_x25519),
                self._kem_secret(dealer, peer, secret, keys),
                pair_info(keying.ctx, keying.h2, dealer, peer),
            )
            for peer in keying.neighbours(dealer)
            if peer in self._survivors
        ]

    def _kem_secret(
        self, dropout: MemberId, peer: MemberId, mask_secret: bytes, keys: KeyPair
    ) -> KemSecret:
        keying = self._keying
        low, high = sorted((dropout, peer))
        entry, edge = keying.entry(low, high), keying.edge(low, high)
        if low == peer:
            kem = decapsulate(keys, entry.kem_ciphertext)
        else:
            try:
                secret = unwrap(entry.kem_wrapped, mask_secret, edge.wrap_info)
            except ValueError as error:
                raise self._convicted(dropout, f"dealt in vain: {error}") from None
            kem = KemSecret(secret=secret, ciphertext=entry.kem_ciphertext)
        # The keys are shown to be the advertised ones: only who dealt on this edge can be wrong.
        if edge.kem_commitment(kem.secret) != entry.kem_commitment:
            raise self._convicted(low, f"sent {high} another KEM secret than it committed to")
        return kem

    def _recovered(
        self, dealer: MemberId, shares: Mapping[int, bytes], coefficients: Mapping[int, int]
    ) -> bytes:
        try:
            return recover(shares, coefficients)
        except ValueError as error:
            raise self._convicted(dealer, f"dealt in vain: {error}") from None

    def _convicted(self, dealer: MemberId, why: str) -> IdentifiableAbort:
        # Each share was checked against the dealer's commitment: together they convict the dealer.
        evidence = (self._keying.shares[dealer], *self._chosen)
        return IdentifiableAbort((dealer,), f"{dealer} {why}", [encode(item) for item in evidence])
