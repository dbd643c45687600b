"""`renmei audit log | show | why | prove`: entries, what they say, and why they were allowed.

Decides nothing: audit.query, audit.answers.reason and audit.proof do. Answers only after the whole log
verified.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from audit.answers.reason import Asked as Clause
from audit.answers.reason import Reason, reason
from audit.commands.asking import Asked, answer, ask, run_named
from audit.history import History, unanswered
from audit.query import MIN_PREFIX, Filter, search
from fedproto.command import Console, Reply
from fedproto.durable import write_atomic
from fedproto.jcs import Json
from fedproto.schema import to_json
from fedproto.statements import event_to_json

_HEX = set("0123456789abcdef")


def log(args: argparse.Namespace, console: Console) -> Reply:
    """List the entries that are asked for."""
    wanted = filter_of(args)
    asked = ask(args)
    hits = hits_of(wanted, asked)
    return answer(asked, console, data={}, lines=(), cites=hits, proofs=args.proofs)


def hits_of(wanted: Filter, asked: Asked) -> list[int]:
    """Return the entries that are asked for; a run may be named by its first digits."""
    if wanted.run is not None:
        wanted = replace(wanted, run=run_named(wanted.run, asked))
    return list(search(asked.history, wanted, asked.citations.bracket))


def show(args: argparse.Namespace, console: Console) -> Reply:
    """Show one entry whole; with --why, also what allowed it."""
    asked = ask(args)
    signed = asked.history
    event = event_to_json(signed.event(args.index))
    data: dict[str, Json] = {
        "index": args.index,
        "leaf": signed.leaves[args.index],
        "signers": list(signed.events[args.index].signers),
        "event": event,
    }
    lines = [json.dumps(data, ensure_ascii=False, indent=2)]
    cites: tuple[int, ...] = (args.index,)
    if args.why:
        found = reason(asked.history, args.index)
        data["why"] = to_json(found)
        lines += ["", *reason_lines(found, console)]
        cites = found.cites
    return answer(asked, console, data=data, lines=lines, cites=cites, proofs=args.proofs)


def why(args: argparse.Namespace, console: Console) -> Reply:
    """Say who approved an entry, a run or a round, by which votes and under which clause."""
    asked = ask(args)
    found = reason(asked.history, _meant(args, asked))
    return answer(
        asked,
        console,
        data={"why": to_json(found)},
        lines=reason_lines(found, console),
        cites=found.cites,
        proofs=args.proofs,
    )


def prove(args: argparse.Namespace, console: Console) -> Reply:
    """Write an entry's tlog-proof, which verifies alone against the pinned policy."""
    asked = ask(args)
    index = _index(args.entry, asked.history)
    proof = asked.citations.tlog_proof(index)
    target = Path(args.output) if args.output else None
    if target is not None:
        write_atomic(target, proof)
        write_atomic(target.with_name(f"{target.name}.entry"), asked.reading.entries[index])
    data: dict[str, Json] = {
        "index": index,
        "leaf": asked.history.leaves[index],
        "proof": proof.decode("utf-8"),
        "entry": asked.reading.entries[index].decode("utf-8"),
        "policy": asked.reading.policy.text,
    }
    lines = [str(target)] if target else [proof.decode("utf-8").rstrip("\n")]
    return answer(asked, console, data=data, lines=lines, cites=(index,))


def filter_of(args: argparse.Namespace) -> Filter:
    """Return what the options ask for; raise RNM-CONF-0001 for what is no digest or time."""
    if args.artifact is not None and (
        not MIN_PREFIX <= len(args.artifact) <= 64 or set(args.artifact) - _HEX
    ):
        raise unanswered(
            "--artifact is not a digest", f"give {MIN_PREFIX} to 64 hex digits, in lower case"
        )
    return Filter(
        type=args.type,
        member=args.member,
        run=args.run,
        round=args.round,
        artifact=args.artifact,
        outcome=args.outcome,
        since_s=_seconds(args.since, "--since"),
        until_s=_seconds(args.until, "--until"),
    )


def _seconds(text: str | None, option: str) -> int | None:
    """Return a time in Unix seconds; a date is its first instant, in UTC."""
    if text is None:
        return None
    try:
        at = datetime.fromisoformat(text if "T" in text else f"{text}T00:00:00Z")
    except ValueError:
        at = None
    if at is None or at.tzinfo is None:
        raise unanswered(
            f"{option} is not a time: {text}", "give 2026-09-21 or 2026-09-21T09:00:00+09:00"
        )
    return int(at.timestamp())


def _index(text: str, history: History) -> int:
    """Return the entry that a number, or the beginning of a leaf hash, names."""
    if text.isascii() and text.isdigit() and len(text) < MIN_PREFIX:
        history.event(int(text))
        return int(text)
    found = [index for index, leaf in enumerate(history.leaves) if leaf.startswith(text)]
    if len(found) != 1 or len(text) < MIN_PREFIX:
        raise unanswered(
            f"{len(found)} entries have a leaf hash that begins {text[:64]!r}",
            f"give an index, or at least {MIN_PREFIX} digits of a leaf hash",
        )
    return found[0]


def _meant(args: argparse.Namespace, asked: Asked) -> int:
    """Return the entry that the question is about: an index, a run's mandate or a round's start."""
    if args.entry is not None:
        return _index(args.entry, asked.history)
    run = asked.history.state.runs[run_named(args.run, asked)]
    if args.round is None:
        return run.mandate.index
    for attempt in reversed(run.rounds):
        if attempt.started.body.round == args.round:
            return attempt.started.index
    raise unanswered(
        f"run {run.mandate.body.run} has no round {args.round}",
        "list the rounds: renmei audit log LOG --type round.started",
    )


def reason_lines(found: Reason, console: Console) -> Iterator[str]:
    """Yield a reason for people."""
    ja = console.lang == "ja"
    roles = ", ".join(found.roles)
    charter = f"v{found.charter_version} {found.charter_sha256[:12]}… #{found.charter_index}"
    yield f"#{found.index} {found.type}  {found.member} ({roles})"
    yield f"{'憲章' if ja else 'charter'} {charter}"
    match found.basis:
        case "vote" | "direct":
            pass
        case "founding":
            yield (
                "設立時の行為(全員の同意による)"
                if ja
                else "an act of the founding: by everyone's consent"
            )
        case "role":
            yield (
                "投票を要しない行為。憲章が上記の役割に認めています"
                if ja
                else "no vote is needed: the charter leaves it to these roles"
            )
    for asked in found.asked:
        yield from _clause_lines(asked, ja=ja)
    for vote in found.votes:
        mark = "" if vote.counts else (" (算入されません)" if ja else " (does not count)")
        yield f"  #{vote.index:<6} {vote.member:<14} {vote.choice}{mark}"
    if found.proposal is not None:
        label = "提案" if ja else "proposal"
        carried = f"#{found.carried}" if found.carried is not None else "-"
        decided = f"#{found.decided_by}" if found.decided_by is not None else "-"
        vetoed = f"  {'拒否権' if ja else 'vetoed by'} #{found.vetoed}" if found.vetoed else ""
        yield (
            f"{label} #{found.proposal}  {'可決' if ja else 'carried by'} {carried}{vetoed}  "
            f"{'決定' if ja else 'decided by'} {decided}"
        )


def _clause_lines(asked: Clause, *, ja: bool) -> Iterator[str]:
    about = f" ({asked.subject})" if asked.subject else ""
    label = "条項" if ja else "clause"
    text = json.dumps(to_json(asked.clause), sort_keys=True)
    yield f"{label} {asked.action}{about} v{asked.under}: {text}"
    if asked.needed:
        who = ", ".join(asked.entitled)
        yield (
            f"  賛成 {asked.yes}(必要数 {asked.needed}、投票権者 {who})"
            if ja
            else f"  {asked.yes} yes, {asked.needed} needed, of {who}"
        )
