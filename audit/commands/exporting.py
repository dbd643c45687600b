"""`renmei audit export | report`: the ledger in forms that other tools and people read.

Decides nothing: audit.exports and audit.reports do. Answers only after the whole log verified. A key is
used only if `--identity` is given, and only if it is in force in this very log.
"""

import argparse
import json
from collections.abc import Iterable
from pathlib import Path

from audit import lineage as tracing
from audit.answers.integrity import integrity
from audit.commands.asking import Asked, ask, run_named, warnings
from audit.commands.entries import filter_of, hits_of
from audit.exports.cyclonedx import bill
from audit.exports.in_toto import PAYLOAD_TYPE, statements
from audit.exports.rows import comma_separated, json_lines
from audit.history import unanswered
from audit.legible import visible
from audit.lineage import Lineage
from audit.reports.document import Report, Section, cited
from audit.reports.integrity import integrity_report
from audit.reports.page import page
from audit.reports.plain import plain
from audit.reports.templates import lineage_report, round_report
from fedproto import envelope
from fedproto.command import Console, Reply
from fedproto.durable import write_atomic
from fedproto.ids import sha256_hex
from fedproto.jcs import Json
from fedproto.party import Party
from fedproto.schema import to_json


def export(args: argparse.Namespace, console: Console) -> Reply:
    """Write the entries, or what they say of an adapter, in another format."""
    wanted = filter_of(args)
    asked = ask(args)
    hits = hits_of(wanted, asked)
    match args.format:
        case "jsonl":
            lines = json_lines(asked.history, asked.citations, asked.reading.entries, hits)
            text = _lines(lines)
        case "csv":
            text = comma_separated(asked.history, asked.citations, hits, mark=args.bom)
        case "in-toto":
            text = _lines(_in_toto(args, asked))
        case _:
            boms = (bill(asked.history, asked.citations, item) for item in _lineages(args, asked))
            text = _lines(json.dumps(item, ensure_ascii=False) for item in boms)
    return deliver(args, asked, console, text)


def _lines(lines: Iterable[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def _in_toto(args: argparse.Namespace, asked: Asked) -> Iterable[str]:
    """Yield each statement: in a DSSE envelope if somebody signs it, else as it is."""
    party = _signer(args, asked)
    for found in _lineages(args, asked):
        for statement in statements(asked.history, asked.citations, found):
            if party is None:
                yield json.dumps(statement, ensure_ascii=False)
            else:
                yield envelope.seal(PAYLOAD_TYPE, statement, (party.signing_key,)).decode()


def _signer(args: argparse.Namespace, asked: Asked) -> Party | None:
    if args.identity is None:
        return None
    party = Party.load(Path(args.identity))
    key = asked.history.state.key(party.signing_key.verify_key.key_id)
    if key is None or key.member != party.profile.id:
        raise unanswered(
            f"the key of {party.profile.id} in {args.identity} is not in force in this log",
            "sign as a member of this consortium, or export without --identity",
        )
    return party


def _lineages(args: argparse.Namespace, asked: Asked) -> list[Lineage]:
    """Return the lineage of the adapter that is named, else of each that is released."""
    state = asked.history.state
    made = tracing.adapters(state)
    if args.artifact is not None:
        return [tracing.trace(asked.history, tracing.resolve(args.artifact, made, "adapter"))]
    approved = sorted(
        (r.approved.index, r.approved.body.release.artifact) for r in state.releases.values()
    )
    released = dict.fromkeys(artifact for _, artifact in approved)
    if not released:
        raise unanswered("no adapter is released", "name one with --artifact")
    return [tracing.trace(asked.history, artifact) for artifact in released]


def deliver(args: argparse.Namespace, asked: Asked, console: Console, text: str) -> Reply:
    """Return a document: as a file where one is named, else on standard output."""
    data: dict[str, Json] = {
        "format": args.format,
        "sha256": sha256_hex(text.encode()),
        "bytes": len(text.encode()),
        "size": asked.reading.size,
        "root": asked.reading.checkpoint.head.root,
    }
    shown = warnings(asked.reading, console)
    if args.output:
        write_atomic(Path(args.output), text.encode())
        return Reply(data={**data, "path": args.output}, text=visible(args.output), warnings=shown)
    # A document is handed out as it is: it is for a file or a program, not for the terminal.
    return Reply(data={**data, "document": text}, text=text.removesuffix("\n"), warnings=shown)


def report(args: argparse.Namespace, console: Console) -> Reply:
    """Write a report; its JSON form brings the inclusion proof of every entry that it cites."""
    asked = ask(args)
    sections = _sections(args, asked, console)
    code, en, ja = _TITLES[args.template]
    signed = asked.reading.checkpoint
    made = Report(
        code=code,
        template=args.template,
        language=console.lang,
        title=console.say(en=en, ja=ja),
        consortium=asked.history.state.charter.consortium,
        origin=signed.checkpoint.origin,
        size=signed.head.size,
        root=signed.head.root,
        note=signed.note.encode().decode("utf-8"),
        sections=sections,
        entries=cited(sections, asked.citations),
    )
    match args.format:
        case "html":
            text = page(made, console.say)
        case "json":
            text = json.dumps(to_json(made), ensure_ascii=False, indent=1) + "\n"
        case _:
            text = plain(made)
    return deliver(args, asked, console, text)


_TITLES = {
    "round": ("R1", "Round report", "ラウンド報告書"),
    "lineage": ("R2", "Model lineage", "モデル系譜書"),
    "integrity": ("R10", "Integrity report", "完全性検証報告"),
}


def _sections(args: argparse.Namespace, asked: Asked, console: Console) -> tuple[Section, ...]:
    history, reading = asked.history, asked.reading
    match args.template:
        case "round":
            run = run_named(args.run, asked)
            return round_report(history, run, args.round, console.say)
        case "lineage":
            return lineage_report(history, _one_lineage(args, asked), console.say)
        case _:
            return integrity_report(
                history,
                integrity(history, log=reading.policy.log),
                cosigned=reading.cosignatures,
                validated=reading.validations,
                witnessed=reading.witnessed,
                unpinned=reading.unpinned,
                say=console.say,
            )


def _one_lineage(args: argparse.Namespace, asked: Asked) -> Lineage:
    found = _lineages(args, asked)
    if len(found) > 1:
        raise unanswered(f"{len(found)} adapters are released", "name one with --artifact")
    return found[0]
