"""What `renmei audit` answers from a bundle: every answer is given only after the whole bundle verified.

Decides nothing: audit.bundle does. Trusts the keys that the reader pins. Shows digests, ids and times,
as they stand in the ledger.
"""

import argparse
import json
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from audit import bundle
from audit.bundle import Findings, Pinned
from audit.note import NoteVerifier
from audit.summary import RunSummary
from fedproto.command import Console, Reply
from fedproto.errors import LocalFault
from fedproto.governance.charter import Charter
from fedproto.ids import Digest, is_digest
from fedproto.schema import to_json
from fedproto.statements import SignedEvent, event_to_json, leaf_id


def verify(args: argparse.Namespace, console: Console) -> Reply:
    """Verify a bundle and say what was checked."""
    found = _open(args)
    data = {
        "origin": found.checkpoint.checkpoint.origin,
        "size": found.checkpoint.head.size,
        "root": found.checkpoint.head.root,
        "genesis_sha256": found.state.charters[0].body.sha256,
        "log_vkey": found.policy.log.vkey,
        "witnesses": [c.member for c in found.cosignatures],
        "witness_quorum": found.state.charter.witness_quorum,
        "runs": [_run_json(run) for run in found.runs],
        "unpinned": list(found.unpinned),
    }
    return Reply(
        data=data,
        text="\n".join(_checks(found, console)),
        warnings=_warnings(found, console),
        next=(f"renmei audit log {args.bundle}",),
    )


def log(args: argparse.Namespace, console: Console) -> Reply:
    """List the entries."""
    found = _open(args)
    rows = [
        (index, signed)
        for index, signed in enumerate(found.events)
        if args.type in (None, signed.event.type)
        and args.member in (None, signed.event.actor.member)
    ]
    data = [
        {
            "index": index,
            "at": signed.event.at,
            "type": signed.event.type,
            "member": signed.event.actor.member,
            "leaf": leaf_id(found.entries[index]),
            "trace_id": signed.event.trace.trace_id,
        }
        for index, signed in rows
    ]
    width = max((len(signed.event.actor.member) for _, signed in rows), default=0)
    lines = [
        f"{index:>6}  {_time(signed.event.at)}  {signed.event.actor.member:<{width}}  "
        f"{signed.event.type:<20} {_gist(signed)}".rstrip()
        for index, signed in rows
    ]
    return Reply(data=data, text="\n".join(lines), warnings=_warnings(found, console))


def show(args: argparse.Namespace, console: Console) -> Reply:
    """Show one entry whole."""
    found = _open(args)
    if not 0 <= args.index < len(found.events):
        raise _usage(
            f"there is no entry {args.index}",
            f"the bundle has entries 0 to {len(found.events) - 1}",
        )
    signed = found.events[args.index]
    data = {
        "index": args.index,
        "leaf": leaf_id(found.entries[args.index]),
        "signers": list(signed.signers),
        "event": event_to_json(signed.event),
    }
    text = json.dumps(data, ensure_ascii=False, indent=2)
    return Reply(data=data, text=text, warnings=_warnings(found, console))


def head(args: argparse.Namespace, console: Console) -> Reply:
    """Show the checkpoint and who cosigned it."""
    found = _open(args)
    at = found.checkpoint.head
    data = {
        "origin": found.checkpoint.checkpoint.origin,
        "size": at.size,
        "root": at.root,
        "cosignatures": [
            {"member": c.member, "timestamp": c.timestamp} for c in found.cosignatures
        ],
        "note": found.checkpoint.note.encode().decode("utf-8"),
    }
    cosigned = console.say(en="cosigned by", ja="連署")
    lines = [found.checkpoint.checkpoint.origin, f"{at.size} {at.root}"]
    lines += [f"{cosigned} {c.member}  {_time(c.timestamp * 1000)}" for c in found.cosignatures]
    return Reply(data=data, text="\n".join(lines), warnings=_warnings(found, console))


def charter(args: argparse.Namespace, console: Console) -> Reply:
    """Show the charter in force."""
    found = _open(args)
    now = found.state.charter
    data = {"sha256": now.digest, "charter": to_json(now)}
    text = "\n".join(_charter_lines(now, console))
    return Reply(data=data, text=text, warnings=_warnings(found, console))


def _open(args: argparse.Namespace) -> Findings:
    return bundle.verify(
        Path(args.bundle),
        pinned=Pinned(log_vkey=_log_key(args.log_key), genesis_sha256=_genesis(args.genesis)),
    )


def _log_key(given: str | None) -> str | None:
    """Return the pinned vkey, from the text itself or from a file that holds it."""
    if given is None:
        return None
    texts = [given]
    with suppress(OSError, ValueError):
        texts.append(Path(given).read_text("ascii").strip())
    for text in texts:
        with suppress(ValueError, LocalFault):
            NoteVerifier.from_vkey(text)
            return text
    raise _usage(
        "--log-key is neither a C2SP vkey nor a file that holds one",
        "give name+hash+key as the members published it",
    )


def _genesis(given: str | None) -> Digest | None:
    if given is None or is_digest(given):
        return None if given is None else Digest(given)
    raise _usage("--genesis is not a SHA-256 digest", "give its 64 hex digits, in lower case")


def _usage(why: str, mend: str) -> LocalFault:
    return LocalFault("RNM-CONF-0001", what="the question was not answered", why=why, mend=mend)


def _warnings(found: Findings, console: Console) -> tuple[str, ...]:
    if not found.unpinned:
        return ()
    options = {"log_vkey": "--log-key", "genesis_sha256": "--genesis"}
    missing = ", ".join(options[name] for name in found.unpinned)
    return (
        console.say(
            en=f"not pinned: {missing}. The bundle agrees with itself; whose history it is, is not "
            "proven. Get these values from the members, not from whoever gave you the file.",
            ja=f"固定されていない値: {missing}。ファイルは内部で整合していますが、誰の履歴かは証明されて"
            "いません。これらの値は、ファイルの提供者ではなくメンバーから受け取ってください。",
        ),
    )


def _checks(found: Findings, console: Console) -> Iterator[str]:
    size, root = found.checkpoint.head.size, found.checkpoint.head.root
    charters = len(found.state.charters)
    signatures = sum(len(signed.signers) for signed in found.events)
    attempts = sum(len(run.rounds) for run in found.runs)
    names = ", ".join(c.member for c in found.cosignatures)
    quorum = found.state.charter.witness_quorum
    ja = console.lang == "ja"
    yield (
        f"✔ {size} 項目がルート {root[:16]}… と一致"
        if ja
        else (f"✔ {size} entries hash to root {root[:16]}…")
    )
    yield (
        f"✔ ログ鍵の署名、証人の連署 {names}(必要数 {quorum})"
        if ja
        else (f"✔ signed by the log, cosigned by {names} ({quorum} needed)")
    )
    yield (
        f"✔ {signatures} 個の署名が、その時点の憲章({charters} 版)の鍵と一致"
        if ja
        else (
            f"✔ {signatures} signatures by keys of the charter in force at each entry ({charters} in all)"
        )
    )
    yield (
        f"✔ すべての行為が規則に適合: 委任 {len(found.runs)}、ラウンド {attempts}"
        if ja
        else (
            f"✔ every act was allowed: {len(found.runs)} mandates recounted, {attempts} rounds follow"
        )
    )
    for run in found.runs:
        yield f"  {run.run}  {', '.join(run.members)}  → {(run.model_out or '-')[:16]}"


def _run_json(run: RunSummary) -> dict[str, object]:
    return {
        "run": run.run,
        "mandate": run.mandate,
        "proposal": run.proposal,
        "votes": list(run.votes),
        "members": list(run.members),
        "model_out": run.model_out,
        "rounds": [
            {
                "round": item.round,
                "attempt": item.attempt,
                "started": item.started,
                "closed": item.closed,
                "outcome": item.outcome.value if item.outcome else None,
                "included": list(item.included),
            }
            for item in run.rounds
        ],
    }


def _charter_lines(now: Charter, console: Console) -> Iterator[str]:
    yield f"{now.consortium}  v{now.version}  {now.digest}"
    yield f"{console.say(en='log', ja='ログ')} {now.log_vkey}"
    yield f"{console.say(en='witness quorum', ja='証人の必要数')} {now.witness_quorum}"
    for name, clause in sorted(now.actions.items()):
        voters = "|".join(role.value for role in clause.vote)
        yield f"{name}: {clause.rule.value} {clause.yes} × {voters}, {clause.expires_s} s"
    for member in now.members:
        roles = ",".join(role.value for role in member.roles)
        yield f"  {member.id:<14} {roles:<20} {member.key[:32]}"


def _gist(signed: SignedEvent) -> str:
    """Return the one thing that tells an entry from others of its type."""
    body = to_json(signed.event.body)
    if not isinstance(body, dict):
        return ""
    names = ("round", "attempt", "choice", "outcome", "run", "proposal", "name", "sha256")
    shown = [f"{name}={str(body[name])[:16]}" for name in names if name in body]
    return " ".join(shown[:4])


def _time(milliseconds: int) -> str:
    """Return RFC 3339 UTC; a signer's time may be any number."""
    try:
        return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (OverflowError, OSError, ValueError):
        return f"{milliseconds} ms"
