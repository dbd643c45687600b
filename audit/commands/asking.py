"""How every question of `renmei audit` is asked and answered: source, pins, citations, warnings.

Decides the form of answers only. Each answer lists the entries that it rests on, with leaf hash, state
(verified, or pending a witness quorum), witnessed time and inclusion proof. Trusts the pinned keys.
"""

import argparse
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from audit.bundle import Pinned
from audit.citation import Citation, Citations, Row
from audit.exports.rows import state_of
from audit.history import History, unanswered
from audit.legible import instant, moment, visible
from audit.note import NoteVerifier
from audit.reading import Reading, open_reading
from fedproto.command import Console, Reply
from fedproto.durable import write_atomic
from fedproto.errors import Exit, LocalFault
from fedproto.ids import Digest, RunId, is_digest
from fedproto.jcs import Json
from fedproto.schema import to_json
from fedproto.statements import Event

_OPTIONS = {"log_vkey": "--log-key", "genesis_sha256": "--genesis"}
# What tells an entry from others of its type, in the order in which it is shown.
_GIST = (
    "round",
    "attempt",
    "choice",
    "outcome",
    "run",
    "action",
    "proposal",
    "commitment",
    "sha256",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A verified log, in the forms in which questions need it."""

    reading: Reading
    history: History
    citations: Citations


def ask(args: argparse.Namespace) -> Asked:
    """Verify the log that was named, whole, and return it."""
    reading = open_reading(args.bundle, pinned=pinned(args))
    return Asked(reading=reading, history=reading.history, citations=reading.citations)


def pinned(args: argparse.Namespace) -> Pinned:
    """Return what the reader knows from elsewhere; raise RNM-CONF-0001 if it is no key or digest."""
    return Pinned(log_vkey=_log_key(args.log_key), genesis_sha256=_genesis(args.genesis))


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
    raise unanswered(
        "--log-key is neither a C2SP vkey nor a file that holds one",
        "give name+hash+key as the members published it",
    )


def _genesis(given: str | None) -> Digest | None:
    if given is None or is_digest(given):
        return None if given is None else Digest(given)
    raise unanswered("--genesis is not a SHA-256 digest", "give its 64 hex digits, in lower case")


def run_named(given: str | None, asked: Asked) -> RunId:
    """Return the run that begins as given, or the only one; raise RNM-CONF-0001 for none or several."""
    runs = asked.history.state.runs
    named = [run for run in runs if run.startswith(given or "")]
    if len(named) == 1:
        return RunId(named[0])
    raise unanswered(
        f"{len(named)} runs are named {given}" if given else f"the log has {len(named)} runs",
        "name one by --run, or by its first digits; list them: renmei audit log LOG --type run.approved",
    )


def answer(
    asked: Asked,
    console: Console,
    *,
    data: Mapping[str, Json],
    lines: Iterable[str],
    cites: Sequence[int] = (),
    proofs: str | None = None,
    following: tuple[str, ...] = (),
    outcome: Exit = Exit.OK,
) -> Reply:
    """Return the reply to a question, with the entries that it rests on."""
    cited = [asked.citations.cite(index) for index in cites]
    rows = [row_text(asked, item.row, console) for item in cited]
    if proofs is not None:
        _write_proofs(Path(proofs), asked, cites)
    text = [*lines, *([""] if rows and data else []), *rows]
    return Reply(
        data={
            **data,
            "entries": [_citation_json(item, asked) for item in cited],
            "log": log_json(asked),
        },
        text=visible("\n".join(text)),
        warnings=warnings(asked.reading, console),
        next=following,
        exit=outcome,
    )


def log_json(asked: Asked) -> Json:
    """Return which log, and up to which checkpoint, an answer is about."""
    signed = asked.reading.checkpoint
    return {
        "source": asked.reading.source,
        "origin": signed.checkpoint.origin,
        "size": signed.head.size,
        "root": signed.head.root,
        "witnessed": asked.reading.witnessed,
        "note": signed.note.encode().decode("utf-8"),
    }


def _citation_json(cited: Citation, asked: Asked) -> Json:
    row = cited.row
    return {
        "index": row.index,
        "leaf": row.leaf,
        "type": row.type,
        "member": row.member,
        "at": row.at,
        "claimed": moment(row.at),
        "witnessed_from": instant(row.not_before_s),
        "witnessed_until": instant(row.not_after_s),
        "state": state_of(row),
        "trace_id": asked.history.event(row.index).trace.trace_id,
        "inclusion": list(cited.inclusion),
    }


def row_text(asked: Asked, row: Row, console: Console) -> str:
    """Return an entry as one line: index, state, leaf, both times, who, what."""
    state = (
        console.say(en="verified", ja="検証済")
        if row.witnessed
        else console.say(en="pending ", ja="連署待")
    )
    return (
        f"{row.index:>6}  {state}  {row.leaf[:12]}  {moment(row.at)}  {bracket_text(row):<43}  "
        f"{row.member:<14}  {row.type:<20} {gist(asked.history.event(row.index))}"
    ).rstrip()


def bracket_text(row: Row) -> str:
    """Return between which witnessed times an entry was made."""
    after, before = instant(row.not_before_s), instant(row.not_after_s)
    if after and before:
        return f"[{after}, {before}]"
    return f"[{after or '…'}, {before or '…'}]"


def gist(event: Event) -> str:
    """Return the few things that tell an entry from others of its type."""
    body = to_json(event.body)
    if not isinstance(body, dict):
        return ""
    named = [name for name in _GIST if body.get(name)]
    return " ".join(f"{name}={str(body[name])[:16]}" for name in named[:4])


def _write_proofs(folder: Path, asked: Asked, cites: Sequence[int]) -> None:
    """Write each cited entry with its tlog-proof, and the policy by which they verify."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unanswered(f"--proofs {folder}: {error.strerror}", "name a directory") from None
    write_atomic(folder / "policy", asked.reading.policy.text.encode())
    for index in cites:
        write_atomic(folder / f"{index}.entry", asked.reading.entries[index])
        write_atomic(folder / f"{index}.tlog-proof", asked.citations.tlog_proof(index))


def warnings(reading: Reading, console: Console) -> tuple[str, ...]:
    """Return what an answer does not prove."""
    found = []
    if reading.unpinned:
        missing = ", ".join(_OPTIONS[name] for name in reading.unpinned)
        found.append(
            console.say(
                en=f"not pinned: {missing}. The log agrees with itself; whose history it is, is not "
                "proven. Get these values from the members, not from whoever gave you the file.",
                ja=f"固定されていない値: {missing}。ファイルは内部で整合していますが、誰の履歴かは証明"
                "されていません。これらの値は、ファイルの提供者ではなくメンバーから受け取ってください。",
            )
        )
    waiting = reading.size - reading.witnessed
    if waiting:
        found.append(
            console.say(
                en=f"the last {waiting} entries are signed by the log and not yet cosigned by "
                f"{reading.policy.quorum} witnesses.",
                ja=f"末尾の {waiting} 項目はログの署名のみで、証人 {reading.policy.quorum} 名の連署を"
                "待っています。",
            )
        )
    return tuple(found)
