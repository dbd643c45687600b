"""The handlers of `renmei govern` for a party's own seat: keys, drafts, stop, withdrawal, key changes.

They sign what this party says of itself alone. What cannot be undone asks for its name first. A shell
module.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

from audit.note import NoteSigner
from audit.records import State
from federation import drafts, openings, rekeying
from federation.client import CoordinatorClient
from federation.governing import connected, judge, read_file, send
from fedproto.command import Console, Reply
from fedproto.durable import write_atomic
from fedproto.events.governance import (
    EmergencyStopped,
    KeyUse,
    MemberAdmitted,
    MemberStatus,
    PublicKey,
    Standing,
)
from fedproto.events.models import BaseModel, BaseModelApproved, DatasetWithdrawn, Remedy
from fedproto.events.oversight import IncidentReported
from fedproto.governance.charter import Action, Role
from fedproto.identity import SigningKey
from fedproto.ids import Digest, MemberId
from fedproto.jcs import Json
from fedproto.party import RECOVERY_KEY, Party, seed_file, validator_name, witness_name, write_seed
from fedproto.schema import to_json
from fedproto.statements import Body, leaf_id

_MIN_PREFIX = 6


def keys_(args: argparse.Namespace, console: Console) -> Reply:
    """Show this party's own public keys, by digest, as a charter names them. Nothing is sent."""
    party = Party.load(Path(args.dir))
    consortium, name = party.profile.consortium, party.profile.id

    def vkey(file: str, note_name: str) -> str:
        path = party.keys / file
        return (
            NoteSigner(note_name, seed_file(path, 32), cosigner=True).vkey if path.exists() else ""
        )

    recovery = Path(args.recovery_key) if args.recovery_key else party.keys / "recovery.key"
    found = drafts.PublicKeys(
        id=name,
        key=party.signing_key.verify_key.digest,
        recovery=recovery_digest(recovery),
        witness=vkey("witness.key", witness_name(consortium, name)),
        validator=vkey("validator.key", validator_name(consortium, name)),
    )
    data = to_json(found)
    reply = Reply(data=data, text=drafts.pretty(data))
    return _written(args, reply, drafts.pretty(data), console)


def recovery_digest(path: Path) -> str:
    """Return the digest of a recovery key, or nothing where there is no such file."""
    return SigningKey(seed_file(path, 64)).verify_key.digest if path.exists() else ""


def draft_charter_(args: argparse.Namespace, console: Console) -> Reply:
    """Write the charter in force as the next version, to edit and to propose."""
    seats = [drafts.read_member(read_file(name), name) for name in args.member]
    gone = [MemberId(name) for name in args.without]
    with connected(args) as client:
        charter = drafts.next_charter(client.sync().charter, seats=seats, gone=gone)
    terms: dict[str, Json] = {"charter": charter}
    reply = Reply(data=terms, text=drafts.pretty(terms))
    return _written(args, reply, drafts.pretty(terms), console)


def draft_member_(args: argparse.Namespace, console: Console) -> Reply:
    """Write a newcomer's entry of the charter, from its public keys."""
    keys = drafts.read_keys(read_file(args.key), args.key)
    try:
        roles = tuple(Role(name) for name in args.roles.split(","))
    except ValueError as error:
        known = ", ".join(role.value for role in Role)
        raise drafts.unusable("--roles", str(error), f"choose from {known}") from None
    if keys.id != args.name:
        raise drafts.unusable(args.key, f"it holds the keys of {keys.id}", "name its own file")
    entry = to_json(drafts.member_entry(keys, args.title or args.name, roles))
    return _written(
        args, Reply(data=entry, text=drafts.pretty(entry)), drafts.pretty(entry), console
    )


def _written(args: argparse.Namespace, reply: Reply, text: str, console: Console) -> Reply:
    """Write a draft to the file of `-o`, if one is named."""
    if args.output is None:
        return reply
    write_atomic(Path(args.output), f"{text}\n".encode())
    return Reply(
        data=reply.data,
        text=console.say(en=f"written to {args.output}", ja=f"{args.output} に書き出しました"),
    )


def confirm(args: argparse.Namespace, wanted: str, en: str, ja: str, console: Console) -> None:
    """Have what cannot be undone typed back, or given with --yes (RNM-CONF-0001, exit 2)."""
    given = args.yes
    if given is None and sys.stdin.isatty():
        console.note(
            console.say(
                en=f"{en}\ntype {wanted} to go on:", ja=f"{ja}\n続けるには {wanted} と入力:"
            )
        )
        given = sys.stdin.readline().strip()
    if given != wanted:
        raise drafts.unusable(
            "the command",
            f"it cannot be undone, and {wanted!r} was not typed back",
            f"give --yes {wanted} if that is meant",
        )


def stop_(args: argparse.Namespace, console: Console) -> Reply:
    """Stop work at once, in one run or everywhere."""
    with connected(args) as client:
        state = client.sync()
        run = _run(state, args.run) if args.run else ""
        body = EmergencyStopped(run=run, reason=args.reason)
        reply = _sent(client, body, console, en="work is stopped", ja="作業を停止しました")
    stop = reply.data["entry"] if isinstance(reply.data, dict) else ""
    resume = f'{{"stop": "{stop}"}}'
    text = console.say(
        en=f"to resume, put to the vote: {resume}",
        ja=f"再開するには次の内容を投票にかけます: {resume}",
    )
    return Reply(
        data={**reply.data, "run": run} if isinstance(reply.data, dict) else reply.data,
        text=f"{reply.text}\n{text}",
        warnings=reply.warnings,
        next=(f"renmei govern propose emergency.resume --terms FILE --dir {args.dir}",),
    )


def _run(state: State, prefix: str) -> str:
    found = [run for run in state.runs if run.startswith(prefix.lower())]
    if len(prefix) < _MIN_PREFIX or len(found) != 1:
        raise drafts.unusable(
            f"run {prefix[:32]!r}",
            f"{len(found)} runs in the ledger begin so ({_MIN_PREFIX} digits or more)",
            "copy it from `renmei run list`, or leave --run out to stop everything",
        )
    return found[0]


def _sent(client: CoordinatorClient, body: Body, console: Console, *, en: str, ja: str) -> Reply:
    """Judge an act here, send it, and say in which entry it stands."""
    judge(client, client.sync(), body)
    index, seen, warning = send(client, body, console)
    entry = leaf_id(client.entry(index)) if seen else ""
    text = console.say(en=f"{en} (entry {index})", ja=f"{ja}(項目 {index})")
    return Reply(
        data={"index": index, "entry": entry}, text=text, warnings=(warning,) if warning else ()
    )


def withdraw_(args: argparse.Namespace, console: Console) -> Reply:
    """Give this party's own seat back."""
    with connected(args) as client:
        name = client.party.profile.id
        en = f"{name} leaves the consortium: its vote and its acts no longer count"
        confirm(
            args, name, en, f"{name} は連盟を脱退します。以後、投票も行為も無効になります", console
        )
        body = MemberStatus(member=name, standing=Standing.WITHDRAWN, proposal="", votes=())
        return _sent(client, body, console, en=f"{name} has left", ja=f"{name} は脱退しました")


def seat_(args: argparse.Namespace, console: Console) -> Reply:
    """Take this party's seat with the keys that the charter names for it."""
    with connected(args) as client:
        party = client.party
        state, acting = client.sync(), party.signing_key
        entry = state.charter.member(party.profile.id)
        recovery = None if entry and not entry.recovery else _recovery(party, args)
        body = MemberAdmitted(
            acting=PublicKey.of(acting.verify_key),
            recovery=PublicKey.of(recovery.verify_key) if recovery else None,
        )
        extra = (recovery,) if recovery else ()
        judge(client, state, body, extra)
        index, _, warning = send(client, body, console, extra)
    text = console.say(
        en=f"{party.profile.id} has taken its seat (entry {index})",
        ja=f"{party.profile.id} が着任しました(項目 {index})",
    )
    data = {"index": index, "acting": acting.verify_key.key_id}
    return Reply(data=data, text=text, warnings=(warning,) if warning else ())


def _recovery_path(party: Party, args: argparse.Namespace) -> Path:
    return Path(args.recovery_key) if args.recovery_key else party.keys / RECOVERY_KEY


def _recovery(party: Party, args: argparse.Namespace) -> SigningKey:
    return SigningKey(seed_file(_recovery_path(party, args), 64))


def rotate_key_(args: argparse.Namespace, console: Console) -> Reply:
    """Replace this party's acting key, or its recovery key; finish what was interrupted."""
    with connected(args) as client:
        party = client.party
        acting = party.keys / rekeying.ACTING_KEY
        path = _recovery_path(party, args) if args.recovery else acting
        use = KeyUse.RECOVERY if args.recovery else KeyUse.ACT
        done = rekeying.rotate(client, path, use)
    text = console.say(
        en=f"key {done.ended} ended with entry {done.index}; in force is "
        f"{done.now.verify_key.key_id}, in {path}",
        ja=f"鍵 {done.ended} は項目 {done.index} で失効し、{done.now.verify_key.key_id} が有効になりました: {path}",
    )
    warning = console.say(
        en="a node that runs here holds the old key: restart it",
        ja="稼働中のノードは古い鍵を保持しています。再起動してください",
    )
    return Reply(data=_rekeyed(done, path), text=text, warnings=(warning,))


def _rekeyed(done: rekeying.Rekeyed, path: Path) -> dict[str, Any]:
    return {
        "index": done.index,
        "ended": done.ended,
        "key": done.now.verify_key.key_id,
        "key_sha256": done.now.verify_key.digest,
        "file": str(path),
        "finished_earlier_attempt": done.finished_earlier,
    }


def revoke_key_(args: argparse.Namespace, console: Console) -> Reply:
    """End a lost or stolen acting key by the recovery key."""
    acting = Path(args.dir) / "keys" / rekeying.ACTING_KEY
    # Where the key's file is lost, there is still a key in the ledger to end.
    write_seed(acting, 64)
    with connected(args) as client:
        name = client.party.profile.id
        en = f"the acting key of {name} ends: until a new charter names the next one, it cannot act"
        ja = f"{name} の署名鍵を失効させます。新しい憲章が次の鍵を指名するまで行為できません"
        confirm(args, name, en, ja, console)
        done = rekeying.revoke(client, acting, _recovery(client.party, args), args.reason)
    text = console.say(
        en=f"key {done.ended} ended with entry {done.index}; the next one, in {acting}, waits for a "
        "charter that names it",
        ja=f"鍵 {done.ended} は項目 {done.index} で失効しました。次の鍵は {acting} にあり、憲章による指名を待ちます",
    )
    following = tuple(f"renmei govern {verb} --dir {args.dir}" for verb in ("keys", "seat"))
    return Reply(data=_rekeyed(done, acting), text=text, next=following)


def approve_base_(args: argparse.Namespace, console: Console) -> Reply:
    """Approve base weights, where the charter leaves that to this party without a vote."""
    model = drafts.read_terms(Action.APPROVE_BASE_MODEL, read_file(args.terms), args.terms)
    assert isinstance(model, BaseModel)  # noqa: S101  # the terms of this action are a base model
    body = BaseModelApproved(model=model, proposal="", votes=())
    with connected(args) as client:
        return _sent(client, body, console, en="approved", ja="承認しました")


def attest_(args: argparse.Namespace, console: Console) -> Reply:
    """Attest the figures of a report; the report itself stays here, the ledger names its digest."""
    body = drafts.read_report(read_file(args.report), args.report)
    with connected(args) as client:
        return _sent(client, body, console, en="attested", ja="評価を証明しました")


def withdraw_dataset_(args: argparse.Namespace, console: Console) -> Reply:
    """Take a dataset that this party declared out of use, for good."""
    with connected(args) as client:
        state = client.sync()
        found = [name for name in state.datasets if name.startswith(args.dataset.lower())]
        if len(args.dataset) < _MIN_PREFIX or len(found) != 1:
            raise drafts.unusable(
                f"dataset {args.dataset[:32]!r}",
                f"{len(found)} datasets in the ledger begin so ({_MIN_PREFIX} digits or more)",
                "give its commitment as `renmei node status` shows it",
            )
        en = f"dataset {found[0]} goes out of use for good"
        confirm(
            args, found[0][:8], en, f"データセット {found[0]} を恒久的に使用停止します", console
        )
        body = DatasetWithdrawn(
            commitment=Digest(found[0]), reason=args.reason, remedy=Remedy(args.remedy)
        )
        return _sent(client, body, console, en="withdrawn", ja="取り下げました")


def report_incident_(args: argparse.Namespace, console: Console) -> Reply:
    """Report an incident; the report itself stays here, behind a commitment."""
    opening = openings.seal("incident-report", read_file(args.report))
    body = IncidentReported(
        category=args.category, severity=args.severity, report=opening.commitment
    )
    with connected(args) as client:
        judge(client, client.sync(), body)
        kept = openings.keep(Path(args.dir), opening)
        reply = _sent(client, body, console, en="reported", ja="報告しました")
    data = {**reply.data, "report_file": str(kept)} if isinstance(reply.data, dict) else reply.data
    text = console.say(en=f"the report and its salt: {kept}", ja=f"報告書とソルト: {kept}")
    return Reply(data=data, text=f"{reply.text}\n{text}", warnings=reply.warnings)
