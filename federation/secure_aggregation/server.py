"""The coordinator's half of secure aggregation SA-1: phases 0 to 4 of one attempt, without transport.

Decides who is in each phase, and checks all that it relays, so that members may blame it for what
they find wrong. A member's bad message is refused and named, and leaves the attempt as it was; a
member that stays silent is a dropout. It learns the sets U1, U2, U3, the sum and nothing else. A
message that arrives after its phase was closed is refused and not kept: its sender's self seed is
then never recovered. What a member dealt and cannot be used ends the attempt and names it. Whoever
calls it closes the phases, and serialises calls: it is not thread-safe.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import copy

from federation.secure_aggregation.disputes import Disputes
from federation.secure_aggregation.intake import Intake, Phase, out_of_turn
from federation.secure_aggregation.keying import Keying
from federation.secure_aggregation.recovery import Recovery
from federation.secure_aggregation.transcript import publish
from federation.secure_aggregation.uploads import Chunks, ChunksInMemory, Uploads
from fedproto.authorisation import LEAST_HONEST, SignedAuthorisation
from fedproto.identity import VerifyKey
from fedproto.ids import Digest, MemberId
from fedproto.secagg import ring
from fedproto.secagg.audit_messages import SumTranscript
from fedproto.secagg.dispute_messages import Complaint, Opening
from fedproto.secagg.faults import IdentifiableAbort, not_genuine, too_few
from fedproto.secagg.faults import barred as barred_from
from fedproto.secagg.groups import assign
from fedproto.secagg.keying_messages import Advertise, EncryptedShares
from fedproto.secagg.masking_messages import (
    Confirm,
    Confirmations,
    MaskedHeader,
    Reveal,
    SurvivorList,
    survivor_list_digest,
    transcript_digest,
)
from fedproto.secagg.messages import Signed, decode, encode
from fedproto.secagg.params import Params
from fedproto.secagg.prg import GcmKeystream, Keystream
from fedproto.secagg.quantise import dequantise
from fedproto.secagg.stages import AggregateSum
from fedproto.secagg.sum_audit import auditors

# How often one auditor may ask for one chunk: once, and again where it was hurt on the way.
READINGS = 3


class SecAggServer:
    """The coordinator in one attempt."""

    def __init__(
        self,
        *,
        authorisation: SignedAuthorisation,
        roster: Mapping[MemberId, VerifyKey],
        barred: frozenset[MemberId] = frozenset(),
        summed: tuple[MemberId, ...] | None = None,
        chunks: Chunks | None = None,
        keystream: type[Keystream] = GcmKeystream,
    ) -> None:
        """Begin; `barred` were named in an earlier attempt at the round and are not let in.

        `summed` are the survivors of the pass before: this one is over the same members or over none.
        `chunks` is where masked chunks lie meanwhile; without it, in memory. `keystream` is the quicker
        one on this machine; both give the same bytes.
        """
        content = authorisation.content
        self._groups = content.groups
        self._params = Params.of(content)
        self._ctx = authorisation.ctx
        self._members = content.members
        keys = {member: roster[member] for member in content.members}
        self._intake = Intake(self._ctx, keys, self._params.threshold)
        self._keying = Keying(self._ctx, self._params)
        self._disputes = Disputes(self._keying, self._params.tolerated)
        self._barred = barred
        self._summed = summed
        self._keystream = keystream
        self._chunks = chunks or ChunksInMemory()
        self._begin()

    def _begin(self) -> None:
        self._uploads = Uploads(self._params, self._chunks)
        self._h3 = b""
        self._confirms: dict[MemberId, Confirm] = {}
        self._reveals: dict[MemberId, Reveal] = {}
        self._published: SumTranscript | None = None
        self._served: Counter[tuple[MemberId, MemberId, int]] = Counter()

    def split(self) -> "dict[tuple[MemberId, ...], SecAggServer]":
        """After phase 0: return for each group of U1, by its members, what goes on with it.

        Raises:
            LocalFault: RNM-SECAGG-0002, so few advertised that a group's sum would hide too little.
        """
        names = tuple(self._keying.keys)
        if self._groups == 1:
            return {names: self}
        found = assign(self._keying.h1, names, self._groups)
        least = self._params.tolerated + LEAST_HONEST
        if min(map(len, found)) < least:
            self._intake.end()
            silent = [name for name in self._members if name not in names]
            raise too_few(len(names), least * self._groups, "advertise", silent)
        groups = {names: copy(self) for names in found}
        for names, group in groups.items():
            group.narrow(names)
        return groups

    def narrow(self, names: tuple[MemberId, ...]) -> None:
        """After phase 0: go on with one group of U1, in a copy that shares nothing that changes."""
        self._params = self._params.of_group(len(names))
        self._intake, self._keying = copy(self._intake), copy(self._keying)
        self._intake.narrow(names, self._params.threshold)
        self._keying.narrow(names, self._params)
        self._disputes = Disputes(self._keying, self._params.tolerated)
        self._begin()

    def receive_advertise(self, member: MemberId, raw: bytes) -> None:
        """Phase 0: take a member's keys."""
        if member in self._barred:
            raise barred_from(member)
        if self._intake.is_repeated(Phase.ADVERTISE, member, raw):
            return
        message = decode(Advertise, raw, peer=member)
        self._intake.require_signed(member, message)
        self._keying.add_keys(member, message)
        self._intake.note(Phase.ADVERTISE, member, raw)

    def close_advertise(self) -> bytes:
        """Fix U1 and return the key list, the same for every member."""
        return self._keying.fix_keys(
            self._intake.close(Phase.ADVERTISE, self._keying.keys, "advertise")
        )

    def receive_shares(self, member: MemberId, raw: bytes) -> None:
        """Phase 1: take what a member deals to U1."""
        if self._intake.is_repeated(Phase.SHARES, member, raw):
            return
        message = decode(EncryptedShares, raw, peer=member)
        self._intake.require_signed(member, message.header, h1=self._keying.h1)
        self._keying.add_shares(member, message)
        self._intake.note(Phase.SHARES, member, raw)

    def close_shares(self) -> Mapping[MemberId, bytes]:
        """Fix U2 and return, for each of its members, what was dealt to it."""
        return self._keying.fix_shares(
            self._intake.close(Phase.SHARES, self._keying.shares, "share keys")
        )

    @property
    def threshold(self) -> int:
        """T, of the cohort or of this group."""
        return self._params.threshold

    @property
    def upload_chunks(self) -> int:
        """How many chunks one upload has."""
        return self._params.upload_chunks

    def begin_upload(self, member: MemberId) -> None:
        """Phase 2: expect the chunks of a member; its header comes when all of them are masked."""
        self._require_masking(member)
        if self._uploads.is_known(member):
            raise not_genuine(member, "it began its upload before")
        self._uploads.begin(member)

    def receive_header(self, member: MemberId, raw: bytes) -> bool:
        """Phase 2: take the header of a member's upload; return whether the upload is complete."""
        if self._intake.is_repeated(Phase.UPLOADS, member, raw):
            return member in self._uploads.complete
        message = decode(MaskedHeader, raw, peer=member)
        self._require_masking(member)
        keying = self._keying
        self._intake.require_signed(member, message.header, h1=keying.h1, h2=keying.h2)
        complete = self._uploads.open(member, message)
        self._intake.note(Phase.UPLOADS, member, raw)
        return complete

    def _require_masking(self, member: MemberId) -> None:
        self._intake.require_open(Phase.UPLOADS, member)
        if self._disputes.is_disputing(member):
            raise not_genuine(member, "it masked without the share that it complained of")

    def receive_chunk(self, member: MemberId, index: int, data: bytes) -> bool:
        """Phase 2: take one chunk; return whether the member's upload is complete."""
        self._intake.require_open(Phase.UPLOADS, member)
        return self._uploads.add(member, index, data)

    def receive_complaint(self, member: MemberId, raw: bytes) -> tuple[MemberId, bytes] | None:
        """Phase 2: take a holder's complaint; return to which dealer it has to go, if it is new.

        Raises:
            IdentifiableAbort: it ends the attempt; the culprits are left out of the next one.
        """
        self._intake.require_open(Phase.UPLOADS, member)
        message = decode(Complaint, raw, peer=member)
        self._require_signed_shares(member, message)
        if self._uploads.is_known(member):
            raise not_genuine(member, "it complains of a share that it masked with")
        with self._fatal():
            return (message.dealer, raw) if self._disputes.complain(message) else None

    def receive_opening(self, member: MemberId, raw: bytes) -> tuple[MemberId, bytes] | None:
        """Phase 2: take a dealer's opening; return to which holder it has to go, if it is new.

        Raises:
            IdentifiableAbort: it does not fit; the dealer is left out of the next attempt.
        """
        self._intake.require_open(Phase.UPLOADS, member)
        message = decode(Opening, raw, peer=member)
        self._require_signed_shares(member, message)
        with self._fatal():
            return (message.holder, raw) if self._disputes.settle(message) else None

    def require_settled(self) -> None:
        """Raise IdentifiableAbort while a dealer was asked to open a share and did not."""
        with self._fatal():
            self._disputes.require_settled()

    def close_uploads(self) -> bytes:
        """Fix U3, the members whose uploads are complete, and return the survivor list.

        Raises:
            IdentifiableAbort: a dealer was asked to open a share and did not.
        """
        self.require_settled()
        complete = self._intake.close(
            Phase.UPLOADS, self._uploads.complete, "masking", exactly=self._summed
        )
        self._uploads.drop_incomplete()
        headers = tuple(complete[member].header for member in complete)
        self._h3 = survivor_list_digest(self._ctx, self._keying.h2, headers)
        return encode(SurvivorList(headers=headers))

    def receive_confirm(self, member: MemberId, raw: bytes) -> None:
        """Phase 3: take a member's confirmation of U3."""
        if self._intake.is_repeated(Phase.CONFIRM, member, raw):
            return
        message = decode(Confirm, raw, peer=member)
        self._intake.require_signed(member, message, **self._digests)
        self._confirms[member] = message
        self._intake.note(Phase.CONFIRM, member, raw)

    def close_confirm(self) -> bytes:
        """Return T confirmations; refused below the threshold, since no member would answer."""
        self._confirms = self._intake.close(Phase.CONFIRM, self._confirms, "confirm")
        # More would show no more: each one costs every member two verifications.
        enough = tuple(self._confirms.values())[: self._params.threshold]
        return encode(Confirmations(confirms=enough))

    def receive_reveal(self, member: MemberId, raw: bytes) -> None:
        """Phase 4: take a member's shares; one that its dealer did not commit to names the holder."""
        if self._intake.is_repeated(Phase.REVEAL, member, raw):
            return
        message = decode(Reveal, raw, peer=member)
        self._intake.require_signed(member, message, **self._digests)
        self._recovery().require_shares(member, message)
        self._reveals[member] = message
        self._intake.note(Phase.REVEAL, member, raw)

    def can_finish(self) -> bool:
        """Say whether enough members revealed their shares."""
        return self._intake.phase is Phase.REVEAL and len(self._reveals) >= self._params.threshold

    def finish(self) -> AggregateSum:
        """Take every mask off the sum and return it; the attempt is over, whatever comes of it."""
        if self._intake.phase is not Phase.REVEAL:
            raise out_of_turn("the sum was asked for outside the reveal phase")
        self._reveals = self._intake.close(Phase.REVEAL, self._reveals, "reveal")
        total, survivors = self._uploads.total, self._survivors
        ring.unmask(
            total,
            self._recovery().left_masks(self._reveals, self._members, self._params.threshold),
            self._keystream,
        )
        mean_delta, weight = dequantise(total, self._params, len(survivors))
        self._published = publish(
            keying=self._keying,
            params=self._params,
            members=self._members,
            h3=self._h3,
            messages=self._transcript(),
            uploads=self._uploads.complete,
            reveals=self._reveals,
            total=total,
        )
        return AggregateSum(
            mean_delta=mean_delta,
            weight=weight,
            included=survivors,
            transcript_sha256=Digest(self._published.digest.hex()),
        )

    @property
    def published(self) -> SumTranscript:
        """Phase 5: what members need to add the sum up again; unsigned, and there after `finish`."""
        if self._published is None:
            raise out_of_turn("the transcript was asked for before the sum")
        return self._published

    def require_auditor(self, auditor: MemberId, member: MemberId, index: int) -> None:
        """Phase 5: refuse a chunk to a member that has no business with it.

        Raises:
            PeerFault: RNM-SECAGG-0001 naming the auditor: the chunk is in no sum, or not its to audit.
        """
        survivors = self._survivors if self._published else ()
        # The upload of a dropout is in no sum and is never served: its pair masks are published.
        known = auditor in survivors and member in survivors
        if not known or not 0 <= index < self._params.upload_chunks:
            raise not_genuine(auditor, "it asked for a chunk that is not in a published sum")
        if auditor not in auditors(index, survivors, self._params.tolerated, self._h3):
            raise not_genuine(auditor, f"chunk {index} is not its to audit")
        self._served[auditor, member, index] += 1
        if self._served[auditor, member, index] > READINGS:
            raise not_genuine(auditor, f"it asked more than {READINGS} times for one chunk")

    def read_masked(self, member: MemberId, index: int) -> bytes:
        """Phase 5: return a chunk of a survivor's upload; from any thread, once there is a sum."""
        return self._uploads.read_chunk(member, index)

    @contextmanager
    def _fatal(self) -> Iterator[None]:
        try:
            yield
        except IdentifiableAbort:
            self._intake.end()
            raise

    def _require_signed_shares(self, member: MemberId, message: Complaint | Opening) -> None:
        self._intake.require_signed(member, message, h1=self._keying.h1, h2=self._keying.h2)

    @property
    def _digests(self) -> dict[str, bytes]:
        return {"h1": self._keying.h1, "h2": self._keying.h2, "h3": self._h3}

    @property
    def _survivors(self) -> tuple[MemberId, ...]:
        return tuple(sorted(self._uploads.complete))

    def _recovery(self) -> Recovery:
        complete = self._uploads.complete
        dropped = tuple(name for name in self._keying.shares if name not in complete)
        return Recovery(self._keying, self._survivors, dropped)

    def _transcript(self) -> bytes:
        keying = self._keying
        signed: list[Signed] = [*keying.keys.values()]
        signed += [message.header for message in keying.shares.values()]
        signed += [self._uploads.complete[member].header for member in self._survivors]
        signed += [*self._confirms.values(), *self._reveals.values()]
        return transcript_digest(self._ctx, (keying.h1, keying.h2, self._h3), signed)
