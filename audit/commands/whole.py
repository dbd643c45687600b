"""`renmei audit verify | replay | head | charter | state | diff`: the log as a whole.

Decides nothing: audit.reading, audit.replay and audit.difference do.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

from audit import proof
from audit.answers.integrity import Integrity, integrity
from audit.commands.asking import Asked, answer, ask, pinned, warnings
from audit.difference import Change, difference
from audit.faults import two_histories
from audit.history import unanswered
from audit.legible import moment, visible
from audit.policy import read_policy
from audit.reading import open_tree
from audit.replay import replay as replay_entries
from audit.summary import RunSummary, state_digest, state_json
from fedproto.command import Console, Reply
from fedproto.errors import Exit, LocalFault
from fedproto.governance.charter import Charter
from fedproto.jcs import Json
from fedproto.schema import to_json
from fedproto.statements import leaf_id


def verify(args: argparse.Namespace, console: Console) -> Reply:
    """Verify a log whole, or one entry by its tlog-proof, and say what was checked."""
    if args.entry is not None or args.policy is not None:
        return _verify_entry(args, console)
    asked = ask(args)
    reading = asked.reading
    reading.policy.check_quorum(reading.checkpoint)
    data: dict[str, Json] = {
        "origin": reading.checkpoint.checkpoint.origin,
        "size": reading.size,
        "root": reading.checkpoint.head.root,
        "genesis_sha256": reading.state.charters[0].body.sha256,
        "log_vkey": reading.policy.log.vkey,
        "witnesses": [item.member for item in reading.cosignatures],
        "validators": [item.member for item in reading.validations],
        "witness_quorum": reading.state.charter.witness_quorum,
        "runs": [_run_json(run) for run in reading.runs],
        "unpinned": list(reading.unpinned),
    }
    return Reply(
        data=data,
        text="\n".join(_checks(asked, console)),
        warnings=warnings(reading, console),
        next=(f"renmei audit log {args.bundle}",),
    )


def _verify_entry(args: argparse.Namespace, console: Console) -> Reply:
    if args.entry is None or args.policy is None:
        raise unanswered(
            "an entry is verified by three files", "give PROOF --entry ENTRY --policy POLICY"
        )
    entry = _file(args.entry)
    cosigned = proof.verify(_file(args.bundle), entry, read_policy(_file(args.policy)))
    index, head = proof.parse(_file(args.bundle)).index, cosigned.signed.head
    names = ", ".join(item.member for item in cosigned.cosignatures)
    data: dict[str, Json] = {
        "index": index,
        "leaf": leaf_id(entry),
        "origin": cosigned.signed.checkpoint.origin,
        "size": head.size,
        "root": head.root,
        "witnesses": [item.member for item in cosigned.cosignatures],
    }
    text = console.say(
        en=f"✔ entry {index} is in the log of {head.size} entries, cosigned by {names}",
        ja=f"✔ 項目 {index} は {head.size} 項目のログに含まれています(連署 {names})",
    )
    return Reply(data=data, text=visible(text))


def _file(name: str) -> bytes:
    try:
        return Path(name).read_bytes()
    except OSError as error:
        raise unanswered(
            f"{name}: {error.strerror}", "name a file that this user may read"
        ) from None


def replay(args: argparse.Namespace, console: Console) -> Reply:
    """Apply every entry again, list every violation, and say whether the log was ever rewritten."""
    try:
        asked = ask(args)
    except LocalFault:
        # What is wrong may be an act that was not allowed: then list every one, not only the first.
        listed = _violations(args, console)
        if listed is None:
            raise
        return listed
    kept = [(name, _file(name)) for name in _checkpoints(args.checkpoint or ())]
    judged = integrity(asked.history, log=asked.reading.policy.log, kept=kept)
    for item in judged.rewritten:
        raise two_histories(
            f"the log key signed root {item.root[:16]}… for size {item.size} ({item.name}); "
            f"this log had {asked.history.state.root_at(item.size)[:16]}… then"
        )
    return answer(
        asked,
        console,
        data={"violations": [], "integrity": to_json(judged)},
        lines=_integrity_lines(judged, console),
        cites=judged.cites,
        proofs=args.proofs,
    )


def _checkpoints(named: list[str] | tuple[str, ...]) -> Iterator[str]:
    """Yield files; of a directory (a witness's own), its checkpoints and the conflicts it kept."""
    for name in named:
        if Path(name).is_dir():
            yield from sorted(str(path) for path in Path(name).glob("*checkpoint*"))
        else:
            yield name


def _violations(args: argparse.Namespace, console: Console) -> Reply | None:
    pins = pinned(args)
    tree = open_tree(args.bundle, pinned=pins)
    found = replay_entries(tree.entries, genesis_sha256=pins.genesis_sha256)
    if not found.violations:
        return None
    rows = [{"index": item.index, "code": item.code, "why": item.why} for item in found.violations]
    head = console.say(
        en=f"✘ {len(rows)} of {found.state.size} entries do not follow from those before them",
        ja=f"✘ {found.state.size} 項目中 {len(rows)} 項目が規則に適合しません",
    )
    lines = [head, *(f"{item.index:>6}  {item.code}  {item.why}" for item in found.violations)]
    return Reply(
        data={"violations": rows, "integrity": None},
        text=visible("\n".join(lines)),
        exit=Exit.VERIFY,
    )


def _integrity_lines(found: Integrity, console: Console) -> Iterator[str]:
    ja = console.lang == "ja"
    yield (
        f"✔ 書き換えの形跡なし: {found.size} 項目すべてが順に規則に適合"
        if ja
        else f"✔ never rewritten: all {found.size} entries follow from those before them"
    )
    yield (
        f"✔ 署名 {found.signatures}、行為に含まれるヘッド {found.heads} はすべてこの履歴上"
        if ja
        else f"✔ {found.signatures} signatures; {found.heads} acts name a head, all of this history"
    )
    yield f"{'状態' if ja else 'state'} {found.state_sha256}"
    vouched = "まで確認" if ja else "had verified up to"
    for item in found.vouched:
        yield f"  {item.member:<14} {vouched} {item.size} (#{item.index}, {item.acts})"
    for kept in found.kept:
        yield f"  {kept.name}  {kept.size} {kept.root[:16]}… {kept.verdict}"


def head(args: argparse.Namespace, console: Console) -> Reply:
    """Show the checkpoint and who cosigned it."""
    asked = ask(args)
    reading = asked.reading
    at = reading.checkpoint.head
    data: dict[str, Json] = {
        "origin": reading.checkpoint.checkpoint.origin,
        "size": at.size,
        "root": at.root,
        "witnessed": reading.witnessed,
        "cosignatures": [
            {"member": c.member, "timestamp": c.timestamp} for c in reading.cosignatures
        ],
        "validations": [
            {"member": c.member, "timestamp": c.timestamp} for c in reading.validations
        ],
        "note": reading.checkpoint.note.encode().decode("utf-8"),
    }
    lines = [reading.checkpoint.checkpoint.origin, f"{at.size} {at.root}"]
    for label, signed in (
        (console.say(en="cosigned by", ja="連署"), reading.cosignatures),
        (console.say(en="validated by", ja="検証連署"), reading.validations),
    ):
        lines += [f"{label} {c.member}  {moment(c.timestamp * 1000)}" for c in signed]
    return Reply(data=data, text="\n".join(lines), warnings=warnings(reading, console))


def charter(args: argparse.Namespace, console: Console) -> Reply:
    """Show the charter in force."""
    asked = ask(args)
    now = asked.reading.state.charter
    data: dict[str, Json] = {"sha256": now.digest, "charter": to_json(now)}
    text = visible("\n".join(_charter_lines(now, console)))
    return Reply(data=data, text=text, warnings=warnings(asked.reading, console))


def state(args: argparse.Namespace, console: Console) -> Reply:
    """Show the state of governance at a size, and its digest."""
    asked = ask(args)
    at = asked.history.state if args.at is None else asked.history.state_at(args.at)
    data: dict[str, Json] = {
        "size": at.size,
        "root": at.root,
        "state_sha256": state_digest(at),
        "charter_sha256": at.charters[-1].body.sha256 if at.charters else None,
        "state": state_json(at),
    }
    counts = (
        ("members", len(at.seats)),
        ("keys", len(at.keys)),
        ("proposals", len(at.proposals)),
        ("open", len(at.waiting)),
        ("runs", len(at.runs)),
        ("datasets", len(at.datasets)),
        ("releases", len(at.releases)),
        ("stops", len(at.stops)),
    )
    lines = [f"{at.size} {at.root}", f"state {data['state_sha256']}"]
    lines += [f"{name:<10} {number}" for name, number in counts]
    return answer(asked, console, data=data, lines=lines)


def diff(args: argparse.Namespace, console: Console) -> Reply:
    """Say what changed between two sizes."""
    asked = ask(args)
    old, new = asked.history.state_at(args.old), asked.history.state_at(args.new)
    changes = difference(old, new)
    data: dict[str, Json] = {
        "from": {"size": old.size, "root": old.root, "state_sha256": state_digest(old)},
        "to": {"size": new.size, "root": new.root, "state_sha256": state_digest(new)},
        "changes": [to_json(change) for change in changes],
    }
    lines = [_change_text(change) for change in changes]
    added = range(min(old.size, new.size), max(old.size, new.size))
    return answer(asked, console, data=data, lines=lines, cites=added, proofs=args.proofs)


def _change_text(change: Change) -> str:
    subject = f" {change.subject[:16]}" if change.subject else ""
    before, after = change.before or "∅", change.after or "∅"
    return f"{change.kind}{subject} {change.field}: {before} → {after}"


def _checks(asked: Asked, console: Console) -> Iterator[str]:
    found = asked.reading
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


def _run_json(run: RunSummary) -> Json:
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
