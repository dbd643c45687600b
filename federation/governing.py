"""The handlers of `renmei govern` for proposals: list, show, draft, propose, vote.

They show what was verified and send what this party signs; the charter decides, and the ledger says so.
A shell module.
"""

import argparse
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from audit import decision
from audit.records import Proposal, State
from audit.state import Rejected, apply, open_next
from federation import decisions, drafts, motions, openings
from federation.client import CoordinatorClient
from fedproto import envelope
from fedproto.command import Console, Reply
from fedproto.errors import FederationError, LocalFault
from fedproto.events.governance import (
    CharterTerms,
    Choice,
    MemberAdmitted,
    ProposalOpened,
    VoteCast,
    digest_of,
)
from fedproto.governance.charter import Action
from fedproto.governance.rules import refuse
from fedproto.governance.tally import Verdict
from fedproto.identity import SigningKey
from fedproto.ids import Digest, RunId
from fedproto.party import now_ms
from fedproto.schema import to_json
from fedproto.statements import Body, leaf_id

# A node in the same directory keeps a mirror of its own, and must not find this one's changes in it.
MIRROR = "governing"
_VOTED_S = 86_400
_MIN_PREFIX = 6
_DECIDED_S = 5.0
_MAX_FILE = 1 << 20


@contextmanager
def connected(args: argparse.Namespace) -> Iterator[CoordinatorClient]:
    """Connect as the party of `--dir`."""
    with CoordinatorClient(Path(args.dir), mirror=MIRROR) as client:
        yield client


def read_file(name: str) -> bytes:
    """Read a file that the command line names; `-` is stdin."""
    try:
        if name == "-":
            data = sys.stdin.buffer.read(_MAX_FILE + 1)
        else:
            with Path(name).open("rb") as file:
                data = file.read(_MAX_FILE + 1)
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise drafts.unusable(name, why, "name a file that this user may read") from None
    if len(data) > _MAX_FILE:
        raise drafts.unusable(name, f"it has more than {_MAX_FILE} bytes", "name another file")
    return data


def send(
    client: CoordinatorClient,
    body: Body,
    console: Console,
    extra_keys: tuple[SigningKey, ...] = (),
) -> tuple[int, State | None, str]:
    """Submit an act; return its index, the verified state that holds it, or a warning without one."""
    index = client.submit(body, extra_keys)
    try:
        return index, client.sync(min_size=index + 1), ""
    except FederationError as error:
        if error.code != "RNM-LEDGER-0006":
            raise
        warning = console.say(
            en=f"entry {index} is in the ledger, but too few witnesses have cosigned it so far",
            ja=f"項目 {index} は台帳に記録されましたが、証人の連署がまだ足りません",
        )
        return index, None, warning


def find(state: State, prefix: str) -> Proposal:
    """Return the one proposal whose leaf starts with `prefix` (RNM-CONF-0001)."""
    found = [leaf for leaf in state.proposals if leaf.startswith(prefix.lower())]
    if len(prefix) < _MIN_PREFIX or len(found) != 1:
        raise drafts.unusable(
            f"proposal {prefix[:32]!r}",
            f"{len(found)} proposals in the ledger begin so ({_MIN_PREFIX} digits or more)",
            "copy it from `renmei govern list`",
        )
    return state.proposals[found[0]]


def stamp(milliseconds: int) -> str:
    """Return RFC 3339 UTC; a signer's time may be any number."""
    try:
        return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (OverflowError, OSError, ValueError):
        return f"{milliseconds} ms"


def list_(args: argparse.Namespace, console: Console) -> Reply:
    """List every proposal, and the stops in force."""
    with connected(args) as client:
        state = client.sync()
        rows = [
            (motions.standing(state, proposal), _outcome(client, proposal))
            for proposal in sorted(state.proposals.values(), key=lambda item: item.opened.index)
        ]
    stops = [
        {"stop": stop.leaf, "run": stop.body.run, "by": stop.member, "reason": stop.body.reason}
        for stop in state.stops
    ]
    data = {
        "clock": stamp(state.clock_s * 1000) if state.clock_s else None,
        "charter": state.charter.digest,
        "proposals": [_row(row, outcome) for row, outcome in rows],
        "stops": stops,
    }
    lines = [line for row, outcome in rows for line in _lines(row, outcome, console)]
    lines += [
        console.say(en="stopped", ja="停止中")
        + f"  {stop['stop'][:12]}  {stop['run'][:8] or '*'}  {stop['by']}  {stop['reason']}"
        for stop in stops
    ]
    nothing = console.say(en="no proposal yet", ja="提案はまだありません")
    return Reply(data=data, text="\n".join(lines) or nothing)


def _outcome(client: CoordinatorClient, proposal: Proposal) -> str:
    """Return the type of the entry that decided a proposal, and how it ended."""
    if proposal.decided is None:
        return ""
    # The mirror has verified it.
    payload = envelope.peek(client.entry(proposal.decided), envelope.EVENT_TYPE)
    assert isinstance(payload, dict)  # noqa: S101  # the mirror opened it as an event
    body = payload["body"]
    ended = body.get("outcome", "") if isinstance(body, dict) else ""
    return f"{payload['type']} {ended}".strip()


def _row(row: motions.Standing, outcome: str) -> dict[str, Any]:
    shown = to_json(row)
    assert isinstance(shown, dict)  # noqa: S101  # a dataclass always becomes an object
    times = {
        "at": stamp(row.at),
        "closes_at": stamp(row.closes_at),
        "ripens_at": stamp(row.ripens_at_s * 1000) if row.ripens_at_s else None,
        "clock": stamp(row.clock_s * 1000) if row.clock_s else None,
    }
    rest = {k: v for k, v in shown.items() if k not in {"ripens_at_s", "clock_s"}}
    return {**rest, **times, "outcome": outcome}


_STANDS_JA = {
    "open": "投票中",
    "carried": "可決",
    "rejected": "否決",
    "vetoed": "拒否権により終了",
    "decided": "決定済み",
    "lapsed": "失効",
}


def _lines(row: motions.Standing, outcome: str, console: Console) -> Iterator[str]:
    stands = console.say(en=row.stands, ja=_STANDS_JA[row.stands])
    yield f"{row.index:>5}  {row.proposal[:12]}  {row.action:<18} {row.by:<14} {stands}"
    pad = " " * 7
    for need in row.asked:
        yield pad + need_line(need, console)
    if row.silent:
        names = ", ".join(row.silent)
        yield pad + console.say(en=f"not voted yet: {names}", ja=f"未投票: {names}")
    if row.vetoed_by:
        names = ", ".join(row.vetoed_by)
        yield pad + console.say(en=f"vetoed by {names}", ja=f"拒否権の行使: {names}")
    if row.decided is not None:
        yield pad + console.say(
            en=f"decided by entry {row.decided}: {outcome}",
            ja=f"項目 {row.decided} で決定: {outcome}",
        )
    elif row.asked:
        yield pad + console.say(en="closes ", ja="締切 ") + stamp(row.closes_at)
        if row.timelock_s:
            yield pad + _lock_line(row, console)


def need_line(need: motions.Asked, console: Console) -> str:
    """Return one clause that must carry: yes of needed, and whose clause it is."""
    whose = console.say(en="the proposed charter", ja="提案された憲章")
    label = f"{need.clause} ({whose})" if need.proposed else need.clause
    label += f" {need.subject}" if need.subject else ""
    votes = f"{len(need.yes)} / {need.needed}"
    return console.say(
        en=f"{label}: {votes} yes of {', '.join(need.entitled)}",
        ja=f"{label}: 賛成 {votes}(投票者 {', '.join(need.entitled)})",
    )


def _lock_line(row: motions.Standing, console: Console) -> str:
    if row.ripens_at_s is None:
        return console.say(
            en=f"timelock {row.timelock_s} s: starts when witnesses have cosigned the carrying vote",
            ja=f"猶予期間 {row.timelock_s} 秒: 可決した票に証人が連署した時から始まります",
        )
    until, clock = stamp(row.ripens_at_s * 1000), stamp(row.clock_s * 1000)
    return console.say(
        en=f"timelock until {until} by the log's clock, now {clock}",
        ja=f"猶予期間は {until} まで(台帳の時計は現在 {clock})",
    )


def show_(args: argparse.Namespace, console: Console) -> Reply:
    """Show one proposal whole."""
    with connected(args) as client:
        state = client.sync()
        proposal = find(state, args.proposal)
        outcome = _outcome(client, proposal)
    row, opened = motions.standing(state, proposal), proposal.opened.body
    changes = _changes(state, opened) if proposal.opened.leaf in state.waiting else ()
    data = {
        **_row(row, outcome),
        "terms": to_json(opened.terms),
        "differences": [change.to_json() for change in changes],
    }
    lines = list(_lines(row, outcome, console))
    lines += [f"       {member}: {choice}" for member, choice in row.votes.items()]
    lines.append(console.say(en="terms ", ja="内容 ") + opened.terms_sha256)
    shown = [_change_line(change) for change in changes]
    lines += shown or [drafts.pretty(to_json(opened.terms))]
    waits = row.stands in {"open", "carried"}
    vote = f"renmei govern vote {row.proposal[:12]} yes --dir {args.dir}"
    return Reply(data=data, text="\n".join(lines), next=(vote,) if waits else ())


def _changes(state: State, opened: ProposalOpened) -> tuple[drafts.Difference, ...]:
    if not isinstance(opened.terms, CharterTerms):
        return ()
    return drafts.differences(to_json(state.charter), to_json(opened.terms.charter))


def _change_line(change: drafts.Difference) -> str:
    if change.old is None:
        return f"+ {change.path}: {drafts.line(change.new)}"
    if change.new is None:
        return f"- {change.path}: {drafts.line(change.old)}"
    return f"~ {change.path}: {drafts.line(change.old)} → {drafts.line(change.new)}"


def propose_(args: argparse.Namespace, console: Console) -> Reply:
    """Put terms to the vote, or say what they would need."""
    action = Action(args.action)
    terms = drafts.read_terms(action, read_file(args.terms), args.terms)
    with connected(args) as client:
        state = client.sync()
        expires_s = state.charter.clause(action).expires_s
        closes_in = min(_VOTED_S, expires_s) if args.closes_in is None else args.closes_in
        body = ProposalOpened(
            action=action,
            terms=terms,
            terms_sha256=digest_of(terms),
            closes_at=now_ms() + closes_in * 1000,
        )
        judge(client, state, body)
        needs = motions.asked(state, body)
        data: dict[str, Any] = {
            "action": action.value,
            "terms_sha256": body.terms_sha256,
            "closes_at": stamp(body.closes_at),
            "asked": [to_json(need) for need in needs],
            "differences": [change.to_json() for change in _changes(state, body)],
        }
        lines = [f"{action.value} {body.terms_sha256}"]
        lines += [need_line(need, console) for need in needs]
        lines += [_change_line(change) for change in _changes(state, body)]
        if args.dry_run:
            return Reply(data=data, text="\n".join(lines))
        index, seen, warning = send(client, body, console)
        leaf = leaf_id(client.entry(index)) if seen else ""
    text = console.say(en=f"proposed in entry {index}", ja=f"項目 {index} で提案しました")
    return Reply(
        data={**data, "index": index, "proposal": leaf},
        text="\n".join([f"{text}: {leaf}", *lines]),
        warnings=(warning,) if warning else (),
        next=(f"renmei govern show {leaf[:12]} --dir {args.dir}",) if leaf else (),
    )


def judge(
    client: CoordinatorClient, state: State, body: Body, extra_keys: tuple[SigningKey, ...] = ()
) -> None:
    """Refuse here what the ledger would refuse, by the same rules; nothing is sent."""
    leaf, party = client.sealed(body, extra_keys), client.party
    brings = isinstance(body, MemberAdmitted)
    if not brings and state.verify_key(party.signing_key.verify_key.key_id) is None:
        raise LocalFault(
            "RNM-GOV-0001",
            what="an act was refused before it was sent",
            why=f"the acting key of {party.profile.id} here is not in force in the ledger",
            mend="take the seat with `renmei govern seat`, or finish with `renmei govern rotate-key`",
        )
    signed = open_next(state, leaf)
    judged = apply(state, leaf_id(leaf), signed)
    if isinstance(judged, Rejected):
        raise LocalFault(
            judged.code,
            what=f"{signed.event.type} was refused before it was sent",
            why=judged.why,
            mend="read the charter in force with `renmei audit charter`, and act within it",
        )


def vote_(args: argparse.Namespace, console: Console) -> Reply:
    """Cast this party's ballot; a reason stays here, behind a commitment."""
    choice = Choice(args.choice)
    reason = read_file(args.reason) if args.reason else b""
    if choice is Choice.VETO and not reason.strip():
        raise drafts.unusable("the veto", "it gives no reason", "name a text file with --reason")
    opening = openings.seal("vote-reason", reason) if reason else None
    with connected(args) as client:
        state = client.sync()
        proposal = find(state, args.proposal)
        body = VoteCast(
            proposal=proposal.opened.leaf,
            terms_sha256=proposal.opened.body.terms_sha256,
            choice=choice,
            reason=opening.commitment if opening else "",
        )
        judge(client, state, body)
        kept = openings.keep(Path(args.dir), opening) if opening else None
        index, seen, warning = send(client, body, console)
        seen = _settled(client, seen, body.proposal)
        after = seen.proposals[body.proposal] if seen else proposal
        outcome = _outcome(client, after)
    row = motions.standing(seen or state, after)
    data = {"voted_in": index, "reason_file": str(kept or ""), **_row(row, outcome)}
    lines = [console.say(en=f"voted in entry {index}", ja=f"項目 {index} で投票しました")]
    lines += _lines(row, outcome, console)
    if kept:
        lines.append(console.say(en=f"the reason and its salt: {kept}", ja=f"理由とソルト: {kept}"))
    return Reply(data=data, text="\n".join(lines), warnings=(warning,) if warning else ())


def carry_out_(args: argparse.Namespace, console: Console) -> Reply:
    """Write down what follows from a carried proposal, where the operator does not."""
    with connected(args) as client:
        state = client.sync()
        leaf = find(state, args.proposal).opened.leaf
        due = decisions.due(state, RunId(os.urandom(16).hex()), now_ms())
        act = next((act for act in due if getattr(act, "proposal", "") == leaf), None)
        if act is None:
            raise refuse(
                f"nothing follows from proposal {leaf[:16]} now: see `renmei govern show`",
                "RNM-GOV-0002" if leaf in state.waiting else "RNM-GOV-0003",
            )
        judge(client, state, act)
        index, _, warning = send(client, act, console)
    text = console.say(en=f"carried out by entry {index}", ja=f"項目 {index} で執行しました")
    data = {"index": index, "proposal": leaf}
    return Reply(data=data, text=text, warnings=(warning,) if warning else ())


def _settled(client: CoordinatorClient, seen: State | None, leaf: Digest) -> State | None:
    """Wait a little for the entry that follows from the last ballot, where nothing else holds it."""
    if seen is None or leaf not in seen.waiting:
        return seen
    proposal = seen.proposals[leaf]
    over = decision.stands(seen, proposal) is not Verdict.OPEN
    if not over or decision.ripens_at(seen, proposal) != 0:
        return seen
    try:
        return client.sync(min_size=seen.size + 1, timeout_s=_DECIDED_S)
    except FederationError as error:
        if error.code != "RNM-LEDGER-0006":
            raise
        return seen
