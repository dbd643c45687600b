"""What `renmei model data` and `renmei model tokenizer` do: the data of a base model, and its report.

A shell module. The digest that it prints is the `corpus_sha256` of the terms under which base weights
are approved, so the ledger names the data by its manifest.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from base_model.lockfile import read_lock
from fedproto.command import Console, Reply
from fedproto.errors import LocalFault

if TYPE_CHECKING:
    from base_model.fertility import Fertility


def data(args: argparse.Namespace, console: Console) -> Reply:
    """Build the data of a base model, or go on with a build that was interrupted."""
    # tokenizers is loaded here and not with the module: `renmei --help` needs none of it.
    from base_model import dataset

    options = dataset.Options(vocabulary=args.vocabulary, bins=args.bins)
    smallest = 256 + 3 + (args.bins + 6 if args.bins else 0)
    if args.vocabulary < smallest or args.bins < 0:
        raise LocalFault(
            "RNM-CONF-0001",
            what="no data was built",
            why=f"{args.vocabulary} tokens leave no room for each byte, the marks and {args.bins} bins",
            mend=f"ask for {smallest} tokens or more",
        )
    out = Path(args.out)
    made = dataset.build(read_lock(), Path(args.cache), out, options, console.note)
    tokens = sum(part.train_tokens for part in made.parts)
    lines = [f"{part.name}: {part.train_tokens:,}" for part in made.parts]
    text = console.say(
        en=f"{tokens:,} tokens in {len(made.parts)} parts\n" + "\n".join(lines) + "\n"
        f"{made.near_duplicates.removed} near-duplicates removed\ndata manifest {made.digest}",
        ja=f"{len(made.parts)} 部、{tokens:,} トークン\n" + "\n".join(lines) + "\n"
        f"ほぼ重複する文書 {made.near_duplicates.removed} 件を除外\nデータ目録 {made.digest}",
    )
    warnings = tuple(console.say(en=f"without {name}", ja=f"{name} なし") for name in made.absent)
    reply = {
        "corpus_sha256": made.digest,
        "path": str(out),
        "tokens": tokens,
        "parts": {part.name: part.train_tokens for part in made.parts},
        "near_duplicates": made.near_duplicates.removed,
        "licences": list(made.licences),
        "absent": list(made.absent),
    }
    following = (f"renmei model tokenizer --report --data {out}",)
    return Reply(data=reply, text=text, warnings=warnings, next=following)


def tokenizer(args: argparse.Namespace, console: Console) -> Reply:
    """Say what a tokenizer is and, for a report, what it costs each part of the held-out text."""
    from base_model import dataset, fertility
    from base_model import tokenizer as tokenizers

    directory = Path(args.data)
    made = dataset.open_manifest(directory)
    words = tokenizers.load(directory)
    dataset.require_tokenizer(words, made, directory)
    head = console.say(
        en=f"{made.tokenizer.vocabulary} tokens, {made.tokenizer.bins} bins of series, "
        f"sha256 {made.tokenizer.sha256}",
        ja=f"{made.tokenizer.vocabulary} トークン、時系列の階級 {made.tokenizer.bins}、"
        f"sha256 {made.tokenizer.sha256}",
    )
    reply: dict[str, object] = {
        "sha256": made.tokenizer.sha256,
        "vocabulary": made.tokenizer.vocabulary,
        "bins": made.tokenizer.bins,
        "bytes_without_token": len(fertility.bytes_without_token(words)),
    }
    if not args.report:
        return Reply(data=reply, text=head)
    texts = dataset.held_out_texts(directory, made)
    measured = [fertility.measure(name, words, found) for name, found in texts.items()]
    everything = [text for found in texts.values() for text in found]
    sentences = fertility.japanese_sentences(everything)
    label = console.say(en="Japanese sentences", ja="日本語の文")
    figures = [one for one in (*measured, fertility.measure(label, words, sentences)) if one]
    reply["held_out"] = [_figures(one) for one in figures]
    reply["published"] = [
        {"name": p.name, "characters_per_token": [p.low, p.high], "source": p.source}
        for p in fertility.PUBLISHED
    ]
    return Reply(data=reply, text="\n".join([head, *_table(figures, console)]))


def _figures(one: "Fertility") -> dict[str, object]:
    return {
        "name": one.name,
        "characters": one.characters,
        "tokens_per_character": round(one.tokens_per_character, 4),
        "tokens_per_byte": round(one.tokens_per_byte, 4),
        "characters_per_token": round(one.characters_per_token, 4),
    }


def _table(figures: "list[Fertility]", console: Console) -> list[str]:
    from base_model import fertility

    titles = console.say(
        en="held-out text: tokens a character, tokens a byte, characters a token",
        ja="評価用の文書:1文字あたりトークン、1バイトあたりトークン、1トークンあたり文字",
    )
    rows = [
        f"  {one.tokens_per_character:.3f}  {one.tokens_per_byte:.3f}  "
        f"{one.characters_per_token:.2f}  {one.name}"
        for one in figures
    ]
    published = console.say(
        en="published, on other Japanese text: tokens a character, characters a token",
        ja="公表値(別の日本語文):1文字あたりトークン、1トークンあたり文字",
    )
    rows += [published]
    for p in fertility.PUBLISHED:
        low, high = sorted((1 / p.low, 1 / p.high))
        tokens = f"{low:.2f}" if low == high else f"{low:.2f}-{high:.2f}"
        letters = f"{p.low}" if p.low == p.high else f"{p.low}-{p.high}"
        rows.append(f"  {tokens}  {letters}  {p.name} ({p.source})")
    return [titles, *rows]
