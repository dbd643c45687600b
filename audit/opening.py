"""What must hold before a ledger is used: the right key, and every entry hashed up to the signed root.

Decides whether a database is opened. Trusts the log key alone, never a column: the state is derived
again from the entries, and the first one that differs is named. A shell over `audit.store`.
"""

from pathlib import Path

from audit import checkpoint, merkle, tiles
from audit.faults import unverified
from audit.note import NoteSigner
from audit.records import EMPTY, State
from audit.replay import advance
from audit.store import Head, Store
from audit.tree_check import check_tree
from fedproto.errors import LocalFault


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

    def bundle_bytes(n: int, width: int) -> bytes:
        return tiles.encode_bundle(store.entries(n * tiles.WIDTH, n * tiles.WIDTH + width))

    entries = check_tree(signed.head, store.tile, bundle_bytes)
    edge.accept(edge.grow([merkle.leaf_hash(entry) for entry in entries]))
    for index, leaf in enumerate(entries):
        try:
            state, _ = advance(state, leaf)
        except LocalFault as fault:
            raise unverified(
                "the ledger was refused", f"entry {index} does not follow: {fault.code} {fault.why}"
            ) from None
    return edge, state


def wrong_key(directory: Path) -> LocalFault:
    """Return the error of a ledger that was founded with another log key."""
    return LocalFault(
        "RNM-CONF-0001",
        what=f"the ledger in {directory} was not opened",
        why="the log key is not the one that its charter names",
        mend="use the log key that this ledger was founded with",
    )
