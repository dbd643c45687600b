"""`renmei audit lineage | present | budget | weights | refusals`: one command for each question.

Decides nothing: audit.lineage and audit.answers do. Answers only after the whole log verified.
"""

import argparse
from collections.abc import Iterator

from audit import lineage as tracing
from audit.answers.budget import Curve, curves
from audit.answers.handover import Handover, handovers
from audit.answers.presence import Presence, presence
from audit.answers.refusals import refusals as refused
from audit.commands.asking import answer, ask, run_named
from audit.exports.graph import graph
from audit.legible import moment
from audit.lineage import Lineage
from audit.reports.templates import micro, standing_text
from fedproto.command import Console, Reply
from fedproto.ids import MemberId
from fedproto.schema import to_json


def lineage(args: argparse.Namespace, console: Console) -> Reply:
    """Say what an adapter was made of, or which adapters a dataset fed."""
    asked = ask(args)
    state = asked.history.state
    made = tracing.adapters(state)
    named = tracing.resolve(args.digest, [*made, *state.datasets], "adapter or dataset")
    if named in state.datasets:
        fed = tracing.fed_by(state, named)
        dataset = state.datasets[named]
        cites = [dataset.declared.index]
        cites += [dataset.withdrawn] if dataset.withdrawn is not None else []
        rounds = [made[artifact][1].closed for artifact in fed]
        cites += [closed.index for closed in rounds if closed is not None]
        return answer(
            asked,
            console,
            data={"dataset": named, "fed": list(fed), "withdrawn": dataset.withdrawn},
            lines=[named, *(f"  → {artifact}" for artifact in fed)],
            cites=sorted(cites),
            proofs=args.proofs,
        )
    found = tracing.trace(asked.history, named)
    return answer(
        asked,
        console,
        data={"lineage": to_json(found), "graph": to_json(graph(asked.history, found))},
        lines=lineage_lines(found, console),
        cites=found.cites,
        proofs=args.proofs,
    )


def lineage_lines(found: Lineage, console: Console) -> Iterator[str]:
    """Yield a lineage as a tree."""
    ja = console.lang == "ja"
    yield f"{'アダプター' if ja else 'adapter'} {found.artifact}"
    for source in found.withdrawn:
        note = "撤回されたデータセットを含みます" if ja else "fed by a dataset that was withdrawn"
        yield f"⚠ {note}: {source.commitment[:16]} #{source.withdrawn}"
    for release in found.releases:
        ended = (
            f"  {'失効' if ja else 'revoked'} #{release.revoked}"
            if release.revoked is not None
            else ""
        )
        yield f"├ {'公開' if ja else 'release'} #{release.index} {', '.join(release.channels)}{ended}"
    for item in found.evaluations:
        figures = ", ".join(f"{name} {value}" for name, value in sorted(item.metrics.items()))
        yield f"├ {'評価' if ja else 'evaluation'} #{item.index} {item.member}  {figures}"
    for step in reversed(found.steps):
        yield (
            f"├ {'ラウンド' if ja else 'round'} {step.round}.{step.attempt} #{step.closed}  "
            f"{step.model_in[:12]} → {step.model_out[:12]}  {', '.join(step.included)}"
        )
        for member in step.silent:
            yield f"│   ⚠ {member}: {'受領証なし' if ja else 'no receipt'}"
    for source in found.sources:
        receipts = " ".join(f"#{index}" for index in source.receipts)
        yield (
            f"├ {'データセット' if ja else 'dataset'} {source.commitment[:16]}… {source.member}  "
            f"{source.legal_basis}, {source.purpose}, {source.residency}  #{source.declared}  "
            f"({receipts})"
        )
    for mandate in found.mandates:
        votes = " ".join(f"#{index}" for index in mandate.votes)
        yield f"├ {'委任' if ja else 'mandate'} #{mandate.index} {mandate.run}  ({votes})"
    for index in found.remedies:
        yield f"├ {'対処' if ja else 'remedy'} #{index}"
    base = found.base
    yield (
        f"└ {'基盤モデル' if ja else 'base model'} {base.name} {base.manifest_sha256[:16]}… "
        f"{base.licence} #{base.approved}"
    )


def present(args: argparse.Namespace, console: Console) -> Reply:
    """Say whether a member was present in a round, or who was."""
    asked = ask(args)
    member = MemberId(args.member) if args.member else None
    run = run_named(args.run, asked)
    found = presence(asked.history.state, run=run, number=args.round, member=member)
    return answer(
        asked,
        console,
        data={"presence": [to_json(item) for item in found]},
        lines=[_presence_text(item, console) for item in found],
        cites=sorted({index for item in found for index in item.cites}),
        proofs=args.proofs,
    )


def _presence_text(item: Presence, console: Console) -> str:
    reason = f" ({item.reason})" if item.reason else ""
    signed = "-" if item.receipt is None else f"#{item.receipt}"
    audited = "-" if item.audited is None else f"#{item.audited}"
    label = console.say(en="receipt", ja="受領証")
    audit = console.say(en="sum audited", ja="合計の監査")
    return (
        f"{item.member:<14} {item.round}.{item.attempt}  {standing_text(item.standing, console.say)}{reason}  "
        f"{label} {signed}  {audit} {audited}"
    )


def budget(args: argparse.Namespace, console: Console) -> Reply:
    """Say what ε is spent on a dataset, expense by expense."""
    asked = ask(args)
    state = asked.history.state
    named = tracing.resolve(args.dataset, state.datasets, "dataset") if args.dataset else None
    found = tuple(curves(state, named))
    return answer(
        asked,
        console,
        data={"budgets": [to_json(curve) for curve in found]},
        lines=[line for curve in found for line in _curve_lines(curve, console)],
        cites=sorted({index for curve in found for index in curve.cites}),
        proofs=args.proofs,
    )


def _curve_lines(curve: Curve, console: Console) -> Iterator[str]:
    spent, left = console.say(en="spent", ja="消費"), console.say(en="left", ja="残り")
    yield (
        f"{curve.dataset[:16]}… {curve.member}  ε {spent} {micro(curve.epsilon_micro)} / "
        f"{micro(curve.limit_micro)}  {left} {micro(curve.left_micro)}"
        + (
            f"  {console.say(en='withdrawn', ja='撤回')} #{curve.withdrawn}"
            if curve.withdrawn
            else ""
        )
    )
    for point in curve.points:
        bar = "█" * round(24 * point.total_epsilon_micro / max(1, curve.limit_micro))
        yield (
            f"  #{point.index:<6} {point.run[:8]} {point.round:>3}  +{micro(point.epsilon_micro)} "
            f"→ {micro(point.total_epsilon_micro)} (δ 1e-{point.delta_exp}, "
            f"{point.accountant})  {bar}"
        )


def weights(args: argparse.Namespace, console: Console) -> Reply:
    """Say who got weights, content or bundles."""
    asked = ask(args)
    state = asked.history.state
    named = None
    if args.artifact:
        initial = (run.mandate.body.plan.initial_adapter for run in state.runs.values())
        known = dict.fromkeys([*tracing.adapters(state), *initial])
        named = tracing.resolve(args.artifact, known, "adapter")
    found = handovers(asked.history, named)
    return answer(
        asked,
        console,
        data={"handovers": [to_json(item) for item in found]},
        lines=[_handover_text(item, console) for item in found],
        cites=sorted({index for item in found for index in item.cites}),
        proofs=args.proofs,
    )


_KINDS = {
    "round": ("adapter to a round's members", "ラウンド参加者へのアダプター配布"),
    "release": ("release", "公開"),
    "evaluation": ("adapter to an evaluator", "評価者へのアダプター配布"),
    "access": ("access granted", "閲覧許可"),
    "export": ("bundle exported", "証拠ファイルの書き出し"),
}


def _handover_text(item: Handover, console: Console) -> str:
    en, ja = _KINDS[item.kind]
    until = f"  ≤ {moment(item.until)}" if item.until is not None else ""
    ended = console.say(en="revoked", ja="失効")
    return (
        f"#{item.index:<6} {console.say(en=en, ja=ja)}  {item.what[:16]} → {', '.join(item.to)}{until}"
        + (f"  {ended} #{item.ended}" if item.ended is not None else "")
    )


def refusals(args: argparse.Namespace, console: Console) -> Reply:
    """List everything that was refused, stopped or left out."""
    asked = ask(args)
    found = refused(asked.history)
    return answer(
        asked,
        console,
        data={"refusals": [to_json(item) for item in found]},
        lines=[
            f"#{item.index:<6} {item.kind:<11} {item.by}{f' → {item.whom}' if item.whom else ''}  "
            f"{item.what}  {item.reason}".rstrip()
            for item in found
        ],
        cites=sorted({item.index for item in found}),
        proofs=args.proofs,
    )
