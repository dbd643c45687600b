"""The member's half of secure aggregation SA-1: phases 0 to 5 of one attempt, without transport.

Decides what this member tells the coordinator, and refuses whatever could open its delta: a list
below the threshold, a list that leaves it out or shows others something else, a survivor set without
T confirmations, a second answer in any phase. It trusts the roster of the charter in force, its own
key and its entropy, never the coordinator. Each phase runs once, in order; a phase that fails ends
the attempt and drops the secrets.

A later pass of one attempt is a whole run of the phases with secrets of its own, and over the same
members: two passes see the same deltas from two sides, so sums over two sets that differ by one member
would show that member's share of both.

What it cannot know it leaves to its caller, the consent check: that the authorisation is fresh. The
caller keeps the durable high-water mark of (run, round, attempt), writes it to disk *before* it makes
a client, and refuses what is not strictly newer; two clients for one authorisation would be a reveal
asked twice. The secrets of a client exist in memory only, so a restart never resumes an attempt.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from enum import Enum

from fedproto.authorisation import SignedAuthorisation
from fedproto.errors import LocalFault
from fedproto.identity import SigningKey, VerifyKey
from fedproto.ids import Digest, MemberId
from fedproto.layout import FlatVector
from fedproto.secagg import ring
from fedproto.secagg.audit_messages import SumTranscript
from fedproto.secagg.dealing import UnusableShareError
from fedproto.secagg.faults import COORDINATOR, forbidden, not_genuine
from fedproto.secagg.groups import round_digest
from fedproto.secagg.keying_messages import EncryptedShares, KeyList, ShareHeader, ShareList
from fedproto.secagg.masking_messages import (
    Confirm,
    Confirmations,
    MaskedHeader,
    Reveal,
    RevealedShare,
    SurvivorList,
    UploadHeader,
)
from fedproto.secagg.messages import decode, encode
from fedproto.secagg.params import Params
from fedproto.secagg.prg import GcmKeystream, Keystream
from fedproto.secagg.quantise import quantise
from fedproto.secagg.stages import MaskedVector, SharePair, upload_root
from fedproto.secagg.sum_audit import Witnessed
from member_node.secagg_disputes import Disputes
from member_node.secagg_keys import AttemptKeys
from member_node.secagg_transcript import Transcript


class _Phase(Enum):
    ADVERTISE = "advertise"
    SHARE = "share keys"
    CHECK = "check shares"
    MASK = "mask"
    CONFIRM = "confirm"
    REVEAL = "reveal"
    AUDIT = "audit"
    DONE = "done"
    ENDED = "ended"


_NEXT = {
    _Phase.ADVERTISE: _Phase.SHARE,
    _Phase.SHARE: _Phase.CHECK,
    _Phase.CHECK: _Phase.MASK,
    _Phase.MASK: _Phase.CONFIRM,
    _Phase.CONFIRM: _Phase.REVEAL,
    _Phase.REVEAL: _Phase.AUDIT,
    _Phase.AUDIT: _Phase.DONE,
}


class MaskedUpload:
    """What leaves the premises: chunks, masked as they are read, and a signed header that names them."""

    def __init__(self, chunks: MaskedVector, sign: Callable[[MaskedVector], MaskedHeader]) -> None:
        self.chunks = chunks
        self._sign = sign
        self._signed: MaskedHeader | None = None

    @property
    def header(self) -> bytes:
        """The header; masks what is not masked yet, and signs once."""
        return encode(self._made)

    @property
    def digest(self) -> Digest:
        """The digest that the receipt names."""
        return Digest(self._made.header.root.hex())

    @property
    def _made(self) -> MaskedHeader:
        if self._signed is None:
            self._signed = self._sign(self.chunks)
        return self._signed


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
        summed: tuple[MemberId, ...] | None = None,
        opened: tuple[MemberId, ...] | None = None,
        keystream: type[Keystream] = GcmKeystream,
    ) -> None:
        """Begin; `summed` are the survivors of the pass before, where there was one.

        `opened` are those over whom this member helped to open a sum of this round in an earlier
        attempt: the same deltas are never summed over other members.

        `keystream` is the quicker one on this machine; both give the same bytes.
        """
        content = authorisation.content
        missing = [name for name in (*content.members, member) if name not in roster]
        if missing or member not in content.members or roster[member] != key.verify_key:
            raise LocalFault(
                "RNM-SIG-0002",
                what="the attempt was not joined",
                why=f"the roster, the authorisation and the key of {member} do not fit together",
                mend="update the ledger mirror, and check which acting key the charter names",
            )
        if (content.pass_no > 1) != (summed is not None):
            raise forbidden("a later pass needs the survivors of the one before, a first has none")
        self._summed = summed
        self._opened = opened
        self._keystream = keystream
        self._coordinator = authorisation.key
        self._groups = content.groups
        self._key = key
        self._entropy = entropy
        self._phase = _Phase.ADVERTISE
        self._seen = Transcript(
            ctx=authorisation.ctx,
            params=Params.of(content),
            member=member,
            members=content.members,
            roster=roster,
            groups=content.groups,
        )
        # Secrets: dropped as soon as no later phase needs them.
        self._keys: AttemptKeys | None = None
        self._held: dict[MemberId, SharePair] = {}
        self._disputes: Disputes | None = None
        self._checked = b""

    def advertise(self) -> bytes:
        """Phase 0: make the attempt's keys and return their signed public halves."""
        with self._once(_Phase.ADVERTISE):
            self._keys = AttemptKeys(self._seen, self._entropy)
            message = self._keys.advertise().signed_by(self._key)
            self._seen.sent = message
            return encode(message)

    def share_keys(self, key_list: bytes) -> bytes:
        """Phase 1: check every key of U1, then deal this member's secrets to U1."""
        with self._once(_Phase.SHARE):
            self._seen.take_keys(decode(KeyList, key_list, peer=COORDINATOR).keys)
            entries = self._secrets.deal(self._seen.params.threshold)
            header = ShareHeader(
                ctx=self._seen.ctx,
                member=self._seen.member,
                h1=self._seen.h1,
                self_seed_commitment=self._secrets.self_seed_commitment(),
                entry_digests=tuple(entry.digest for entry in entries),
            ).signed_by(self._key)
            self._seen.sent = header
            return encode(EncryptedShares(header=header, entries=entries))

    def check_shares(self, share_list: bytes) -> tuple[bytes, ...]:
        """Phase 1: keep what U2 dealt to this member; return its complaints, nearly always none.

        Needs no delta, so it is done while training goes on. Each complaint goes to the coordinator;
        `take_opening` gets the answers, and nothing is masked before all have come.
        """
        with self._once(_Phase.CHECK):
            dealt = decode(ShareList, share_list, peer=COORDINATOR).dealt
            self._seen.take_share_headers([item.header for item in dealt])
            self._disputes = Disputes(self._seen, self._seen.params.tolerated, self._secrets.pairs)
            complaints = []
            for item in dealt:
                try:
                    self._held[item.member] = self._secrets.open(item)
                except UnusableShareError as error:
                    complaints.append(self._disputes.complain(item, error).signed_by(self._key))
            self._checked = share_list
            return tuple(encode(complaint) for complaint in complaints)

    @property
    def survivors(self) -> tuple[MemberId, ...]:
        """Whose sum this member confirmed; the next pass of the attempt has to be over the same."""
        return self._seen.survivors

    @property
    def awaits_openings(self) -> tuple[MemberId, ...]:
        """The dealers of whom this member complained and has not yet got the opened pair."""
        return self._disputes.open if self._disputes else ()

    def take_opening(self, opening: bytes) -> None:
        """Between phases 1 and 2: take the pair that a dealer opened for this member."""
        with self._during(_Phase.MASK) as disputes:
            dealer, pair = disputes.take_opening(opening)
            self._held[dealer] = pair

    def open_share(self, complaint: bytes) -> bytes:
        """Before this member's confirmation: open the one pair that a holder complained of."""
        with self._during(_Phase.MASK, _Phase.CONFIRM) as disputes:
            return encode(disputes.answer(complaint).signed_by(self._key))

    def mask(
        self, share_list: bytes, delta: FlatVector, weight: float, rounding_seed: bytes
    ) -> MaskedUpload:
        """Phase 2: quantise and mask a delta, with the keys of the share list that was checked."""
        if self._phase is _Phase.CHECK:
            self.check_shares(share_list)
        with self._once(_Phase.MASK):
            if share_list != self._checked:
                raise forbidden("it showed another share list than the one that was checked")
            self._checked = b""
            if self.awaits_openings:
                dealer = self.awaits_openings[0]
                raise not_genuine(dealer, "what it dealt to this member cannot be used")
            vector = quantise(delta, weight, self._seen.params, rounding_seed)
            masked = ring.mask(vector, self._secrets.mask_seeds(), self._keystream)
            # From here on only the shares of others are needed: forget the own secrets.
            self._keys = None
            return MaskedUpload(masked, self._sign_upload)

    def _sign_upload(self, masked: MaskedVector) -> MaskedHeader:
        if self._phase is not _Phase.CONFIRM:
            raise forbidden("an upload is signed before its sum is confirmed, and not later")
        digests = masked.chunk_digests()
        header = UploadHeader(
            ctx=self._seen.ctx,
            member=self._seen.member,
            h1=self._seen.h1,
            h2=self._seen.h2,
            root=upload_root(masked.words, digests),
        ).signed_by(self._key)
        self._seen.sent = header
        return MaskedHeader(header=header, words=masked.words, chunk_digests=digests)

    def confirm(self, survivor_list: bytes) -> bytes:
        """Phase 3: check U3 and sign it; this member confirms no other set, ever."""
        with self._once(_Phase.CONFIRM):
            # No pair is opened any more: what the pairs would give together is forgotten.
            self._disputes = None
            seen = self._seen
            seen.take_survivors(decode(SurvivorList, survivor_list, peer=COORDINATOR).headers)
            if self._summed is not None and seen.survivors != self._summed:
                raise forbidden("its survivor list differs from that of the pass before")
            if self._opened is not None and seen.survivors != self._opened:
                raise forbidden("a sum of this round over other members may be open already")
            message = Confirm(
                ctx=seen.ctx, member=seen.member, h1=seen.h1, h2=seen.h2, h3=seen.h3
            ).signed_by(self._key)
            seen.sent = message
            return encode(message)

    def reveal(self, confirmations: bytes) -> bytes:
        """Phase 4: given T confirmations of one U3, return one share of each member; then forget."""
        with self._once(_Phase.REVEAL):
            seen = self._seen
            seen.take_confirms(decode(Confirmations, confirmations, peer=COORDINATOR).confirms)
            # Which of the two shares is due follows from U3 alone, so both never leave.
            dropped = [name for name in seen.dealt if name not in seen.survivors]
            message = Reveal(
                ctx=seen.ctx,
                member=seen.member,
                h1=seen.h1,
                h2=seen.h2,
                h3=seen.h3,
                self_shares=tuple(self._revealed(name, mask=False) for name in seen.survivors),
                mask_shares=tuple(self._revealed(name, mask=True) for name in dropped),
            ).signed_by(self._key)
            self._forget()
            return encode(message)

    def take_transcript(self, transcript: bytes) -> tuple[Witnessed, SumTranscript]:
        """Phase 5: return what this member saw of the attempt, and what the coordinator signed of it."""
        with self._once(_Phase.AUDIT):
            published = decode(SumTranscript, transcript, peer=COORDINATOR)
            published.verify(self._coordinator)
            return self._seen.witnessed(), published

    def round_digest(self, published: SumTranscript, transcripts: tuple[bytes, ...]) -> bytes:
        """Phase 5: return the digest by which the ledger names the round; refuse a list without ours."""
        due = transcripts or (published.digest,)
        if (self._groups == 1) != (not transcripts) or len(set(due)) != len(due):
            raise not_genuine(COORDINATOR, "it listed other transcripts than there are groups")
        if published.digest not in due or len(due) > self._groups:
            raise not_genuine(COORDINATOR, "its list of transcripts is not that of this attempt")
        return round_digest(self._seen.ctx, due)

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

    @contextmanager
    def _during(self, *phases: _Phase) -> Iterator[Disputes]:
        if self._phase not in phases or self._disputes is None:
            raise forbidden(f"it spoke of a dispute where {self._phase.value} is due")
        phase, self._phase = self._phase, _Phase.ENDED
        try:
            yield self._disputes
        except BaseException:
            self._forget()
            raise
        self._phase = phase

    def _forget(self) -> None:
        self._keys = None
        self._disputes = None
        self._checked = b""
        self._held = {}

    @property
    def _secrets(self) -> AttemptKeys:
        if self._keys is None:
            raise forbidden("the secrets of this attempt were dropped")
        return self._keys

    def _revealed(self, dealer: MemberId, *, mask: bool) -> RevealedShare:
        pair = self._held[dealer]
        if mask:
            return RevealedShare(member=dealer, share=pair.mask_share, salt=pair.mask_salt)
        return RevealedShare(member=dealer, share=pair.self_share, salt=pair.self_salt)
