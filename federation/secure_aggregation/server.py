"""The coordinator's half of secure aggregation SA-1: phases 0 to 4 of one attempt, without transport.

Decides who is in each phase, and checks all that it relays, so that members may blame it for what
they find wrong. A member's bad message is refused and named, and leaves the attempt as it was; a
member that stays silent is a dropout. It learns the sets U1, U2, U3, the sum and nothing else. A
message that arrives after its phase was closed is refused and not kept: its sender's self seed is
then never recovered. Whoever calls it closes the phases, and serialises calls: it is not thread-safe.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from enum import IntEnum
from typing import TypeVar

from federation.secure_aggregation.uploads import Uploads
from fedproto.authorisation import SignedAuthorisation
from fedproto.errors import LocalFault
from fedproto.identity import VerifyKey
from fedproto.ids import Digest, MemberId
from fedproto.secagg import ring
from fedproto.secagg.agreement import (
    KemSecret,
    KeyPair,
    decapsulate,
    mask_keys,
    pair_info,
    pair_mask,
    self_mask,
    unwrap,
)
from fedproto.secagg.dealing import Edge, share_point
from fedproto.secagg.faults import Equivocation, not_genuine, too_few, too_late
from fedproto.secagg.graph import neighbours
from fedproto.secagg.keying_messages import (
    Advertise,
    DealtShare,
    EncryptedShares,
    KeyList,
    SealedShare,
    ShareList,
    key_list_digest,
    self_seed_commitment,
    share_list_digest,
)
from fedproto.secagg.masking_messages import (
    Confirm,
    Confirmations,
    MaskedHeader,
    Reveal,
    RevealedShare,
    SurvivorList,
    survivor_list_digest,
    transcript_digest,
)
from fedproto.secagg.messages import Signed, decode, encode
from fedproto.secagg.params import Params
from fedproto.secagg.quantise import dequantise
from fedproto.secagg.shamir import lagrange, recover
from fedproto.secagg.stages import AggregateSum, MaskSeed

T = TypeVar("T")


class _Phase(IntEnum):
    ADVERTISE = 0
    SHARES = 1
    UPLOADS = 2
    CONFIRM = 3
    REVEAL = 4
    OVER = 5


class SecAggServer:
    """The coordinator in one attempt."""

    def __init__(
        self, *, authorisation: SignedAuthorisation, roster: Mapping[MemberId, VerifyKey]
    ) -> None:
        content = authorisation.content
        self._params = Params.of(content)
        self._ctx = authorisation.ctx
        self._members = content.members
        self._roster = {member: roster[member] for member in content.members}
        self._phase = _Phase.ADVERTISE
        self._h1 = self._h2 = self._h3 = b""
        # The members that may speak in the phase that is open, sorted.
        self._open_to: tuple[MemberId, ...] = content.members
        self._received: dict[tuple[_Phase, MemberId], bytes] = {}
        self._keys: dict[MemberId, Advertise] = {}
        self._shares: dict[MemberId, EncryptedShares] = {}
        self._uploads = Uploads(self._params)
        self._confirms: dict[MemberId, Confirm] = {}
        self._reveals: dict[MemberId, Reveal] = {}

    def receive_advertise(self, member: MemberId, raw: bytes) -> None:
        """Phase 0: take a member's keys."""
        if self._is_repeated(_Phase.ADVERTISE, member, raw):
            return
        message = decode(Advertise, raw, peer=member)
        self._require_signed(member, message)
        taken = {key for other in self._keys.values() for key in other.raw_keys}
        if len(taken | set(message.raw_keys)) != len(taken) + len(message.raw_keys):
            raise not_genuine(member, "it advertised a key that was advertised before")
        try:
            message.mask.require_usable()
            message.channel.require_usable()
        except ValueError:
            raise not_genuine(member, "its keys cannot be used") from None
        self._keys[member] = message
        self._note(_Phase.ADVERTISE, member, raw)

    def close_advertise(self) -> bytes:
        """Fix U1 and return the key list, the same for every member."""
        self._keys = self._close(_Phase.ADVERTISE, self._keys, "advertise")
        keys = tuple(self._keys.values())
        self._h1 = key_list_digest(self._ctx, keys)
        return encode(KeyList(keys=keys))

    def receive_shares(self, member: MemberId, raw: bytes) -> None:
        """Phase 1: take what a member deals to U1."""
        if self._is_repeated(_Phase.SHARES, member, raw):
            return
        message = decode(EncryptedShares, raw, peer=member)
        self._require_signed(member, message.header, h1=self._h1)
        if len(message.entries) != len(self._keys):
            raise not_genuine(member, "it has not one entry for each member of the key list")
        near = self._neighbours(member)
        for holder, entry in zip(self._keys, message.entries, strict=True):
            edge = holder in near and member < holder
            if not entry.has_parts(sealed=holder != member, edge=edge):
                raise not_genuine(member, f"its entry for {holder} has not the parts of this edge")
        self._shares[member] = message
        self._note(_Phase.SHARES, member, raw)

    def close_shares(self) -> dict[MemberId, bytes]:
        """Fix U2 and return, for each of its members, what was dealt to it."""
        self._shares = self._close(_Phase.SHARES, self._shares, "share keys")
        headers = [message.header for message in self._shares.values()]
        self._h2 = share_list_digest(self._ctx, self._h1, headers)
        return {
            holder: encode(
                ShareList(
                    dealt=tuple(
                        DealtShare(header=message.header, entry=self._entry(dealer, holder))
                        for dealer, message in self._shares.items()
                    )
                )
            )
            for holder in self._shares
        }

    def receive_header(self, member: MemberId, raw: bytes) -> None:
        """Phase 2: take the header of a member's upload."""
        if self._is_repeated(_Phase.UPLOADS, member, raw):
            return
        message = decode(MaskedHeader, raw, peer=member)
        self._require_signed(member, message.header, h1=self._h1, h2=self._h2)
        self._uploads.open(member, message)
        self._note(_Phase.UPLOADS, member, raw)

    def receive_chunk(self, member: MemberId, index: int, data: bytes) -> bool:
        """Phase 2: take one chunk; return whether the member's upload is complete."""
        self._require_open(_Phase.UPLOADS, member)
        return self._uploads.add(member, index, data)

    def close_uploads(self) -> bytes:
        """Fix U3, the members whose uploads are complete, and return the survivor list."""
        complete = self._close(_Phase.UPLOADS, self._uploads.complete, "masking")
        self._uploads.drop_incomplete()
        headers = tuple(complete[member].header for member in complete)
        self._h3 = survivor_list_digest(self._ctx, self._h2, headers)
        return encode(SurvivorList(headers=headers))

    def receive_confirm(self, member: MemberId, raw: bytes) -> None:
        """Phase 3: take a member's confirmation of U3."""
        if self._is_repeated(_Phase.CONFIRM, member, raw):
            return
        message = decode(Confirm, raw, peer=member)
        self._require_signed(member, message, h1=self._h1, h2=self._h2, h3=self._h3)
        self._confirms[member] = message
        self._note(_Phase.CONFIRM, member, raw)

    def close_confirm(self) -> bytes:
        """Return the confirmations; refused below the threshold, since no member would answer."""
        self._confirms = self._close(_Phase.CONFIRM, self._confirms, "confirm")
        return encode(Confirmations(confirms=tuple(self._confirms.values())))

    def receive_reveal(self, member: MemberId, raw: bytes) -> None:
        """Phase 4: take a member's shares; one that its dealer did not commit to names the holder."""
        if self._is_repeated(_Phase.REVEAL, member, raw):
            return
        message = decode(Reveal, raw, peer=member)
        self._require_signed(member, message, h1=self._h1, h2=self._h2, h3=self._h3)
        self._require_shares(member, "self", message.self_shares, self._survivors)
        self._require_shares(member, "mask", message.mask_shares, self._dropped)
        self._reveals[member] = message
        self._note(_Phase.REVEAL, member, raw)

    def can_finish(self) -> bool:
        """Say whether enough members revealed their shares."""
        return self._phase is _Phase.REVEAL and len(self._reveals) >= self._params.threshold

    def finish(self) -> AggregateSum:
        """Take every mask off the sum and return it; the attempt is over, whatever comes of it."""
        if self._phase is not _Phase.REVEAL:
            raise _out_of_turn("the sum was asked for outside the reveal phase")
        self._reveals = self._close(_Phase.REVEAL, self._reveals, "reveal")
        total = self._uploads.total
        ring.unmask(total, self._left_masks())
        mean_delta, weight = dequantise(total, self._params, len(self._survivors))
        return AggregateSum(
            mean_delta=mean_delta,
            weight=weight,
            included=self._survivors,
            transcript_sha256=Digest(self._transcript().hex()),
        )

    @property
    def _survivors(self) -> tuple[MemberId, ...]:
        return tuple(sorted(self._uploads.complete))

    @property
    def _dropped(self) -> tuple[MemberId, ...]:
        return tuple(name for name in self._shares if name not in self._uploads.complete)

    def _require_open(self, phase: _Phase, member: MemberId) -> None:
        if phase < self._phase:
            raise too_late(member, f"the {phase.name.lower()} phase is closed")
        if phase > self._phase:
            raise not_genuine(member, f"it came before the {phase.name.lower()} phase")
        if member not in self._open_to:
            raise not_genuine(member, "its sender is not in this phase")

    def _is_repeated(self, phase: _Phase, member: MemberId, raw: bytes) -> bool:
        """Let a member send the same bytes again after a broken connection, but no second answer."""
        known = self._received.get((phase, member))
        if known == hashlib.sha256(raw).digest():
            return True
        self._require_open(phase, member)
        if known is not None:
            raise not_genuine(member, f"it sent two different {phase.name.lower()} messages")
        return False

    def _note(self, phase: _Phase, member: MemberId, raw: bytes) -> None:
        self._received[phase, member] = hashlib.sha256(raw).digest()

    def _require_signed(self, member: MemberId, message: Signed, **expected: bytes) -> None:
        if message.member != member:
            raise not_genuine(member, f"it speaks for {message.member}")
        message.verify(self._roster[member], member)
        if message.ctx != self._ctx:
            raise not_genuine(member, "it is of another attempt")
        # Never blamed on the member: it cannot sign a digest of a list that it was not shown.
        name = message.differs(**expected)
        if name is not None:
            raise Equivocation(
                f"{member} signed another {name} than was fixed here", encode(message)
            )

    def _close(self, phase: _Phase, present: Mapping[MemberId, T], name: str) -> dict[MemberId, T]:
        if self._phase is not phase:
            raise _out_of_turn(f"the {name} phase was closed out of turn")
        if len(present) < self._params.threshold:
            self._phase = _Phase.OVER
            raise too_few(len(present), self._params.threshold, name)
        self._phase = _Phase(phase + 1)
        ordered = {member: present[member] for member in sorted(present)}
        # Who did not confirm may still be asked to reveal: it is in U3.
        if phase is not _Phase.CONFIRM:
            self._open_to = tuple(ordered)
        return ordered

    def _neighbours(self, member: MemberId) -> tuple[MemberId, ...]:
        return neighbours(
            tuple(self._keys),
            member,
            tolerated=self._params.tolerated,
            threshold=self._params.threshold,
        )

    def _entry(self, dealer: MemberId, holder: MemberId) -> SealedShare:
        return self._shares[dealer].entries[list(self._keys).index(holder)]

    def _edge(self, dealer: MemberId, holder: MemberId) -> Edge:
        return Edge(ctx=self._ctx, h1=self._h1, dealer=dealer, holder=holder)

    def _require_shares(
        self, holder: MemberId, kind: str, shares: Sequence[RevealedShare], of: Sequence[MemberId]
    ) -> None:
        if tuple(item.member for item in shares) != tuple(of):
            raise not_genuine(holder, f"its {kind} shares are not those of the confirmed set")
        for item in shares:
            entry = self._entry(item.member, holder)
            committed = entry.mask_commitment if kind == "mask" else entry.self_commitment
            edge = self._edge(item.member, holder)
            if edge.commitment(kind, item.share, item.salt) != committed:
                raise not_genuine(
                    holder, f"its {kind} share of {item.member} is not the one dealt to it"
                )

    def _left_masks(self) -> list[MaskSeed]:
        """Return the masks that are left in the sum: of survivors their own, of dropouts the pairs."""
        chosen = tuple(self._reveals)[: self._params.threshold]
        reveals = {share_point(self._members, name): self._reveals[name] for name in chosen}
        coefficients = lagrange(tuple(reveals))
        seeds = []
        for place, dealer in enumerate(self._survivors):
            shares = {point: item.self_shares[place].share for point, item in reveals.items()}
            seeds.append(self._survivor_mask(dealer, shares, coefficients))
        for place, dealer in enumerate(self._dropped):
            shares = {point: item.mask_shares[place].share for point, item in reveals.items()}
            seeds.extend(self._dropout_masks(dealer, shares, coefficients))
        return seeds

    def _survivor_mask(
        self, dealer: MemberId, shares: Mapping[int, bytes], coefficients: Mapping[int, int]
    ) -> MaskSeed:
        secret = _recovered(dealer, shares, coefficients)
        committed = self._shares[dealer].header.self_seed_commitment
        # Every share is the one that its dealer committed to, so only the dealer can be wrong here.
        if self_seed_commitment(self._ctx, dealer, secret) != committed:
            raise not_genuine(dealer, "it dealt shares of another self seed than it committed to")
        return self_mask(secret, self._ctx, self._h2, dealer, add=False)

    def _dropout_masks(
        self, dealer: MemberId, shares: Mapping[int, bytes], coefficients: Mapping[int, int]
    ) -> Iterable[MaskSeed]:
        secret = _recovered(dealer, shares, coefficients)
        keys = mask_keys(secret, self._ctx, dealer)
        if keys.public != self._keys[dealer].mask:
            raise not_genuine(dealer, "it dealt shares of another mask secret than its keys show")
        # Adding the dropout's own half of each pair cancels the half that a survivor added.
        return [
            pair_mask(
                keys,
                dealer,
                peer,
                self._keys[peer].mask_x25519,
                self._kem_secret(dealer, peer, secret, keys),
                pair_info(self._ctx, self._h2, dealer, peer),
            )
            for peer in self._neighbours(dealer)
            if peer in self._uploads.complete
        ]

    def _kem_secret(
        self, dropout: MemberId, peer: MemberId, mask_secret: bytes, keys: KeyPair
    ) -> KemSecret:
        if peer < dropout:
            return decapsulate(keys, self._entry(peer, dropout).kem_ciphertext)
        entry = self._entry(dropout, peer)
        try:
            secret = unwrap(entry.kem_wrapped, mask_secret, self._edge(dropout, peer).wrap_info)
        except ValueError as error:
            raise not_genuine(dropout, str(error)) from None
        return KemSecret(secret=secret, ciphertext=entry.kem_ciphertext)

    def _transcript(self) -> bytes:
        signed: list[Signed] = [*self._keys.values()]
        signed += [message.header for message in self._shares.values()]
        signed += [self._uploads.complete[member].header for member in self._survivors]
        signed += [*self._confirms.values(), *self._reveals.values()]
        return transcript_digest(self._ctx, (self._h1, self._h2, self._h3), signed)


def _recovered(
    dealer: MemberId, shares: Mapping[int, bytes], coefficients: Mapping[int, int]
) -> bytes:
    try:
        return recover(shares, coefficients)
    except ValueError as error:
        raise not_genuine(dealer, str(error)) from None


def _out_of_turn(why: str) -> LocalFault:
    return LocalFault(
        "RNM-BUG-0001",
        what="secure aggregation was driven out of turn",
        why=why,
        mend="report it with the trace of the round",
    )
