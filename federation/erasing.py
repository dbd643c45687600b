"""The handlers of `renmei govern open | erase`: what opens a commitment, and its end.

Decides nothing. Erasing comes first and the act after it: a ledger that says "erased" is never wrong,
and a run that was broken off in between is finished by running it again. A shell module.
"""

import argparse
import base64
from pathlib import Path

from federation import openings
from federation.governing import connected, judge, send
from federation.governing_seat import confirm
from fedproto.command import Console, Reply
from fedproto.events.oversight import Authority, ErasureDone
from fedproto.ids import Digest, is_digest


def open_(args: argparse.Namespace, console: Console) -> Reply:
    """Show what opens a commitment of this party, for whoever may see it; nothing is sent."""
    opening = openings.find(Path(args.dir), args.commitment)
    content = opening.content.decode("utf-8", "replace")
    return Reply(
        data={
            "commitment": opening.commitment,
            "kind": opening.kind,
            "salt": opening.salt.hex(),
            "content": base64.b64encode(opening.content).decode("ascii"),
        },
        text=console.say(
            en=f"{opening.commitment} is a {opening.kind}, salt {opening.salt.hex()}:\n{content}",
            ja=f"{opening.commitment} は {opening.kind}、ソルト {opening.salt.hex()}:\n{content}",
        ),
    )


def erase_(args: argparse.Namespace, console: Console) -> Reply:
    """Erase salt and content of a commitment, then say so in the ledger."""
    root = Path(args.dir)
    gone = is_digest(args.commitment) and not openings.is_kept(root, Digest(args.commitment))
    commitment = (
        Digest(args.commitment) if gone else openings.find(root, args.commitment).commitment
    )
    confirm(
        args,
        commitment[:8],
        f"what opens commitment {commitment} is erased for good",
        f"コミットメント {commitment} のソルトと内容を完全に消去します",
        console,
    )
    body = ErasureDone(commitment=commitment, authority=Authority(args.authority))
    with connected(args) as client:
        judge(client, client.sync(), body)
        openings.erase(root, commitment)
        index, _, warning = send(client, body, console)
    return Reply(
        data={"commitment": commitment, "index": index},
        text=console.say(
            en=f"erased; said so in entry {index}", ja=f"消去し、項目 {index} に記録しました"
        ),
        warnings=(warning,) if warning else (),
    )
