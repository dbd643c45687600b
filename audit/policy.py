"""The witness policy: whose cosignatures make a checkpoint believable, and how many.

Decides whether a checkpoint carries the quorum of the charter in force. Counts public keys, never
names: one key under two names is one witness. Text form: C2SP tlog-policy, with exactly one log; what is
not understood there is refused, since a rule that is passed over is a weaker rule. Pure.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from audit.checkpoint import SignedCheckpoint, open_checkpoint
from audit.faults import too_few_witnesses, unverified
from audit.note import NOTE_TYPE, Note, NoteVerifier, SignatureLine
from audit.quorum import NONE, Group, Quorum
from fedproto.errors import LocalFault
from fedproto.governance.charter import Charter
from fedproto.ids import MemberId

MAX_WITNESSES = 64
# 64 ML-DSA keys of 1.8 kB, their URLs and some comment.
MAX_POLICY = 262_144
# No member id has an underscore, so that a group never takes a member's name.
_GROUP = "witness_quorum"
_SPACE = re.compile(r"[ \t]+")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Witness:
    """A member's witness key; in a policy file that names no members, `member` is its name there."""

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
    """The log's key, its witnesses and which of them are enough."""

    origin: str
    log: NoteVerifier
    witnesses: tuple[Witness, ...]
    rule: Quorum

    def __post_init__(self) -> None:
        if self.log.kind != NOTE_TYPE or self.log.name != self.origin:
            raise ValueError("the log key is not a note key in the name of the origin")
        if not all(witness.verifier.cosigns for witness in self.witnesses):
            raise ValueError("a witness key is not a cosignature key")
        keys = {witness.verifier.public for witness in self.witnesses}
        # One key held by two members would let one of them fill a quorum.
        if len(keys | {self.log.public}) != len(self.witnesses) + 1:
            raise ValueError("two witnesses, or a witness and the log, share one key")
        if len(self.witnesses) > MAX_WITNESSES:
            raise ValueError(f"a policy has at most {MAX_WITNESSES} witnesses")
        if self.rule.witnesses != tuple(witness.member for witness in self.witnesses):
            raise ValueError("the quorum is one over other witnesses")

    @property
    def quorum(self) -> int:
        """The least number of witnesses that can be enough."""
        return self.rule.size

    @classmethod
    def from_charter(cls, charter: Charter) -> "WitnessPolicy":
        """Return the policy that a charter sets; raise ValueError if its keys are not fit for one."""
        members = [member for member in charter.members if member.witness]
        names = tuple(member.id for member in members)
        group = Group(name=_GROUP, threshold=charter.witness_quorum, members=names)
        return cls(
            origin=charter.origin,
            log=NoteVerifier.from_vkey(charter.log_vkey),
            witnesses=tuple(
                Witness(member.id, NoteVerifier.from_vkey(member.witness)) for member in members
            ),
            rule=Quorum(witnesses=names, groups=(group,), top=_GROUP),
        )

    @classmethod
    def from_text(cls, text: str) -> "WitnessPolicy":
        """Read a policy in tlog-policy form; raise ValueError naming the line that is refused."""
        if len(text.encode()) > MAX_POLICY:
            raise ValueError(f"it has more than {MAX_POLICY} bytes")
        if not text.endswith("\n"):
            raise ValueError("its last line is cut")
        found = _Reading()
        for number, row in enumerate(text[:-1].split("\n"), start=1):
            try:
                found.take(row)
            except ValueError as error:
                raise ValueError(f"line {number}: {error}") from None
        return found.policy()

    @property
    def text(self) -> str:
        """The policy in tlog-policy form; `from_text` reads the same policy from it."""
        rows = [f"log {self.log.vkey}\n"]
        rows += [f"witness {w.member} {w.verifier.vkey}\n" for w in self.witnesses]
        return "".join(rows) + self.rule.text

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

    def is_met(self, cosignatures: Sequence[Cosignature]) -> bool:
        """Say whether these witnesses are enough."""
        return self.rule.is_met({item.member for item in cosignatures})

    def strangers(self, note: Note) -> tuple[SignatureLine, ...]:
        """Return the lines that are neither the log's nor a witness's."""
        keys = (self.log, *(witness.verifier for witness in self.witnesses))
        known = {(key.name, key.key_id) for key in keys}
        return tuple(line for line in note.lines if (line.name, line.key_id) not in known)

    def check_quorum(self, signed: SignedCheckpoint) -> CosignedCheckpoint:
        """Return the checkpoint as cosigned; raise RNM-LEDGER-0006 below the quorum."""
        cosignatures = self.cosignatures(signed.note)
        if not self.is_met(cosignatures):
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


def read_policy(data: bytes) -> WitnessPolicy:
    """Read the policy file that somebody pinned; raise RNM-CONF-0001."""
    try:
        # A decoding error is a ValueError as well.
        return WitnessPolicy.from_text(data.decode("utf-8"))
    except ValueError as error:
        reason = "it is not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)
        raise LocalFault(
            "RNM-CONF-0001",
            what="the pinned witness policy was not used",
            why=reason,
            mend="pin the policy as the other members have it: tlog-policy text with one log",
        ) from None


@dataclass(slots=True)
class _Reading:
    """What the lines of a policy have said so far."""

    logs: list[NoteVerifier] = field(default_factory=list)
    witnesses: list[Witness] = field(default_factory=list)
    groups: list[Group] = field(default_factory=list)
    top: str = ""

    def take(self, row: str) -> None:
        if _CONTROL.search(row):
            raise ValueError("it holds a control character")
        words = [word for word in _SPACE.split(row) if word]
        if not words or words[0].startswith("#"):
            return
        # A URL serves whoever talks to the log or a witness; a verifier does not.
        match words:
            case ["log", vkey] | ["log", vkey, _]:
                self.logs.append(NoteVerifier.from_vkey(vkey))
            case ["witness", name, vkey] | ["witness", name, vkey, _]:
                self._check_new(name)
                self.witnesses.append(Witness(MemberId(name), NoteVerifier.from_vkey(vkey)))
            case ["group", name, threshold, *members]:
                self._check_known(members)
                self.groups.append(
                    Group(
                        name=name,
                        threshold=_threshold(threshold, len(members)),
                        members=tuple(members),
                    )
                )
            case ["quorum", name] if not self.top:
                if name != NONE:
                    self._check_known([name])
                self.top = name
            case _:
                raise ValueError(f"{row[:40]!r} is not understood here")

    def _check_new(self, name: str) -> None:
        # A group that stands before a witness of its name would be that witness for the lines between.
        if any(group.name == name for group in self.groups):
            raise ValueError(f"the name {name} is given twice")

    def _check_known(self, names: Sequence[str]) -> None:
        known = {witness.member for witness in self.witnesses}
        known_groups = {group.name for group in self.groups}
        for name in names:
            if name not in known and name not in known_groups:
                raise ValueError(f"{name} is not defined before it")

    def policy(self) -> WitnessPolicy:
        if len(self.logs) != 1:
            raise ValueError(f"it names {len(self.logs)} logs; exactly one is asked for here")
        if not self.top:
            raise ValueError("it has no quorum line")
        names = tuple(witness.member for witness in self.witnesses)
        return WitnessPolicy(
            origin=self.logs[0].name,
            log=self.logs[0],
            witnesses=tuple(self.witnesses),
            rule=Quorum(witnesses=names, groups=tuple(self.groups), top=self.top),
        )


def _threshold(text: str, count: int) -> int:
    if text in {"any", "all"}:
        return 1 if text == "any" else count
    if not (text.isascii() and text.isdigit()) or text != str(int(text)):
        raise ValueError(f"{text[:20]!r} is not any, all or a number")
    return int(text)
