"""What an auditor reads: a log up to one checkpoint, from a bundle or a static log's files or URL.

Decides how far it is to be believed: every entry hashed up to the signed root, replayed under the
charters, and covered by the witnesses' quorum or not yet. Trusts the keys that the reader pins. Reads
only: a mirror's directory is not locked, and nothing is written into it.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from audit import archive, bundle, tiles
from audit.bundle import CHECKPOINT, LOG_KEY, Pinned
from audit.checkpoint import SignedCheckpoint, open_checkpoint, read_text
from audit.citation import Citations
from audit.faults import unverified
from audit.history import History
from audit.note import NoteVerifier, parse
from audit.policy import Cosignature, WitnessPolicy, policy_of
from audit.records import State
from audit.replay import Replay, replay
from audit.summary import RunSummary, summarise
from audit.tree_check import check_tree
from audit.validation import validations
from fedproto import envelope
from fedproto.errors import LocalFault
from fedproto.events.governance import CharterAdopted
from fedproto.statements import SignedEvent, event_from_json, leaf_id

# A file of a static log by its path; empty where there is none.
Files = Callable[[str], bytes]
# How often a directory that grows while it is read is read anew.
_ATTEMPTS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """A log that verified. Entries below `witnessed` are under a quorum; the rest waits for one."""

    source: str
    checkpoint: SignedCheckpoint
    cosignatures: tuple[Cosignature, ...]
    validations: tuple[Cosignature, ...]
    policy: WitnessPolicy
    state: State
    entries: tuple[bytes, ...]
    events: tuple[SignedEvent, ...]
    runs: tuple[RunSummary, ...]
    unpinned: tuple[str, ...]
    witnessed: int

    @property
    def size(self) -> int:
        """How many entries there are."""
        return len(self.entries)

    @property
    def history(self) -> History:
        """The acts in order, for questions about them."""
        return History(
            state=self.state,
            events=self.events,
            leaves=tuple(leaf_id(entry) for entry in self.entries),
        )

    @property
    def citations(self) -> Citations:
        """The rows and proofs of its entries."""
        return Citations(
            entries=self.entries,
            events=self.events,
            state=self.state,
            note=self.checkpoint.note.encode(),
            witnessed=self.witnessed,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """Entries that hash to a root which the log signed; whether they were allowed is not yet said."""

    checkpoint: SignedCheckpoint
    log: NoteVerifier
    entries: tuple[bytes, ...]


def open_reading(source: str, *, pinned: Pinned) -> Reading:
    """Verify a log whole.

    Raises:
        LocalFault: RNM-LEDGER-0003 naming a changed entry by its index; RNM-LEDGER-0001 naming what
            else differs; RNM-LEDGER-0006 a bundle without its quorum; RNM-CONF-0001 nothing to read.
    """
    if not (_is_url(source) or Path(source).is_dir()):
        return _of_bundle(source, pinned)
    tree = open_tree(source, pinned=pinned)
    found = replay(tree.entries, genesis_sha256=pinned.genesis_sha256)
    events = _require_valid(found)
    policy = policy_of(found.state.charter)
    if policy.log.vkey != tree.log.vkey:
        raise unverified("the log was refused", "its charter names another log key")
    note = tree.checkpoint.note
    cosignatures = policy.cosignatures(note)
    anchored = found.state.anchors[-1].size if found.state.anchors else 0
    return Reading(
        source=source,
        checkpoint=tree.checkpoint,
        cosignatures=cosignatures,
        validations=validations(found.state.charter, note),
        policy=policy,
        state=found.state,
        entries=tree.entries,
        events=events,
        runs=summarise(found.state),
        unpinned=_unpinned(pinned),
        witnessed=len(tree.entries) if policy.is_met(cosignatures) else anchored,
    )


def open_tree(source: str, *, pinned: Pinned) -> Tree:
    """Verify a log's signature and its hashes alone; raise as `open_reading`, but for the acts' rules."""
    files = _files(source)
    note = files(CHECKPOINT)
    for _ in range(_ATTEMPTS):
        try:
            return _open_tree(files, note, pinned)
        except LocalFault:
            # A mirror that grew meanwhile has removed partial tiles: that is no alarm, so look again.
            newer = files(CHECKPOINT)
            if newer == note:
                raise
            note = newer
    return _open_tree(files, note, pinned)


def _open_tree(files: Files, note: bytes, pinned: Pinned) -> Tree:
    if not note:
        raise unverified("the log was refused", f"{CHECKPOINT} is missing")
    log = _log_key(files, note, pinned)
    signed = open_checkpoint(note, log, log.name)
    size = signed.head.size

    def tile(level: int, n: int) -> bytes:
        width = min(tiles.WIDTH, size // tiles.WIDTH**level - n * tiles.WIDTH)
        return files(tiles.tile_path(level, n, width))

    entries = check_tree(signed.head, tile, lambda n, width: files(tiles.bundle_path(n, width)))
    return Tree(checkpoint=signed, log=log, entries=tuple(entries))


def _of_bundle(source: str, pinned: Pinned) -> Reading:
    found = bundle.verify(Path(source), pinned=pinned)
    return Reading(
        source=source,
        checkpoint=found.checkpoint,
        cosignatures=found.cosignatures,
        validations=found.validations,
        policy=found.policy,
        state=found.state,
        entries=found.entries,
        events=found.events,
        runs=found.runs,
        unpinned=found.unpinned,
        witnessed=len(found.entries),
    )


def _is_url(source: str) -> bool:
    return source.startswith(("http://", "https://"))


def _files(source: str) -> Files:
    if _is_url(source):
        # The one source that is not on this machine, and only because the reader names it.
        from audit.http_client import Remote, RemoteLog

        log = RemoteLog(Remote(source))
        return lambda name: log.file(name) or b""
    path = Path(source)
    try:
        if path.is_dir():
            return lambda name: _read(path / name)
        members = archive.unpack(path.read_bytes())
    except OSError as error:
        raise _unreadable(path, error) from None
    return lambda name: members.get(name, b"")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return b""
    except OSError as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: OSError) -> LocalFault:
    return LocalFault(
        "RNM-CONF-0001",
        what=f"{path} was not read",
        why=os.strerror(error.errno or 0),
        mend="name a bundle, or a directory with a log's files, that this user may read",
    )


def _log_key(files: Files, note: bytes, pinned: Pinned) -> NoteVerifier:
    """Return the pinned key, or the one that the log names for itself (and say so in `unpinned`)."""
    vkey = pinned.log_vkey
    if vkey is None:
        vkey = files(LOG_KEY).decode("utf-8", "replace").removesuffix("\n")
        vkey = vkey or _claimed_log_key(files, note)
    try:
        return NoteVerifier.from_vkey(vkey)
    except ValueError as error:
        raise unverified("the log's key was refused", str(error)) from None


def _claimed_log_key(files: Files, note: bytes) -> str:
    """Return the log key of the first charter, read before anything is verified by it."""
    width = min(tiles.WIDTH, read_text(parse(note).text).head.size)
    if width:
        data = files(tiles.bundle_path(0, width))
        first = next(tiles.decode_bundle(data, first=0, width=width))
        body = event_from_json(envelope.peek(first, envelope.EVENT_TYPE)).body
        if isinstance(body, CharterAdopted):
            return body.charter.log_vkey
    raise unverified("the log was refused", "its first entry adopts no charter")


def _require_valid(found: Replay) -> tuple[SignedEvent, ...]:
    for first in found.violations:
        raise unverified(
            "the ledger was refused",
            f"entry {first.index} does not follow: {first.code} {first.why}"
            + (f" (and {len(found.violations) - 1} more)" if len(found.violations) > 1 else ""),
        )
    return tuple(event for event in found.events if event is not None)


def _unpinned(pinned: Pinned) -> tuple[str, ...]:
    values = (("log_vkey", pinned.log_vkey), ("genesis_sha256", pinned.genesis_sha256))
    return tuple(name for name, value in values if value is None)
