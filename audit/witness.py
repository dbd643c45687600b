"""A witness: cosigns a log's checkpoints as long as each extends the last one that it cosigned.

Decides consistency only, not whether entries are valid (`audit.mirror` does). Trusts the log keys it
was given. Persists the whole log-signed checkpoint before it answers, so that it can prove to others
what the log signed. Implements C2SP tlog-witness `add-checkpoint` and tlog-cosignature (Ed25519 v1).
"""

import base64
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from audit import merkle, note
from audit.checkpoint import Checkpoint, TreeHead, open_checkpoint, read_text
from audit.directory_lock import DirectoryLock
from audit.faults import unverified
from audit.note import Note, NoteSigner, NoteVerifier
from audit.records import EMPTY_DIGEST
from fedproto.durable import make_private_directory, write_atomic
from fedproto.errors import LocalFault
from fedproto.ids import sha256_hex
from fedproto.party import now_ms

MAX_PROOF = 63
MAX_CONFLICTS = 16
SIZE_TYPE = "text/x.tlog.size"
Answer = tuple[int, bytes]


def unix_seconds() -> int:
    """Return this machine's clock in seconds."""
    return now_ms() // 1000


@dataclass(frozen=True, slots=True)
class _Request:
    old: int
    proof: list[bytes]
    checkpoint: bytes


class Witness:
    """The witness state of one key over any number of logs, by origin. Thread-safe."""

    def __init__(
        self,
        directory: Path,
        key: NoteSigner,
        logs: Mapping[str, NoteVerifier],
        *,
        clock: Callable[[], int] = unix_seconds,
    ) -> None:
        """Use `directory` for what was cosigned; `logs` maps an origin to its log key."""
        make_private_directory(directory)
        self._directory, self._key, self._logs, self._clock = directory, key, dict(logs), clock
        self._checking = threading.Lock()
        self._files = DirectoryLock(directory, code="RNM-PROC-0003")

    @property
    def vkey(self) -> str:
        """The key under which this witness cosigns."""
        return self._key.vkey

    def latest(self, origin: str) -> bytes | None:
        """Return the last checkpoint cosigned for a log, with both signatures."""
        try:
            return self._path(origin).read_bytes()
        except FileNotFoundError:
            return None

    def latest_of(self, origin_sha256: str) -> bytes | None:
        """Return the same for a log named by the digest of its origin, if it is one of its logs."""
        known = (origin for origin in self._logs if sha256_hex(origin.encode()) == origin_sha256)
        origin = next(known, None)
        return None if origin is None else self.latest(origin)

    def add_checkpoint(self, body: bytes) -> Answer:
        """Return the HTTP status and body of tlog-witness.

        Raises:
            LocalFault: RNM-DISK-0001 or RNM-LEDGER-0001: the witness's own state cannot be written
                or read; nothing was cosigned.
        """
        try:
            request = _parse(body)
            offered = read_text(note.parse(request.checkpoint).text)
        except LocalFault as fault:
            return 400, fault.why.encode() + b"\n"
        log = self._logs.get(offered.origin)
        if log is None:
            return 404, b"unknown log\n"
        try:
            signed = open_checkpoint(request.checkpoint, log, offered.origin)
        except LocalFault as fault:
            return 403, fault.why.encode() + b"\n"
        if request.old > signed.head.size:
            return 400, b"old size is larger than the checkpoint's\n"
        # Check, persist and cosign are one step: two checkpoints at once must not both win.
        with self._checking, self._files:
            return self._judge(request, signed.checkpoint, signed.note, log)

    def _judge(
        self, request: _Request, offered: Checkpoint, received: Note, log: NoteVerifier
    ) -> Answer:
        known = self._known(offered.origin, log)
        if request.old != known.size:
            if offered.head.size == known.size and offered.head.root != known.root:
                self._keep_conflict(offered, received)
            return 409, f"{known.size}\n".encode()
        try:
            merkle.verify_consistency(
                known.size,
                offered.head.size,
                known.root_bytes,
                offered.head.root_bytes,
                request.proof,
            )
        except LocalFault as fault:
            # The log signed it, and could not show that it extends what this witness cosigned.
            self._keep_conflict(offered, received)
            return 422, fault.why.encode() + b"\n"
        line = self._key.cosign(offered.text, self._clock())
        log_line = received.find(log)
        lines = (log_line, line) if log_line is not None else (line,)
        write_atomic(self._path(offered.origin), Note(offered.text, lines).encode(), mode=0o600)
        return 200, line.encode()

    def _known(self, origin: str, log: NoteVerifier) -> TreeHead:
        """Return the head last cosigned; a state that was tampered with is not a new start."""
        data = self.latest(origin)
        if data is None:
            return TreeHead(0, EMPTY_DIGEST)
        kept = open_checkpoint(data, log, origin)
        line = kept.note.find(self._key.verifier)
        if line is None:
            raise unverified(
                "the witness's own state was refused",
                "it does not carry this witness's cosignature",
                "restore it from a backup; never start a witness anew under the same key",
            )
        self._key.verifier.verify(line, kept.note.text)
        return kept.head

    def _keep_conflict(self, offered: Checkpoint, received: Note) -> None:
        """Keep a log-signed checkpoint beside the one cosigned that it may contradict, whole.

        Bounded: a log that offers ever new ones is caught by the first, and must not fill the disk.
        """
        prefix = f"{self._path(offered.origin).name}.conflict-"
        name = f"{prefix}{offered.head.size}-{offered.head.root[:16]}"
        kept = {path.name for path in self._directory.glob(f"{prefix}*")}
        if name in kept or len(kept) < MAX_CONFLICTS:
            write_atomic(self._directory / name, received.encode(), mode=0o600)

    def _path(self, origin: str) -> Path:
        return self._directory / f"{sha256_hex(origin.encode())}.checkpoint"


def request_body(old: int, proof: list[bytes], checkpoint: bytes) -> bytes:
    """Return the body of an add-checkpoint request."""
    lines = [f"old {old}", *(base64.b64encode(item).decode("ascii") for item in proof)]
    return "\n".join(lines).encode() + b"\n\n" + checkpoint


def _parse(body: bytes) -> _Request:
    what = "an add-checkpoint request was refused"
    head, separator, checkpoint = body.partition(b"\n\n")
    first, *rows = head.split(b"\n")
    number = first.removeprefix(b"old ")
    if not separator or number == first or not number.isdigit() or len(number) > 18:
        raise unverified(what, "it does not start with the old size")
    if number != str(int(number)).encode():
        raise unverified(what, "the old size has a leading zero")
    if len(rows) > MAX_PROOF:
        raise unverified(what, f"its proof has more than {MAX_PROOF} hashes")
    proof = []
    for row in rows:
        try:
            item = base64.b64decode(row, validate=True)
        except ValueError:
            raise unverified(what, "a hash of its proof is not base64") from None
        if len(item) != merkle.HASH_BYTES or base64.b64encode(item) != row:
            raise unverified(what, f"a hash of its proof is not {merkle.HASH_BYTES} bytes long")
        proof.append(item)
    return _Request(int(number), proof, checkpoint)
