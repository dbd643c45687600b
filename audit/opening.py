"""What must hold before a ledger is used: the right key, and every entry hashed up to the signed root.

Decides whether a database is opened. Trusts the log key alone, never a column: the state is derived
again from the entries, every row is compared with what follows from them, and the first one that
differs is named. A shell over `audit.store`.
"""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from audit import checkpoint, merkle, tiles
from audit.alteration import name_change, roots_at
from audit.checkpoint import SignedCheckpoint
from audit.faults import changed_entry, unverified
from audit.note import NoteSigner
from audit.records import EMPTY, State
from audit.replay import advance
from audit.sequencer import Columns
from audit.store import Head, Store
from audit.tree_check import check_tree
from fedproto.durable import read_private, write_atomic
from fedproto.errors import LocalFault
from fedproto.statements import Event

_DATABASE = "ledger.db"
_URL = "database.url"


def place_of(directory: Path, named: str | None, *, founding: bool) -> Path | str:
    """Return where a ledger's entries lie: the URL that was named or is kept, or a SQLite file.

    Raises:
        LocalFault: RNM-CONF-0001 there is none, or it lies elsewhere; RNM-KEY-0002 others read its URL.
    """
    keeper, file = directory / _URL, directory / _DATABASE
    kept = read_private(keeper).decode(errors="replace").strip() if keeper.exists() else None
    if named is not None and kept is not None and named != kept:
        raise LocalFault(
            "RNM-CONF-0001",
            what=f"the ledger in {directory} was not opened",
            why=f"{keeper} names another database",
            mend=f"leave the database out of the command, or correct {keeper}",
        )
    place = named or kept
    if place is None and not founding and not file.is_file():
        raise LocalFault(
            "RNM-CONF-0001",
            what=f"no ledger was opened in {directory}",
            why=f"there is neither {_DATABASE} nor {_URL}",
            mend="check the directory; a new consortium's ledger is made at its founding",
        )
    return file if place is None else place


def keep_place(directory: Path, url: str) -> None:
    """Remember where the entries lie; raise RNM-DISK-0001."""
    if not (directory / _URL).exists():
        write_atomic(directory / _URL, f"{url}\n".encode(), mode=0o600)


def check_head(directory: Path, store: Store, log_key: NoteSigner, *, founding: bool) -> Head:
    """Return the row of the log, made if there is none; raise RNM-CONF-0001 if it is not the one."""
    head = store.head()
    if head is None:
        head = Head(
            origin=log_key.name,
            log_vkey=log_key.vkey,
            size=0,
            root=merkle.EMPTY_ROOT,
            epoch=0,
        )
        store.start(head)
    if (head.origin, head.log_vkey) != (log_key.name, log_key.vkey):
        raise wrong_key(directory)
    if not founding and not head.size:
        raise LocalFault(
            "RNM-CONF-0001",
            what=f"no ledger was opened in {directory}",
            why="it has no first entry: its founding was broken off",
            mend="found the consortium again in an empty directory",
        )
    if founding and head.size:
        raise LocalFault(
            "RNM-CONF-0001",
            what=f"no ledger was founded in {directory}",
            why="one is there already, and a ledger is never overwritten",
            mend="choose another directory",
        )
    return head


def load(store: Store, head: Head, log_key: NoteSigner) -> tuple[tiles.RightEdge, State]:
    """Hash every entry up to the signed root, then derive the state again."""
    edge, state = tiles.RightEdge(), EMPTY
    if head.size == 0:
        return edge, state
    note = store.checkpoint(head.size)
    if note is None:
        raise unverified("the ledger was refused", "the checkpoint of its head is missing")
    signed = checkpoint.open_checkpoint(note, log_key.verifier, head.origin)
    if (signed.head.size, signed.head.root_bytes) != (head.size, head.root):
        raise unverified("the ledger was refused", "its head is not what the log key signed")
    last = store.last_index()
    if last is not None and last >= head.size:
        raise unverified(
            "the ledger was refused", f"entry {last} is beyond its head of size {head.size}"
        )
    entries = _entries(store, signed, log_key)
    hashes = [merkle.leaf_hash(entry) for entry in entries]
    edge.accept(edge.grow(hashes))
    _check_checkpoints(store, hashes, log_key)
    columns: list[Columns] = []
    for index, leaf in enumerate(entries):
        try:
            state, act = advance(state, leaf)
        except LocalFault as fault:
            raise unverified(
                "the ledger was refused", f"entry {index} does not follow: {fault.code} {fault.why}"
            ) from None
        columns.append(columns_of(act.event))
    _check_columns(store, hashes, columns)
    return edge, state


def _entries(store: Store, signed: SignedCheckpoint, log_key: NoteSigner) -> list[bytes]:
    """Return the entries that lead to the signed root; else name the one that was changed."""

    def bundle_bytes(n: int, width: int) -> bytes:
        return tiles.encode_bundle(store.entries(n * tiles.WIDTH, n * tiles.WIDTH + width))

    try:
        return check_tree(signed.head, store.tile, bundle_bytes)
    except LocalFault as fault:
        if fault.code == "RNM-LEDGER-0003":
            raise
        entries = store.entries(0, signed.head.size)
        found = merkle.root_of([merkle.leaf_hash(entry) for entry in entries])
        if len(entries) != signed.head.size or found == signed.head.root_bytes:
            raise
    roots = {}
    for size, note in store.checkpoints():
        with suppress(LocalFault):
            # One that was changed itself is no evidence; the newest one was verified above.
            kept = checkpoint.open_checkpoint(note, log_key.verifier, signed.checkpoint.origin)
            roots[size] = kept.head.root_bytes
    raise name_change(entries, roots)


def _check_checkpoints(store: Store, hashes: Sequence[bytes], log_key: NoteSigner) -> None:
    """Refuse a checkpoint that the log did not sign over these very entries."""
    kept = dict(store.checkpoints())
    roots = roots_at(hashes, list(kept))
    for size, note in kept.items():
        head = checkpoint.open_checkpoint(note, log_key.verifier, log_key.name).head
        if head.size != size or head.root_bytes != roots.get(size):
            raise unverified(
                "the ledger was refused", f"its checkpoint of size {size} is of other entries"
            )


def _check_columns(store: Store, hashes: Sequence[bytes], columns: Sequence[Columns]) -> None:
    """Refuse a row whose columns do not say what its entry says: a search would miss it."""
    for start in range(0, len(columns), tiles.WIDTH):
        for row in store.columns(start, start + tiles.WIDTH):
            said = columns[row.idx]
            for name in ("event_id", "type", "actor", "run", "round"):
                if getattr(row, name) != getattr(said, name):
                    raise changed_entry(row.idx, f"its column {name} is not what the entry says")
            if row.leaf_hash != hashes[row.idx]:
                raise changed_entry(row.idx, "its column leaf_hash is not the entry's hash")


def columns_of(event: Event) -> Columns:
    """Return what an entry says of itself, to search by."""
    return Columns(
        event_id=event.id,
        type=event.type,
        actor=event.actor.member,
        run=getattr(event.body, "run", ""),
        round=getattr(event.body, "round", 0),
    )


def wrong_key(directory: Path) -> LocalFault:
    """Return the error of a ledger that was founded with another log key."""
    return LocalFault(
        "RNM-CONF-0001",
        what=f"the ledger in {directory} was not opened",
        why="the log key is not the one that its charter names",
        mend="use the log key that this ledger was founded with",
    )
