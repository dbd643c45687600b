"""`renmei audit evidence`: packs and verifies the proof that a key signed two histories.

Decides nothing: audit.misbehaviour does. Verification needs this one file and the pinned key.
"""

import argparse
from pathlib import Path

from audit import merkle, misbehaviour
from audit.checkpoint import TreeHead, read_text
from audit.commands.asking import pinned
from audit.faults import unverified
from audit.history import unanswered
from audit.misbehaviour import Finding
from audit.note import parse
from audit.reading import open_tree
from fedproto.command import Console, Reply
from fedproto.durable import write_atomic
from fedproto.errors import Exit
from fedproto.ids import Digest

_MOST = 1 << 20


def evidence(args: argparse.Namespace, console: Console) -> Reply:
    """Verify a file of evidence; or pack one from two signed checkpoints that contradict each other."""
    pins = pinned(args)
    if args.second is None:
        return _said(misbehaviour.verify(_read(args.file), args.key or pins.log_vkey), console)
    if args.output is None:
        raise unanswered("two checkpoints make a new file", "name it with -o")
    notes = sorted((_read(args.file), _read(args.second)), key=lambda note: _head(note).size)
    smaller, larger = notes
    key = args.key or pins.log_vkey
    if key is None:
        raise unanswered("nobody is accused", "give --log-key, or --key with a witness's vkey")
    root, path = _past(args, smaller, larger)
    packed = misbehaviour.pack(key, larger, smaller, root, path)
    write_atomic(Path(args.output), packed)
    return _said(misbehaviour.verify(packed, key), console)


def _past(args: argparse.Namespace, smaller: bytes, larger: bytes) -> tuple[Digest, list[bytes]]:
    """Return the root that the larger tree had at the smaller one's size, and the proof of it."""
    before, after = _head(smaller), _head(larger)
    if before.size == after.size:
        return after.root, []
    if args.log is None:
        raise unanswered(
            "the two checkpoints are of different sizes",
            "give --log with a bundle or mirror of the larger one",
        )
    entries = open_tree(args.log, pinned=pinned(args)).entries[: after.size]
    hashes = [merkle.leaf_hash(entry) for entry in entries]
    root = Digest(merkle.root_of(hashes).hex())
    if len(entries) != after.size or root != after.root:
        raise unverified(
            "no evidence was packed", "that log is not the one of the larger checkpoint"
        )

    def node(height: int, index: int) -> bytes:
        return merkle.root_of(hashes[index << height : (index + 1) << height])

    past = Digest(merkle.root_of(hashes[: before.size]).hex())
    return past, merkle.prove_consistency(node, before.size, after.size)


def _head(note: bytes) -> TreeHead:
    return read_text(parse(note).text).head


def _read(name: str) -> bytes:
    path = Path(name)
    try:
        if path.stat().st_size > _MOST:
            raise unanswered(
                f"{path} has more than {_MOST} bytes", "it is no checkpoint or evidence"
            )
        return path.read_bytes()
    except OSError as error:
        raise unanswered(
            f"{path}: {error.strerror}", "name a file that this user may read"
        ) from None


def _said(found: Finding, console: Console) -> Reply:
    said, shown = found.said, found.shown
    data = {
        "key": found.key.vkey,
        "origin": found.origin,
        "size": said.size,
        "roots": [said.root, shown.root],
        "larger": found.larger.size,
    }
    text = console.say(
        en=f"✘ {found.key.name} signed two histories of {found.origin}: for size {said.size}\n"
        f"  root {said.root}\n  root {shown.root}, by its checkpoint of size {found.larger.size}",
        ja=f"✘ {found.key.name} は {found.origin} の二つの履歴に署名しています: 項目数 {said.size} に対し\n"
        f"  ルート {said.root}\n  ルート {shown.root}(項目数 {found.larger.size} のチェックポイントによる)",
    )
    return Reply(data=data, text=text, exit=Exit.VERIFY)
