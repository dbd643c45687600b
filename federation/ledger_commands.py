"""The handlers of `renmei ledger`: what they write was verified against the party's own pins. A shell module."""

import argparse
from pathlib import Path

from audit import bundle
from audit.bundle import Pinned
from audit.http_client import Remote, RemoteLog, follow
from federation.client import CoordinatorClient, mirror_of
from fedproto.command import Console, Reply
from fedproto.durable import write_atomic
from fedproto.ids import Digest
from fedproto.party import Party


def sync_(args: argparse.Namespace, console: Console) -> Reply:
    """Update the party's own mirror."""
    if args.source is None:
        with CoordinatorClient(Path(args.dir)) as client:
            head = client.sync().head
    else:
        head = follow(mirror_of(Party.load(Path(args.dir))), RemoteLog(Remote(args.source))).head
    return Reply(
        data={"size": head.size, "root": head.root},
        text=console.say(
            en=f"{head.size} entries verified, root {head.root}",
            ja=f"{head.size} 項目を検証、ルート {head.root}",
        ),
        next=(f"renmei audit log {Path(args.dir) / 'mirror'}",),
    )


def export_(args: argparse.Namespace, console: Console) -> Reply:
    """Fetch a bundle; what does not verify is not left under its name."""
    path = Path(args.output)
    with CoordinatorClient(Path(args.dir)) as client:
        fetched = path.with_name(f".{path.name}.part")
        try:
            client.export(fetched)
            profile = client.party.profile
            pins = Pinned(log_vkey=profile.log_vkey, genesis_sha256=Digest(profile.genesis_sha256))
            found = bundle.verify(fetched, pinned=pins)
            write_atomic(path, fetched.read_bytes())
        finally:
            fetched.unlink(missing_ok=True)
    head = found.checkpoint.head
    names = ", ".join(item.member for item in found.cosignatures)
    return Reply(
        data={"file": str(path), "size": head.size, "root": head.root},
        text=console.say(
            en=f"{path}: {head.size} entries verified, cosigned by {names}",
            ja=f"{path}: {head.size} 項目を検証(連署 {names})",
        ),
        next=(
            (
                f"renmei audit verify {path} --log-key {profile.log_vkey} "
                f"--genesis {profile.genesis_sha256}"
            ),
        ),
    )


def receipt_(args: argparse.Namespace, console: Console) -> Reply:
    """Fetch a receipt and the entry that it is of."""
    path = Path(args.output)
    with CoordinatorClient(Path(args.dir)) as client:
        cose, entry = client.receipt(args.index)
    write_atomic(path, cose)
    write_atomic(path.with_suffix(".entry"), entry)
    return Reply(
        data={"file": str(path), "entry": str(path.with_suffix(".entry")), "bytes": len(cose)},
        text=console.say(
            en=f"{path}: receipt of entry {args.index}, verified",
            ja=f"{path}: 項目 {args.index} のレシート(検証済み)",
        ),
    )
