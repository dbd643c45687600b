"""The member's half of secure aggregation SA-1: phases 0 to 4 of one attempt, without transport.

Decides what this member tells the coordinator, and refuses whatever could open its delta: a list
below the threshold, a list that leaves it out or shows others something else, a survivor set without
T confirmations, a second answer in any phase. It trusts the roster of the charter in force, its own
key and its entropy, never the coordinator. Each phase runs once, in order; a phase that fails ends
the attempt and drops the secrets.

What it cannot know it leaves to its caller, the consent check: that the authorisation is fresh. The
caller keeps the durable high-water mark of (run, round, attempt), writes it to disk *before* it makes
a client, and refuses what is not strictly newer; two clients for one authorisation would be a reveal
asked twice. The secrets of a client exist in memory only, so a restart never resumes an attempt.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum

from fedproto.authorisation import SignedAuthorisation
from fedproto.errors import LocalFault
from fedproto.identity import SigningKey, VerifyKey
from fedproto.ids import Digest, MemberId
from fedproto.layout import FlatVector
from fedproto.secagg import ring
from fedproto.secagg.agreement import (
    KemSecret,
    KeyPair,
    decapsulate,
    encapsulate,
    mask_keys,
    pair_info,
    pair_mask,
    self_mask,
)
from fedproto.secagg.dealing import Edge, deal_pairs, open_entry, seal_entry, share_point
from fedproto.secagg.faults import COORDINATOR, Equivocation, forbidden, not_genuine
from fedproto.secagg.graph import neighbours
from fedproto.secagg.keying_messages import (
    Advertise,
    DealtShare,
    EncryptedShares,
    KeyList,
    SealedShare,
    ShareHeader,
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
    UploadHeader,
    survivor_list_digest,
)
from fedproto.secagg.messages import Signed, decode, encode
from fedproto.secagg.params import Params
from fedproto.secagg.quantise import quantise
from fedproto.secagg.stages import MaskedVector, MaskSeed, RoundSeeds, SharePair, upload_root


class _Phase(Enum):
    ADVERTISE = "advertise"
    SHARE = "share keys"
    MASK = "mask"
    CONFIRM = "confirm"
    REVEAL = "reveal"
    DONE = "done"
    ENDED = "ended"


_NEXT = {
    _Phase.ADVERTISE: _Phase.SHARE,
    _Phase.SHARE: _Phase.MASK,
    _Phase.MASK: _Phase.CONFIRM,
    _Phase.CONFIRM: _Phase.REVEAL,
    _Phase.REVEAL: _Phase.DONE,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskedUpload:
    """What leaves the premises: a signed header and the chunks that it names."""

    header: bytes
    chunks: MaskedVector = field(repr=False)
    digest: Digest


@dataclass(slots=True, kw_only=True, repr=False)
class _Keys:
    """Secrets until the upload is masked."""

    seeds: RoundSeeds
    mask: KeyPair
    channel: KeyPair
    own_pair: SharePair | None = None
    kem: dict[MemberId, KemSecret] = field(default_factory=dict)


class SecAggClient:
    """One member in one attempt. Not to be shared between threads."""

    def __init__(
        self,
        *,
        authorisation: SignedAuthorisation,
        member: MemberId,
        key: SigningKey,
        roster: Mapping[MemberId, VerifyKey],
        entropy: Callable[[int], bytes],
    ) -> None:
        content = authorisation.content
        missing = [name for name in (*content.members, member) if name not in roster]
        if missing or member not in content.members or roster[member] != key.verify_key:
            raise LocalFault(
                "RNM-SIG-0002",
                what="the attempt was not joined",
                why=f"the roster, the authorisation and the key of {member} do not fit together",
                mend="update the ledger mirror, and check which acting key the charter names",
            )
        self._params = Params.of(content)
        self._ctx = authorisation.ctx
        self._members = content.members
        self._member = member
        self._key = key
        self._roster = roster
        self._entropy = entropy
        self._phase = _Phase.ADVERTISE
        # Secrets: dropped as soon as no later phase needs them.
        self._keys: _Keys | None = None
        self._held: dict[MemberId, SharePair] = {}
        # The transcript so far.
        self._listed: dict[MemberId, Advertise] = {}
        self._neighbours: tuple[MemberId, ...] = ()
        self._dealt: tuple[MemberId, ...] = ()
        self._survivors: tuple[MemberId, ...] = ()
        self._sent: Signed | None = None
        self._h1 = self._h2 = self._h3 = b""

    def advertise(self) -> bytes:
        """Phase 0: make the attempt's keys and return their signed public halves."""
        with self._once(_Phase.ADVERTISE):
            seeds = RoundSeeds(mask_secret=self._entropy(32), self_seed=self._entropy(32))
            keys = _Keys(
                seeds=seeds,
                mask=mask_keys(seeds.mask_secret, self._ctx, self._member),
                channel=KeyPair.from_seed(self._entropy(96)),
            )
            mask, channel = keys.mask.public, keys.channel.public
            message = Advertise(
                ctx=self._ctx,
                member=self._member,
                mask_x25519=mask.x25519,
                mask_mlkem=mask.mlkem,
                channel_x25519=channel.x25519,
                channel_mlkem=channel.mlkem,
            ).signed_by(self._key)
            self._keys, self._sent = keys, message
            return encode(message)

    def share_keys(self, key_list: bytes) -> bytes:
        """Phase 1: check every key of U1, then deal this member's secrets to U1."""
        with self._once(_Phase.SHARE):
            keys = decode(KeyList, key_list, peer=COORDINATOR).keys
            self._require_transcript(keys)
            self._require_set(keys, self._members, "key list")
            self._require_keys(keys)
            self._listed = {item.member: item for item in keys}
            self._h1 = key_list_digest(self._ctx, keys)
            self._neighbours = neighbours(
                tuple(self._listed),
                self._member,
                tolerated=self._params.tolerated,
                threshold=self._params.threshold,
            )
            entries = self._deal()
            seed = self._secrets.seeds.self_seed
            header = ShareHeader(
                ctx=self._ctx,
                member=self._member,
                h1=self._h1,
                self_seed_commitment=self_seed_commitment(self._ctx, self._member, seed),
                entry_digests=tuple(entry.digest for entry in entries),
            ).signed_by(self._key)
            self._sent = header
            return encode(EncryptedShares(header=header, entries=entries))

    def mask(
        self, share_list: bytes, delta: FlatVector, weight: float, rounding_seed: bytes
    ) -> MaskedUpload:
        """Phase 2: check and keep what U2 dealt to this member, then quantise and mask its delta."""
        with self._once(_Phase.MASK):
            vector = quantise(delta, weight, self._params, rounding_seed)
            dealt = decode(ShareList, share_list, peer=COORDINATOR).dealt
            headers = [item.header for item in dealt]
            self._require_transcript(headers, h1=self._h1)
            self._require_set(headers, tuple(self._listed), "share list")
            for item in dealt:
                self._held[item.member] = self._open(item)
            self._dealt = tuple(item.member for item in dealt)
            self._h2 = share_list_digest(self._ctx, self._h1, headers)
            masked = ring.mask(vector, self._mask_seeds())
            # From here on only the shares of others are needed: forget the own secrets.
            self._keys = None
            digests = masked.chunk_digests()
            header = UploadHeader(
                ctx=self._ctx,
                member=self._member,
                h1=self._h1,
                h2=self._h2,
                root=upload_root(masked.words, digests),
            ).signed_by(self._key)
            self._sent = header
            message = MaskedHeader(header=header, words=masked.words, chunk_digests=digests)
            return MaskedUpload(
                header=encode(message), chunks=masked, digest=Digest(header.root.hex())
            )

    def confirm(self, survivor_list: bytes) -> bytes:
        """Phase 3: check U3 and sign it; this member confirms no other set, ever."""
        with self._once(_Phase.CONFIRM):
            headers = decode(SurvivorList, survivor_list, peer=COORDINATOR).headers
            self._require_transcript(headers, h1=self._h1, h2=self._h2)
            self._require_set(headers, self._dealt, "survivor list")
            self._survivors = tuple(header.member for header in headers)
            self._h3 = survivor_list_digest(self._ctx, self._h2, headers)
            message = Confirm(
                ctx=self._ctx, member=self._member, h1=self._h1, h2=self._h2, h3=self._h3
            ).signed_by(self._key)
            self._sent = message
            return encode(message)

    def reveal(self, confirmations: bytes) -> bytes:
        """Phase 4: given T confirmations of one U3, return one share of each member; then forget."""
        with self._once(_Phase.REVEAL):
            confirms = decode(Confirmations, confirmations, peer=COORDINATOR).confirms
            self._require_transcript(confirms, h1=self._h1, h2=self._h2, h3=self._h3)
            self._require_members(confirms, self._survivors, "list of confirmations")
            # Which of the two shares is due follows from U3 alone, so both never leave.
            dropped = [name for name in self._dealt if name not in self._survivors]
            message = Reveal(
                ctx=self._ctx,
                member=self._member,
                h1=self._h1,
                h2=self._h2,
                h3=self._h3,
                self_shares=tuple(self._revealed(name, mask=False) for name in self._survivors),
                mask_shares=tuple(self._revealed(name, mask=True) for name in dropped),
            ).signed_by(self._key)
            self._forget()
            return encode(message)

    @contextmanager
    def _once(self, phase: _Phase) -> Iterator[None]:
        if self._phase is not phase:
            raise forbidden(f"it asked to {phase.value} where {self._phase.value} is due")
        # Spent before the work begins: no error leaves a way to try a phase twice.
        self._phase = _Phase.ENDED
        try:
            yield
        except BaseException:
            self._forget()
            raise
        self._phase = _NEXT[phase]

    def _forget(self) -> None:
        self._keys = None
        self._held = {}

    @property
    def _secrets(self) -> _Keys:
        if self._keys is None:
            raise forbidden("the secrets of this attempt were dropped")
        return self._keys

    def _require_members(
        self, items: Sequence[Signed], within: Sequence[MemberId], name: str
    ) -> None:
        members = {item.member for item in items}
        if not members <= set(within):
            raise not_genuine(COORDINATOR, f"its {name} names members outside the phase before")
        if len(members) < self._params.threshold:
            raise forbidden(
                f"its {name} has {len(members)} members, fewer than {self._params.threshold}"
            )

    def _require_set(self, items: Sequence[Signed], within: Sequence[MemberId], name: str) -> None:
        self._require_members(items, within, name)
        # Its own message in the list, byte for byte: nobody speaks for this member.
        if self._sent not in items:
            raise not_genuine(COORDINATOR, f"its {name} does not hold this member's own message")

    def _require_transcript(self, items: Sequence[Signed], **expected: bytes) -> None:
        """Blame the coordinator: it had to check what it relays, and showed its author another list."""
        for item in items:
            if item == self._sent:
                continue
            if item.member not in self._members:
                raise not_genuine(COORDINATOR, "it relayed a message of nobody in the attempt")
            item.verify(self._roster[item.member], COORDINATOR)
            if item.ctx != self._ctx:
                raise not_genuine(COORDINATOR, f"a message of {item.member} is of another attempt")
            name = item.differs(**expected)
            if name is not None:
                raise Equivocation(
                    f"{item.member} signed another {name} than this member was shown", encode(item)
                )

    def _require_keys(self, keys: Sequence[Advertise]) -> None:
        raw = [key for item in keys for key in item.raw_keys]
        if len(set(raw)) != len(raw):
            raise not_genuine(COORDINATOR, "its key list holds one key twice")
        for item in keys:
            try:
                item.mask.require_usable()
                item.channel.require_usable()
            except ValueError:
                raise not_genuine(item.member, "its signed keys cannot be used") from None

    def _edge(self, dealer: MemberId, holder: MemberId) -> Edge:
        return Edge(ctx=self._ctx, h1=self._h1, dealer=dealer, holder=holder)

    def _deal(self) -> tuple[SealedShare, ...]:
        secrets = self._secrets
        points = {name: share_point(self._members, name) for name in self._listed}
        pairs = deal_pairs(
            secrets.seeds, self._params.threshold, list(points.values()), self._entropy
        )
        secrets.own_pair = pairs[points[self._member]]
        entries = []
        for holder, keys in self._listed.items():
            if holder in self._neighbours and self._member < holder:
                secrets.kem[holder] = encapsulate(keys.mask_mlkem)
            entries.append(
                seal_entry(
                    pairs[points[holder]],
                    self._edge(self._member, holder),
                    None if holder == self._member else keys.channel,
                    secrets.kem.get(holder),
                    secrets.seeds.mask_secret,
                )
            )
        return tuple(entries)

    def _open(self, item: DealtShare) -> SharePair:
        secrets, dealer, entry = self._secrets, item.member, item.entry
        place = list(self._listed).index(self._member)
        signed = item.header.entry_digests
        if len(signed) != len(self._listed) or signed[place] != entry.digest:
            raise not_genuine(COORDINATOR, f"it altered what {dealer} dealt to this member")
        if dealer == self._member:
            if secrets.own_pair is None:
                raise forbidden("this member dealt nothing")
            return secrets.own_pair
        edge = dealer in self._neighbours and dealer < self._member
        try:
            if not entry.has_parts(sealed=True, edge=edge):
                raise ValueError("its entry has not the parts of this edge")
            if edge:
                secrets.kem[dealer] = decapsulate(secrets.mask, entry.kem_ciphertext)
            return open_entry(entry, self._edge(dealer, self._member), secrets.channel)
        except ValueError as error:
            raise not_genuine(dealer, str(error)) from None

    def _mask_seeds(self) -> list[MaskSeed]:
        secrets = self._secrets
        own = self_mask(secrets.seeds.self_seed, self._ctx, self._h2, self._member, add=True)
        return [own] + [
            pair_mask(
                secrets.mask,
                self._member,
                peer,
                self._listed[peer].mask_x25519,
                secrets.kem[peer],
                pair_info(self._ctx, self._h2, self._member, peer),
            )
            for peer in self._neighbours
            if peer in self._dealt
        ]

    def _revealed(self, dealer: MemberId, *, mask: bool) -> RevealedShare:
        pair = self._held[dealer]
        if mask:
            return RevealedShare(member=dealer, share=pair.mask_share, salt=pair.mask_salt)
        return RevealedShare(member=dealer, share=pair.self_share, salt=pair.self_salt)
