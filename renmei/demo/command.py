"""`renmei demo`: a whole federation on this machine, every part real, every figure of this run.

Reads as the demo's table of contents. Nothing is arranged: what is measured is printed, and a claim that
this run does not bear out is printed as such and ends with exit 1.
"""

import argparse
import time
from pathlib import Path

from base_model.corpus import BASE
from base_model.lockfile import read_lock
from fedproto.command import Console, Reply
from fedproto.errors import Exit
from renmei.demo import comparison, corpora, parties, proof, table
from renmei.demo.settings import DEMO, FAST, MEMBERS
from renmei.demo.stage import Stage, workplace


def demo(args: argparse.Namespace, console: Console) -> Reply:
    """Run the demo."""
    began = time.monotonic()
    with workplace(args.keep) as root:
        stage = Stage(
            root=root,
            cache=Path(args.cache),
            settings=FAST if args.fast else DEMO,
            seed=args.seed,
            console=console,
        )
        try:
            return _run(stage, began, kept=args.keep is not None)
        finally:
            stage.close()


def _run(stage: Stage, began: float, *, kept: bool) -> Reply:
    lock = read_lock()
    stage.title("a consortium is founded", "コンソーシアムの創設")
    parties.found_consortium(stage)
    label = stage.console.say(en="      reading corpora", ja="      コーパスの読み込み")
    bar = stage.console.progress(label, len(MEMBERS) + 2)
    splits = corpora.build(stage.cache, lock, lambda name: bar.advance(1, name))
    bar.close()
    base_corpus = splits.pop(BASE)
    corpora.give(stage.root, corpora.deal(splits, stage.settings, stage.seed))
    tests = corpora.hold_out(splits, stage.settings, stage.seed)

    stage.title("the base model is pretrained and released", "基盤モデルの事前学習と公開")
    parties.start_processes(stage)
    base = parties.pretrain_base(stage, base_corpus)
    parties.await_processes(stage)
    index = parties.approve_base(stage, base, base_corpus.digest)
    stage.say(
        f"release {base.release.name[:16]}…, {base.held_out:.3f} bits per byte, entry {index}",
        f"公開 {base.release.name[:16]}…、{base.held_out:.3f} ビット/バイト、項目 {index}",
    )

    stage.title("a run is proposed, voted on and mandated", "実行の提案・投票・委任")
    plan, initial = parties.make_plan(stage, base)
    run, state = parties.propose(stage, plan, initial)
    parties.show_mandate(stage, run, state)

    stage.title("the federation trains", "連合学習の実行")
    arms = comparison.Comparison(stage, base.release, plan, tests)
    arms.start(comparison.BASELINES, polite=True)
    parties.follow(stage, run, plan)

    stage.title(
        "what it is worth: bits per byte on held-out text", "効果: 未学習文書でのビット/バイト"
    )
    arms.await_private()
    arms.start(comparison.FEDERATED, polite=False)
    rows = table.rows(arms.finish(), MEMBERS, stage.seed)
    claims = table.claims(rows, MEMBERS)
    stage.console.note(table.render(rows, MEMBERS, stage.settings))
    for claim in claims:
        stage.say(*claim.words)

    stage.title("what left each site", "各拠点から出たもの")
    left = proof.show_egress(stage)

    stage.title("the ledger is verified offline", "台帳のオフライン検証")
    verified = proof.verify_offline(stage)
    seconds = time.monotonic() - began
    good = all(claim.held for claim in claims if claim.required(stage.settings.name))
    return Reply(
        data={
            "length": stage.settings.name,
            "seed": stage.seed,
            "seconds": round(seconds, 1),
            "run": run,
            "base": {
                "manifest_sha256": base.release.name,
                "loss": base.loss,
                "bits_per_byte": base.held_out,
            },
            "table": [row.to_json() for row in rows],
            "claims": [claim.to_json() for claim in claims],
            "egress": left,
            "ledger": {
                "entries": verified.entries,
                "cosignatures": verified.cosignatures,
                "validations": verified.validations,
                "changed_entry": verified.changed_entry,
                "tampered_exit": verified.tampered_exit,
            },
        },
        text=stage.console.say(en=f"done in {seconds:.0f} s", ja=f"{seconds:.0f} 秒で完了しました"),
        next=(
            (
                f"renmei audit log {stage.root}/meti/bundle.zip",
                f"renmei node egress --dir {stage.root}/nec",
            )
            if kept
            else ("renmei demo --keep DIR",)
        ),
        exit=Exit.OK if good and verified.tampered_exit == Exit.VERIFY else Exit.FAILED,
    )
