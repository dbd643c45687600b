"""The egress journal: every message that leaves this silo, written down before it goes.

Decides what may leave: the kinds listed here and nothing else. A line (kind, size, digest, where to,
which round, when) is on the disk, chained to the line before, before the first byte of its message is
handed to the network. Never holds a message's content. The member owns it; nobody else can write it.
A shell module.
"""

import datetime
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fedproto import jcs
from fedproto.durable import PRIVATE_FILE, disk_fault
from fedproto.errors import LocalFault
from fedproto.ids import ZERO_DIGEST, Digest, sha256_hex
from fedproto.schema import from_json, to_json

FILE = "egress.jsonl"

# Everything that ever leaves, by its name in the journal.
KINDS: dict[str, str] = {
    "exchange.hello": "the digest of the round authorisation that was consented to",
    "exchange.advertise": "public keys of one attempt, signed",
    "exchange.encrypted_shares": "seed shares, encrypted to the other members",
    "exchange.upload_begin": "the word that a masked upload follows",
    "exchange.masked_header": "sizes and digests of the masked upload, signed",
    "exchange.masked_chunk": "a part of the masked upload",
    "exchange.confirm": "a signature over the list of survivors",
    "exchange.reveal": "shares that open the sum",
    "exchange.complaint": "that what another member dealt cannot be used, signed",
    "exchange.opening": "one seed share in clear, because its holder complained of it, signed",
    "exchange.read_chunk": "a request for a masked chunk, to add the sum up again",
    "exchange.audited": "that this node's audit of the sum is in the ledger",
    "exchange.abort": "an error code",
    "governance.dataset": "a dataset's salted commitment, signed",
    "governance.vote": "a ballot, signed",
    "governance.participation": "a receipt of one round, signed",
    "governance.audit": "whether this node found a round's sum right, signed",
    "ledger.read": "a request to read the ledger",
    "artifact.read": "a request for a model by digest",
    "witness.answer": "a cosignature over a checkpoint",
    "witness.validation": "a signature that this node replayed the ledger up to a checkpoint",
    "flower.reply": "a receipt or a refusal, signed, in a Flower message",
    "flower.tunnel": "the courier's own polling, through the node's tunnel",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Departure:
    """One line: a message that left. `sha256` is of its bytes, zeros for a tunnel's stream."""

    v: int
    n: int
    prev: Digest
    at: int
    kind: str
    bytes: int
    sha256: Digest
    to: str
    run: str
    round: int


@dataclass(frozen=True, slots=True, kw_only=True)
class KindTotal:
    """What left of one kind."""

    kind: str
    messages: int
    bytes: int


class EgressJournal:
    """The open journal of a running agent; its methods may be called from any thread."""

    def __init__(self, root: Path, clock_ms: Callable[[], int]) -> None:
        self._path = root / FILE
        self._clock = clock_ms
        self._lock = threading.Lock()
        self._closed = False
        lines = _lines(self._path, cut_torn_tail=True)
        self._count = len(_parse(self._path, lines))
        self._prev = sha256_hex(lines[-1]) if lines else ZERO_DIGEST
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
        try:
            self._handle = os.open(self._path, flags, PRIVATE_FILE)
        except OSError as error:
            raise disk_fault(self._path, error) from None

    def record(self, kind: str, data: bytes, *, to: str, run: str = "", round_no: int = 0) -> None:
        """Write a message down; return only when the line is on the disk.

        Raises:
            LocalFault: RNM-EGRESS-0001 the kind may not leave; RNM-DISK-0001 it cannot be written.
        """
        self._append(kind, len(data), sha256_hex(data), to, run, round_no)

    def record_stream(self, kind: str, size: int, *, to: str) -> None:
        """Write down the size of an encrypted stream whose content the node cannot see."""
        self._append(kind, size, ZERO_DIGEST, to, "", 0)

    def close(self) -> None:
        """Close the file; whatever would leave after this is kept back."""
        with self._lock:
            os.close(self._handle)
            self._closed = True

    def _append(
        self, kind: str, size: int, digest: Digest, to: str, run: str, round_no: int
    ) -> None:
        if kind not in KINDS:
            raise not_allowed(kind)
        with self._lock:
            if self._closed:
                raise not_allowed(f"{kind} after the journal's end")
            line = jcs.dumps(
                to_json(
                    Departure(
                        v=1,
                        n=self._count,
                        prev=self._prev,
                        at=self._clock(),
                        kind=kind,
                        bytes=size,
                        sha256=digest,
                        to=to,
                        run=run,
                        round=round_no,
                    )
                )
            )
            self._write(line + b"\n")
            self._count += 1
            self._prev = sha256_hex(line)

    def _write(self, line: bytes) -> None:
        start = os.lseek(self._handle, 0, os.SEEK_END)
        try:
            written = os.write(self._handle, line)
            if written != len(line):
                written += os.write(self._handle, line[written:])
            os.fdatasync(self._handle)
        except OSError as error:
            # Half a line would break the chain for the next one.
            os.ftruncate(self._handle, start)
            raise disk_fault(self._path, error) from None


def not_allowed(kind: str) -> LocalFault:
    """Return the error of a message that is on no list."""
    return LocalFault(
        "RNM-EGRESS-0001",
        what="a message was kept back",
        why=f"{kind!r} is not a kind of message that may leave this silo",
        mend="report it: a part of this node tried to send what it must not",
    )


def read(root: Path) -> tuple[Departure, ...]:
    """Read and verify a journal; raise RNM-EGRESS-0002 naming the first line that does not fit."""
    path = root / FILE
    return _parse(path, _lines(path, cut_torn_tail=False))


def totals(departures: tuple[Departure, ...]) -> tuple[KindTotal, ...]:
    """Return what left, by kind, in the order of the list above."""
    result = []
    for kind in KINDS:
        sizes = [departure.bytes for departure in departures if departure.kind == kind]
        if sizes:
            result.append(KindTotal(kind=kind, messages=len(sizes), bytes=sum(sizes)))
    return tuple(result)


def when(departure: Departure) -> str:
    """Return the time of a line as RFC 3339."""
    moment = datetime.datetime.fromtimestamp(departure.at / 1000, datetime.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _lines(path: Path, *, cut_torn_tail: bool) -> list[bytes]:
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise disk_fault(path, error) from None
    whole, newline, tail = raw.rpartition(b"\n")
    if tail and cut_torn_tail:
        # A line is synced before its message goes out: of half a line, nothing left the silo.
        os.truncate(path, len(whole) + len(newline))
    return whole.split(b"\n") if newline else []


def _parse(path: Path, lines: list[bytes]) -> tuple[Departure, ...]:
    prev = ZERO_DIGEST
    departures = []
    for number, line in enumerate(lines):
        try:
            departure = from_json(Departure, jcs.loads(line), "line")
        except LocalFault as fault:
            raise _broken(path, number, fault.why) from None
        if departure.prev != prev or departure.n != number or departure.kind not in KINDS:
            raise _broken(path, number, "it does not follow from the line before it")
        prev = sha256_hex(line)
        departures.append(departure)
    return tuple(departures)


def _broken(path: Path, number: int, why: str) -> LocalFault:
    return LocalFault(
        "RNM-EGRESS-0002",
        what=f"line {number + 1} of {path} was refused",
        why=why,
        mend="the file was changed after it was written: keep it as evidence, and move it away "
        "before the node starts a new one",
    )
