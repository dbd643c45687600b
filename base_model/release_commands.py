"""What `renmei model release` and `renmei model evaluate` do: verify, examine, and write what is voted on.

A shell module. Neither signs: the terms and the report that they write are what `renmei govern` signs.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from fedproto.command import Console, Reply
from fedproto.durable import disk_fault, write_atomic
from fedproto.errors import LocalFault


def release(args: argparse.Namespace, console: Console) -> Reply:
    """Verify a release and, where asked, write the terms under which it is approved."""
    from base_model import releases

    found = releases.open_release(Path(args.release), releases.named(args.digest))
    data: dict[str, Any] = {
        "manifest_sha256": found.manifest,
        "corpus_sha256": found.corpus,
        "recipe_sha256": found.recipe,
        "code_sha256": found.code,
        "architecture": found.architecture,
        "parameters": found.parameters,
        "bytes": found.bytes,
        "licences": list(found.licences),
    }
    text = console.say(
        en=f"verified: {found.architecture}, {found.parameters:,} parameters, {found.bytes:,} bytes\n"
        f"release {found.manifest}\ndata    {found.corpus}\nrecipe  {found.recipe}\n"
        f"code    {found.code}",
        ja=f"検証済み: {found.architecture}、パラメーター {found.parameters:,}、{found.bytes:,} バイト\n"
        f"公開物 {found.manifest}\nデータ {found.corpus}\nレシピ {found.recipe}\nコード {found.code}",
    )
    following: tuple[str, ...] = ()
    if args.terms:
        if not args.name or not args.licence:
            raise LocalFault(
                "RNM-CONF-0001",
                what="no terms were written",
                why="they name the model and its licence",
                mend="add --name and --licence",
            )
        terms = {
            "name": args.name,
            "manifest_sha256": found.manifest,
            "corpus_sha256": found.corpus,
            "licence": args.licence,
            "parameters": found.parameters,
        }
        _write(Path(args.terms), json.dumps(terms, indent=2).encode() + b"\n")
        following = (f"renmei govern approve-base --terms {args.terms}",)
    return Reply(data=data, text=text, next=following)


def evaluate(args: argparse.Namespace, console: Console) -> Reply:
    """Examine a release on held-out data; write the report that a member attests."""
    from base_model import dataset, releases, weights
    from base_model import tokenizer as tokenizers
    from base_model.canaries import Canaries
    from base_model.examination import Suite, examine

    directory, data = Path(args.release), Path(args.data)
    if args.documents < 1:
        raise LocalFault(
            "RNM-CONF-0001",
            what="nothing was evaluated",
            why=f"--documents is {args.documents}",
            mend="ask for one document of each source or more",
        )
    found = releases.open_release(directory, releases.named(args.digest))
    recipe = releases.recipe_of(directory)
    made = dataset.open_manifest(data)
    texts = dataset.held_out_texts(data, made)
    series = [
        one
        for part in made.parts
        if part.name == dataset.SERIES
        for one in dataset.held_out_series(data / dataset.HELD_OUT / f"{part.name}.jsonl")
    ]
    suite = Suite(
        texts={name: of[: args.documents] for name, of in texts.items()},
        series=series[: args.documents],
        planted=Canaries(**recipe["canaries"]),
        window=int(recipe["train"]["sequence"]),
    )
    progress = console.progress(
        console.say(en="evaluating", ja="評価"), len(suite.texts) + 3, "parts"
    )
    try:
        report = examine(
            weights.load_base(directory, found.manifest),
            tokenizers.load(directory),
            suite,
            found.manifest,
            lambda part: progress.advance(1, part),
        )
    finally:
        progress.close()
    warnings = () if found.corpus == made.digest else (_other_data(console),)
    if args.out:
        _write(Path(args.out), report.to_bytes())
    lines = [f"{name}: {figure}" for name, figure in sorted(report.metrics.items())]
    return Reply(
        data=json.loads(report.to_bytes()),
        text="\n".join(lines),
        warnings=warnings,
        next=(f"renmei govern attest --report {args.out}",) if args.out else (),
    )


def _other_data(console: Console) -> str:
    return console.say(
        en="the model was trained on another build of the data: what is held out here may be known to it",
        ja="モデルは別のデータから学習しています。ここでの評価用文書を学習済みの可能性があります",
    )


def _write(path: Path, content: bytes) -> None:
    try:
        write_atomic(path, content)
    except OSError as error:
        raise disk_fault(path, error) from None
