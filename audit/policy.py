"""The witness policy: whose cosignatures make a checkpoint believable, and how many.

Decides whether a checkpoint carries the quorum of the charter in force. Counts public keys, never
names: one key under two names is one witness. Text form: C2SP tlog-policy. Pure.
"""

from dataclasses import dataclass

from audit.checkpoint import SignedCheckpoint, open_checkpoint
from audit.faults import too_few_witnesses, unverified
from audit.note import NOTE_TYPE, Note, NoteVerifier, SignatureLine
from fedproto.governance.charter import Charter
from fedproto.ids import MemberId

_GROUP = "members"


@dataclass(frozen=True, slots=True)
class Witness:
    """A member's witness key."""

    member: MemberId
    verifier: NoteVerifier


@dataclass(frozen=True, slots=True)
class Cosignature:
    """A verified cosignature; `timestamp` is the witness's clock in seconds."""

    member: MemberId
    timestamp: int
    line: SignatureLine


@dataclass(frozen=True, slots=True)
class CosignedCheckpoint:
    """A checkpoint with its log signature and the witness quorum, all verified."""

    signed: SignedCheckpoint
    cosignatures: tuple[Cosignature, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class WitnessPolicy:
    """The log's key, its witnesses and their quorum."""

    origin: str
    log: NoteVerifier
    witnesses: tuple[Witness, ...]
    quorum: int

    def __post_init__(self) -> None:
        if self.log.kind != NOTE_TYPE or self.log.name != self.origin:
            raise ValueError("the log key is not a note key in the name of the origin")
        if not all(witness.verifier.cosigns for witness in self.witnesses):
            raise ValueError("a witness key is not a cosignature key")
        keys = {witness.verifier.public for witness in self.witnesses}
        # One key held by two members would let one of them fill a quorum.
        if len(keys | {self.log.public}) != len(self.witnesses) + 1:
            raise ValueError("two witnesses, or a witness and the log, share one key")
        if not 1 <= self.quorum <= len(self.witnesses):
            raise ValueError("the witness quorum is not within the number of witnesses")

    @classmethod
    def from_charter(cls, charter: Charter) -> "WitnessPolicy":
        """Return the policy that a charter sets; raise ValueError if its keys are not fit for one."""
        return cls(
            origin=charter.origin,
            log=NoteVerifier.from_vkey(charter.log_vkey),
            witnesses=tuple(
                Witness(member.id, NoteVerifier.from_vkey(member.witness))
                for member in charter.members
                if member.witness
            ),
            quorum=charter.witness_quorum,
        )

    @property
    def text(self) -> str:
        """The policy in tlog-policy form."""
        names = [witness.member for witness in self.witnesses]
        rows = [f"log {self.log.vkey}"]
        rows += [f"witness {w.member} {w.verifier.vkey}" for w in self.witnesses]
        rows += [f"group {_GROUP} {self.quorum} {' '.join(names)}", f"quorum {_GROUP}"]
        return "\n".join(rows) + "\n"

    def cosignatures(self, note: Note) -> tuple[Cosignature, ...]:
        """Verify every line of a witness; raise RNM-LEDGER-0001 if one does not verify.

        Lines by keys that are no witnesses are passed over: others may witness this log too.
        """
        verified = []
        for witness in self.witnesses:
            line = note.find(witness.verifier)
            if line is not None:
                timestamp = witness.verifier.verify(line, note.text)
                verified.append(Cosignature(witness.member, timestamp, line))
        return tuple(verified)

    def strangers(self, note: Note) -> tuple[SignatureLine, ...]:
        """Return the lines that are neither the log's nor a witness's."""
        keys = (self.log, *(witness.verifier for witness in self.witnesses))
        known = {(key.name, key.key_id) for key in keys}
        return tuple(line for line in note.lines if (line.name, line.key_id) not in known)

    def check_quorum(self, signed: SignedCheckpoint) -> CosignedCheckpoint:
        """Return the checkpoint as cosigned; raise RNM-LEDGER-0006 below the quorum."""
        cosignatures = self.cosignatures(signed.note)
        if len(cosignatures) < self.quorum:
            who = ", ".join(item.member for item in cosignatures) or "nobody"
            raise too_few_witnesses(
                f"{len(cosignatures)} of {self.quorum} witnesses cosigned size "
                f"{signed.head.size} ({who})"
            )
        return CosignedCheckpoint(signed, cosignatures)

    def open(self, data: bytes) -> CosignedCheckpoint:
        """Verify a note whole: the log's signature and the witness quorum (RNM-LEDGER-0001, -0006)."""
        return self.check_quorum(open_checkpoint(data, self.log, self.origin))


def policy_of(charter: Charter) -> WitnessPolicy:
    """Return the policy of a charter; raise RNM-LEDGER-0001 where `from_charter` finds none."""
    try:
        return WitnessPolicy.from_charter(charter)
    except ValueError as error:
        raise unverified("the charter's witness policy was refused", str(error)) from None
