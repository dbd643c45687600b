"""What `renmei model plan` does: says what a pretraining would take, and names what it assumed.

A shell module over `base_model.planner`, which holds the formulas.
"""

import argparse
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

from base_model.engine import recipe
from base_model.planner import planner, shapes
from base_model.planner.planner import CARDS, Estimate, Terms
from base_model.planner.shapes import PUBLISHED, Transformer
from fedproto.command import Console, Reply
from fedproto.errors import LocalFault

# As DeepSeek-V3 (14.8e12 over 37.6e9: 394) and Kimi K2 (15.5e12 over 32.9e9: 472) were trained;
# 20 is optimal for the compute spent (Hoffmann et al. 2022).
TOKENS_OF_AN_ACTIVE_PARAMETER = 400
_UNITS = {"": 1.0, "K": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}
_RANK = 16
# The rest of a card's memory is the allocator's and the library's.
_USABLE = 0.9


def plan(args: argparse.Namespace, console: Console) -> Reply:
    """Say parameters, FLOPs, memory, time, energy and cost of a pretraining."""
    shape = _shape(args)
    try:
        terms = Terms(
            tokens=quantity(args.tokens)
            if args.tokens
            else float(TOKENS_OF_AN_ACTIVE_PARAMETER * shape.active),
            sequence=args.sequence,
            cards=args.cards,
            card=CARDS[args.card],
            mfu=args.mfu / 100,
            availability=args.availability / 100,
            pue=args.pue,
            price=args.price,
        )
    except ValueError as error:
        raise _unusable(str(error)) from None
    found = planner.estimate(shape, terms)
    return Reply(
        data=_data(shape, terms, found),
        text=f"{_text(shape, terms, found, console)}\n\n{_table(found, terms, console)}",
    )


def quantity(text: str) -> float:
    """Read a count such as 1T, 7.5B or 125M.

    Raises:
        LocalFault: RNM-CONF-0001 it is none.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([KMBT]?)", text.upper())
    if match is None or float(match[1]) == 0:
        raise _unusable(f"{text!r} is no count such as 1T, 7.5B or 125M")
    return float(match[1]) * _UNITS[match[2]]


def _shape(args: argparse.Namespace) -> Transformer:
    if args.recipe:
        path = Path(args.recipe)
        try:
            own = recipe.parse(path.read_text(encoding="utf-8"), str(path))
        except (OSError, UnicodeDecodeError) as error:
            raise _unusable(str(error)) from None
        return shapes.of_recipe(own.model, args.vocabulary, own.name)
    if not args.params:
        if not args.like:
            raise _unusable("it has neither --params nor --like nor --recipe")
        return PUBLISHED[args.like]
    wanted = quantity(args.params)
    like = PUBLISHED[args.like] if args.like else shapes.nearest(wanted)
    shape = shapes.scaled(like, wanted)
    if not 0.8 < shape.total / wanted < 1.25:
        raise _unusable(
            f"no model of {args.params} parameters has the proportions of {like.name}: its "
            f"vocabulary alone needs more; the nearest has {shape.total / 1e9:.2f} B"
        )
    return shape


def _unusable(why: str) -> LocalFault:
    return LocalFault(
        "RNM-CONF-0001",
        what="nothing was planned",
        why=why,
        mend="for example: renmei model plan --params 1T --cards 2048 --card h200",
    )


def _data(shape: Transformer, terms: Terms, found: Estimate) -> dict[str, Any]:
    return {
        "shape": asdict(shape),
        "parameters": shape.total,
        "active_parameters": shape.active,
        "flops_per_token": shape.flops(terms.sequence, causal=True),
        "terms": asdict(terms),
        "adapter_bytes": 2 * shape.adapter(_RANK),
        **asdict(found),
    }


def _text(shape: Transformer, terms: Terms, found: Estimate, console: Console) -> str:
    say = console.say
    card = terms.card
    hours = found.days * 24
    days = found.days >= 2
    sized = f"{_big(found.snapshot_bytes)}B"
    minutes = f"{found.snapshot_every_s / 60:,.0f}"
    rows = (
        (say(en="model", ja="モデル"), shape.name),
        (
            say(en="parameters (active)", ja="パラメーター(有効)"),
            f"{_big(shape.total)} ({_big(shape.active)})",
        ),
        (say(en="tokens", ja="トークン"), _big(terms.tokens)),
        (say(en="FLOPs", ja="演算量"), f"{found.flops:.3g}"),
        (
            say(en=f"on {terms.cards:,} {card.name}", ja=f"{card.name} {terms.cards:,} 枚"),
            say(
                en=f"{found.days:,.1f} days" if days else f"{hours:,.2f} hours",
                ja=f"{found.days:,.1f} 日" if days else f"{hours:,.2f} 時間",
            )
            + say(
                en=f", {found.card_hours:,.1f} card-hours", ja=f"、{found.card_hours:,.1f} 枚・時間"
            ),
        ),
        (
            say(en="energy", ja="電力量"),
            f"{found.kwh / 1000:,.1f} MWh" if found.kwh >= 1000 else f"{found.kwh:,.2f} kWh",
        ),
        (
            say(en="cost", ja="費用"),
            f"{found.cost:,.0f}" if terms.price else say(en="state --price", ja="--price で指定"),
        ),
        (
            say(en="snapshot", ja="スナップショット"),
            say(en=f"{sized} every {minutes} minutes", ja=f"{minutes} 分ごとに {sized}"),
        ),
        (
            say(en=f"LoRA rank {_RANK} upload", ja=f"LoRA ランク {_RANK} の更新"),
            f"{_big(2 * shape.adapter(_RANK))}B",
        ),
        (
            say(en="assumed", ja="前提"),
            say(
                en=f"{terms.mfu:.0%} of {card.flops / 1e12:,.0f} TFLOP/s, "
                f"{terms.availability:.0%} of the time, PUE {terms.pue:g}",
                ja=f"{card.flops / 1e12:,.0f} TFLOP/s の {terms.mfu:.0%}、"
                f"稼働率 {terms.availability:.0%}、PUE {terms.pue:g}",
            ),
        ),
    )
    return "\n".join(f"{label}: {value}" for label, value in rows)


def _table(found: Estimate, terms: Terms, console: Console) -> str:
    """Return the layouts, a line each; a mark says that Muon's fits the card, or that it is built."""
    head = console.say(
        en="GB of a card: state AdamW / Muon, gathered, activations",
        ja="1 枚あたり GB: 状態 AdamW / Muon、集めた重み、活性",
    )
    lines = [head]
    for layout in found.layouts:
        fits = layout.bytes("muon") < _USABLE * terms.card.memory
        fit = (
            console.say(en="fits", ja="収まる") if fits else console.say(en="too large", ja="超過")
        )
        here = console.say(en=", this engine", ja="、本エンジン") if layout.built_here else ""
        lines.append(
            f"  {layout.name:<22}{layout.adamw / 1e9:>9,.1f} /{layout.muon / 1e9:>9,.1f}"
            f"{layout.gathered / 1e9:>9,.1f}{layout.activations / 1e9:>9,.1f}  {fit}{here}"
        )
    return "\n".join(lines)


def _big(value: float) -> str:
    for unit, size in reversed(_UNITS.items()):
        if value >= size:
            return f"{value / size:,.4g} {unit}".strip()
    return f"{value:g}"
