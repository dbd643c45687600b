"""The handlers of `renmei coordinator` and `renmei run`. They show what was verified, and decide nothing."""

import argparse
from pathlib import Path
from typing import Any

from audit.http_client import HttpWitness, Remote
from audit.records import State
from federation.client import CoordinatorClient
from fedproto import jcs
from fedproto.command import Console, Reply
from fedproto.errors import LocalFault
from fedproto.events.governance import ProposalOpened
from fedproto.governance.charter import Action, Role
from fedproto.governance.plan import RunPlan
from fedproto.ids import Digest, MemberId, is_member_id
from fedproto.party import Party, now_ms, seed_file
from fedproto.schema import from_json, to_json

_MIN_PREFIX = 6


def init_(args: argparse.Namespace, console: Console) -> Reply:
    """Say what a coordinator's directory lacks before it can serve."""
    from federation.coordinator import LOG_KEY, NODES

    root = Path(args.dir)
    party = Party.load(root)
    wanted = [
        "keys/tls.key",
        "keys/tls.crt",
        "keys/root.crt",
        f"keys/{LOG_KEY}",
        # One of them: the entries lie in a file here, or where a URL says.
        "ledger/database.url" if (root / "ledger/database.url").exists() else "ledger/ledger.db",
    ]
    missing = [name for name in wanted if not (root / name).exists()]
    nodes = sorted(path.stem for path in (root / NODES).glob("*.pub"))
    data = {"party": party.profile.id, "missing": missing, "nodes": nodes}
    if missing:
        raise LocalFault(
            "RNM-CONF-0001",
            what=f"{root} cannot serve yet",
            why=f"it lacks {', '.join(missing)}",
            mend="found the consortium with `renmei consortium init`, or restore these from a backup",
        )
    text = console.say(
        en=f"{party.profile.id}: complete; Flower node keys of {', '.join(nodes) or 'nobody'}",
        ja=f"{party.profile.id}: 揃っています。Flower ノード鍵: {', '.join(nodes) or 'なし'}",
    )
    return Reply(data=data, text=text, next=(f"renmei coordinator serve --dir {root}",))


def serve_(args: argparse.Namespace, console: Console) -> Reply:
    """Serve until told to stop."""
    # Flower and gRPC's server are loaded for this verb alone.
    from federation.coordinator import serve

    serve(Path(args.dir), witnesses=dict(_witness(item) for item in args.witness or ()))
    return Reply(data={"stopped": True}, text=console.say(en="stopped", ja="停止しました"))


def _witness(item: str) -> tuple[MemberId, HttpWitness]:
    member, sign, url = item.partition("=")
    if not sign or not is_member_id(member):
        raise LocalFault(
            "RNM-CONF-0001",
            what=f"{item[:120]!r} names no witness",
            why="it is not MEMBER=URL",
            mend="write for example --witness nec=https://witness.nec.example",
        )
    return MemberId(member), HttpWitness(Remote(url))


def recover_(args: argparse.Namespace, console: Console) -> Reply:
    """Bring a restored ledger up to what a member's mirror holds; the coordinator must be stopped."""
    from audit.ledger import Ledger
    from audit.mirror import Mirror
    from audit.note import NoteSigner
    from federation.coordinator import LOG_KEY
    from federation.restoration import restore

    root, copy = Path(args.dir), Path(args.mirror)
    profile = Party.load(root).profile
    if not (copy / "checkpoint").is_file():
        raise LocalFault(
            "RNM-CONF-0001",
            what=f"nothing was recovered from {copy}",
            why="it holds no checkpoint, so it is no mirror",
            mend="copy the directory `mirror` of a member's node, whole",
        )
    log_key = NoteSigner(profile.origin, seed_file(root / "keys" / LOG_KEY, 32))
    mirror = Mirror(
        copy,
        log_vkey=profile.log_vkey,
        origin=profile.origin,
        genesis_sha256=Digest(profile.genesis_sha256),
    )
    with Ledger.open(root / "ledger", log_key=log_key) as ledger:
        bar = console.progress("entries", max(1, mirror.head.size - ledger.head.size))
        brought = restore(ledger, mirror, root, bar.advance)
        bar.close()
        size = ledger.head.size
    return Reply(
        data={"recovered": brought, "size": size},
        text=console.say(
            en=f"{brought} entries recovered; the ledger has {size}",
            ja=f"{brought} 項目を取り込みました。台帳は {size} 項目です",
        ),
        next=(f"renmei coordinator serve --dir {root}",),
    )


def propose_(args: argparse.Namespace, console: Console) -> Reply:
    """Put a plan to the vote."""
    plan = _read_plan(Path(args.plan))
    data: dict[str, Any] = {"plan_sha256": plan.digest, "members": list(plan.members)}
    words = f"{plan.training.rounds} × {plan.training.steps}, {', '.join(plan.members)}"
    if plan.aggregation.groups > 1:
        words += f"\n{plan.aggregation.groups} groups, {plan.aggregation.combine.value}"
    if args.dry_run:
        return Reply(data={**data, "plan": to_json(plan)}, text=f"plan {plan.digest}\n{words}")
    with CoordinatorClient(Path(args.dir)) as client:
        closes_at = now_ms() + args.closes_in * 1000
        body = ProposalOpened(
            action=Action.APPROVE_RUN, terms=plan, terms_sha256=plan.digest, closes_at=closes_at
        )
        data["index"] = client.propose(body)
    text = console.say(
        en=f"proposed in entry {data['index']}: plan {plan.digest}\n{words}",
        ja=f"項目 {data['index']} で提案しました: 計画 {plan.digest}\n{words}",
    )
    return Reply(data=data, text=text, next=(f"renmei run list --dir {args.dir}",))


def _read_plan(path: Path) -> RunPlan:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise LocalFault(
            "RNM-CONF-0001",
            what=f"{path} cannot be read",
            why=error.strerror or type(error).__name__,
            mend="name the plan's file with --plan",
        ) from None
    return from_json(RunPlan, jcs.loads(raw.strip()), "plan")


def _find(state: State, prefix: str) -> str:
    """Return the one run whose id starts with `prefix`."""
    found = [run for run in state.runs if run.startswith(prefix.lower())]
    if len(prefix) < _MIN_PREFIX or len(found) != 1:
        raise LocalFault(
            "RNM-CONSENT-0001",
            what=f"no run was chosen by {prefix[:32]!r}",
            why=f"{len(found)} mandates in the ledger begin so ({_MIN_PREFIX} digits or more)",
            mend="copy the id from `renmei run list`",
        )
    return found[0]


def start_(args: argparse.Namespace, console: Console) -> Reply:
    """Start a run."""
    with CoordinatorClient(Path(args.dir)) as client:
        run = _find(client.sync(), args.run)
        client.start(run)
    text = console.say(en=f"run {run[:8]} started", ja=f"実行 {run[:8]} を開始しました")
    return Reply(
        data={"run": run}, text=text, next=(f"renmei run watch {run[:8]} --dir {args.dir}",)
    )


def stop_(args: argparse.Namespace, console: Console) -> Reply:
    """Stop a run after the round in progress."""
    with CoordinatorClient(Path(args.dir)) as client:
        run = _find(client.sync(), args.run)
        client.stop(run)
    text = console.say(
        en=f"run {run[:8]} ends after the round in progress",
        ja=f"実行 {run[:8]} は進行中のラウンドの後で終わります",
    )
    return Reply(data={"run": run}, text=text)


def watch_(args: argparse.Namespace, console: Console) -> Reply:
    """Follow a run: one line an event."""
    last: dict[str, Any] = {}
    with CoordinatorClient(Path(args.dir)) as client:
        run = _find(client.sync(), args.run)
        for event in client.watch(run):
            last = {
                "sequence": event.sequence,
                "round": event.round,
                "attempt": event.attempt,
                "phase": event.phase,
                "state": event.state,
                "member": event.member,
                "code": event.code,
                "ledger_index": event.ledger_index,
                "terminal": event.terminal,
            }
            where = f"round {event.round}.{event.attempt}" if event.round else "run"
            entry = f"entry {event.ledger_index}" if event.ledger_index >= 0 else ""
            words = (where, event.phase, event.state, event.member, event.code, entry)
            console.event(last, "  ".join(word for word in words if word))
    return Reply(data=last, text=console.say(en="the run is over", ja="実行は終わりました"))


def list_(args: argparse.Namespace, console: Console) -> Reply:
    """List proposals and runs of the verified ledger."""
    with CoordinatorClient(Path(args.dir)) as client:
        state = client.sync()
    voters = len(state.charter.with_role(Role.TRAINER))
    rows: list[dict[str, Any]] = []
    for leaf, proposal in state.proposals.items():
        run, opened = proposal.run, proposal.opened.body
        done = sum(attempt.aggregated for attempt in state.rounds(run)) if run else 0
        rows.append(
            {
                "proposal": leaf,
                "index": proposal.opened.index,
                "action": opened.action.value,
                "terms_sha256": opened.terms_sha256,
                "votes": {vote.member: vote.body.choice.value for vote in proposal.votes},
                "run": run or "",
                "rounds": done,
                "of": opened.plan.training.rounds if opened.plan else 0,
                "decided": proposal.decided,
            }
        )
    lines = [
        f"{row['index']:>5}  {row['proposal'][:12]}  {len(row['votes'])}/{voters}  "
        f"{row['run'][:8] or '-':<8}  {row['rounds']}/{row['of']}  {row['action']}"
        for row in rows
    ]
    head = console.say(
        en="entry  proposal      votes  run       rounds  action",
        ja="項目   提案          投票   実行      ラウンド  行為",
    )
    return Reply(data=rows, text="\n".join([head, *lines]))
