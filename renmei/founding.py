"""`renmei consortium init`: founds a consortium in a directory and says what to hand to whom.

A shell module over renmei.consortium. Shows digests and public keys alone.
"""

import argparse
from pathlib import Path

from fedproto import pki
from fedproto.command import Console, Reply
from fedproto.ids import is_member_id
from renmei.consortium import found
from renmei.fault import usage


def init(args: argparse.Namespace, console: Console) -> Reply:
    """Found a consortium; refuse a directory that holds one (RNM-CONF-0001)."""
    if not is_member_id(args.name):
        raise usage(
            f"--name {args.name!r} is not a short name",
            "use lower case, digits and hyphens, at most 31, for example renmei-2026",
        )
    for option, address in (("--coordinator", args.coordinator), ("--gateway", args.gateway)):
        _, _, port = address.rpartition(":")
        if not port.isdecimal() or not 0 < int(port) < 65_536 or address.startswith(":"):
            raise usage(f"{option} {address!r} is not host:port", "for example fed.example:8443")
    made = found(
        Path(args.dir),
        consortium=args.name,
        coordinator=args.coordinator,
        gateway=args.gateway,
    )
    charter = made.charter
    root = (made.root / "authority" / "root.crt").read_bytes()
    data = {
        "genesis_sha256": charter.digest,
        "log_vkey": charter.log_vkey,
        "root_fingerprint": pki.fingerprint(root),
        "parties": {
            member.id: {
                "roles": [role.value for role in member.roles],
                "dir": str(made.party(member.id)),
            }
            for member in charter.members
        },
    }
    lines = [
        f"genesis   {charter.digest}",
        f"log key   {charter.log_vkey}",
        f"root      {data['root_fingerprint']}",
        *(
            f"  {member.id:<14} {','.join(role.value for role in member.roles):<16} "
            f"{made.party(member.id)}"
            for member in charter.members
        ),
    ]
    warning = console.say(
        en=f"take {made.root / 'authority'} off line now: its key issues every certificate. Compare "
        "genesis, log key and root with each member by another way",
        ja=f"{made.root / 'authority'} は、ただちにオフラインの媒体に移してください。すべての証明書を発行できる"
        "鍵が入っています。genesis、log key、root の値は、別の経路で各メンバーと照合してください",
    )
    return Reply(data=data, text="\n".join(lines), warnings=(warning,))
