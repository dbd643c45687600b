"""What `renmei base` does: fetching corpora, and pretraining from a recipe to a release.

A shell module: joins corpus, tokenizer, packing, training and export in this order, with progress.
Every step goes on from what an earlier start has finished.
"""

import argparse
from pathlib import Path

from base_model import fetch as fetching
from base_model.lockfile import read_lock
from fedproto.command import Console, Reply
from fedproto.errors import LocalFault


def fetch(args: argparse.Namespace, console: Console) -> Reply:
    """Fetch every source of the lock."""
    lock, cache = read_lock(), Path(args.cache)
    absent = fetching.fetch(lock, cache, console.note)
    names = [source.name for source in absent]
    text = console.say(
        en=f"{len(lock.sources) - len(names)} of {len(lock.sources)} sources are in {cache}",
        ja=f"{len(lock.sources)} 件中 {len(lock.sources) - len(names)} 件の出典が {cache} にあります",
    )
    warnings = tuple(
        console.say(
            en=f"without {name}: this machine's apt does not offer it",
            ja=f"{name} なし(この環境の apt では入手できないため)",
        )
        for name in names
    )
    data = {"lock_sha256": lock.digest, "cache": str(cache), "absent": names}
    return Reply(data=data, text=text, warnings=warnings, next=("renmei base train --out DIR",))


def train(args: argparse.Namespace, console: Console) -> Reply:
    """Pretrain by a recipe and publish the result."""
    # torch is loaded here and not with the module: `renmei base fetch` needs none of it.
    from base_model import corpus, evaluate, model, packing, tokenizer, weights
    from base_model.pretrain import Job, pretrain, useful_processes
    from base_model.recipes import RECIPES

    if args.recipe not in RECIPES:
        raise LocalFault(
            "RNM-CONF-0001",
            what="nothing was trained",
            why=f"there is no recipe {args.recipe!r}",
            mend=f"choose one of: {', '.join(RECIPES)}",
        )
    recipe, out = RECIPES[args.recipe](), Path(args.out)
    console.note(console.say(en="reading the corpus", ja="コーパスを読み込んでいます"))
    split = corpus.build_domain(corpus.BASE, Path(args.cache), read_lock())
    console.note(console.say(en="training the tokenizer", ja="トークナイザーを学習しています"))
    words = tokenizer.train(document.text for document in split.train)
    packing.pack(split.train, words, out / "packed")
    job = Job(
        recipe=recipe,
        packed=out / "packed",
        seed=args.seed,
        compile_=not args.no_compile,
        snapshots=out / "snapshots",
    )
    progress = console.progress(
        console.say(en="pretraining", ja="事前学習"), recipe.schedule.steps, "steps"
    )
    net, last = pretrain(
        job,
        processes=useful_processes(),
        on_step=lambda report: progress.advance(1, f"loss {report.loss:.3f}"),
    )
    progress.close()
    release = weights.publish(net, words, out / "models")
    scores = evaluate.score(net, words, [d.text for d in split.test], window=recipe.sequence)
    bits = evaluate.bits_per_byte(scores)
    data = {
        "recipe": recipe.name,
        "manifest_sha256": release.name,
        "corpus_sha256": split.digest,
        "parameters": sum(p.numel() for p in net.parameters()),
        "last_loss_nats": last,
        "held_out_bits_per_byte": bits,
        "path": str(release),
    }
    text = console.say(
        en=f"{release}\n{bits:.3f} bits per byte on held-out text",
        ja=f"{release}\n評価用の文書で1バイトあたり {bits:.3f} ビット",
    )
    reason = "" if args.no_compile else model.compiler_reason()
    return Reply(data=data, text=text, warnings=(reason,) if reason else ())
