"""The handlers of `renmei node`. They decide nothing; they show what the node itself verified."""

import argparse
import json
from pathlib import Path
from typing import Any

from fedproto.command import Console, Reply
from fedproto.errors import LocalFault
from fedproto.jcs import Json
from fedproto.party import Party, runtime_socket
from fedproto.schema import to_json
from member_node import control, egress, setup
from member_node import policy as policies

_MIN_PREFIX = 6


def init_(args: argparse.Namespace, console: Console) -> Reply:
    """Make what a node needs in a directory that enrolment made."""
    root = Path(args.dir)
    made = setup.equip(Party.load(root))
    text = console.say(
        en=f"made {', '.join(made) or 'nothing: all is there'} in {root}",
        ja=f"{root} に作成: {', '.join(made) or 'なし(すべて揃っています)'}",
    )
    note = console.say(
        en="policy.json allows nothing yet: edit it before the node can take part",
        ja="policy.json はまだ何も許可していません。参加する前に編集してください",
    )
    warnings = (note,) if policies.FILE in made else ()
    return Reply(
        data={"dir": str(root), "made": list(made)},
        text=text,
        warnings=warnings,
        next=(f"renmei node policy --dir {root}", f"renmei node run --dir {root}"),
    )


def run_(args: argparse.Namespace, console: Console) -> Reply:
    """Run the agent until it is told to stop."""
    # The agent and what it starts are loaded for this verb alone.
    from member_node.agent import run
    from member_node.shells import StockShells

    root = Path(args.dir)
    run(root, StockShells(compiled=not args.no_compile))
    return Reply(data={"stopped": True}, text=console.say(en="stopped", ja="停止しました"))


def status_(args: argparse.Namespace, console: Console) -> Reply:
    """Ask the running agent."""
    data: Any = _ask(Path(args.dir), "status")
    lines = [
        f"{data['member']} → {data['coordinator']}",
        console.say(
            en=f"ledger verified up to {data['ledger_size']} entries, root {data['ledger_root'][:16]}",
            ja=f"台帳 {data['ledger_size']} 件まで検証済み、ルート {data['ledger_root'][:16]}",
        ),
    ]
    lines += [f"run {r['run'][:8]}  {r['rounds']}/{r['of']}" for r in data["runs"]]
    waiting = [f"renmei node vote {leaf[:16]} yes --dir {args.dir}" for leaf in data["waiting"]]
    return Reply(data=data, text="\n".join(lines), next=tuple(waiting))


def vote_(args: argparse.Namespace, console: Console) -> Reply:
    """Have the running agent sign and cast a ballot."""
    proposal = str(args.proposal).lower()
    if len(proposal) < _MIN_PREFIX or set(proposal) - set("0123456789abcdef"):
        raise LocalFault(
            "RNM-CONF-0001",
            what="no vote was cast",
            why=f"{proposal[:64]!r} is not the start of a digest ({_MIN_PREFIX} digits or more)",
            mend="copy it from `renmei node status`",
        )
    data = _ask(Path(args.dir), "vote", proposal=proposal, choice=args.choice)
    text = console.say(
        en=f"voted {args.choice} on {proposal[:16]}", ja=f"{proposal[:16]} に {args.choice} を投票"
    )
    return Reply(data=data, text=text)


def policy_(args: argparse.Namespace, console: Console) -> Reply:
    """Show the policy in force and its digest."""
    root = Path(args.dir)
    in_force = policies.load(root)
    data = {"policy": to_json(in_force), "sha256": in_force.digest}
    missing = console.say(
        en="no policy.json: nothing is allowed", ja="policy.json がなく、すべて拒否"
    )
    return Reply(
        data=data,
        text=json.dumps(data["policy"], indent=2, ensure_ascii=False)
        + f"\nsha256 {in_force.digest}",
        warnings=() if (root / policies.FILE).exists() else (missing,),
    )


def egress_(args: argparse.Namespace, console: Console) -> Reply:
    """Verify the journal and show what left."""
    departures = egress.read(Path(args.dir))
    totals = egress.totals(departures)
    if args.all:
        lines = [
            f"{egress.when(d)}  {d.kind:<27} {d.bytes:>12,}  {d.sha256[:16]}  {d.to}"
            for d in departures
        ]
        data: list[Json] = [to_json(departure) for departure in departures]
    else:
        lines = [f"{t.kind:<27} {t.messages:>7,} {t.bytes:>14,} B" for t in totals]
        data = [to_json(total) for total in totals]
    verified = console.say(
        en=f"{len(departures)} messages, chain verified",
        ja=f"{len(departures)} 件、連鎖を検証しました",
    )
    return Reply(data=data, text="\n".join([*lines, verified]))


def _ask(root: Path, act: str, **fields: str) -> Json:
    return control.ask(runtime_socket(root, control.NAME), act, **fields)
