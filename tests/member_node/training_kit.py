"""A tiny base model, a tiny corpus and a plan for them: random weights, real libraries."""

import json
from functools import cache

import numpy as np

from base_model import model, tokenizer, weights
from fedproto.governance.plan import Aggregation, Lora, Method, RunPlan, Training
from fedproto.ids import ZERO_DIGEST, Digest
from member_node import adapter

TARGETS = ("down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj")
LORA = Lora(rank=4, alpha=8, targets=TARGETS)
TRAINING = Training(rounds=2, steps=3, batch=4, sequence=32, lr_micro=5000, seed=11)
SIZE = model.Size(
    vocabulary=300,
    hidden=32,
    layers=2,
    feed_forward=64,
    heads=2,
    key_value_heads=1,
    head_dim=16,
    positions=64,
)
SECRET = "canary-5d1f"


def documents(count=120, seed=3):
    rng = np.random.default_rng(seed)
    words = "signal message identity element protocol procedure value 車両 信号 音楽 回線".split()
    for number in range(count):
        text = " ".join(words[i] for i in rng.integers(0, len(words), 24))
        yield {"group": f"g{number % 7}", "text": f"{SECRET} {number} {text}"}


def write_corpus(directory, count=120, seed=3):
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name, own in (("train.jsonl", seed), ("test.jsonl", seed + 1)):
        lines = [json.dumps(item, ensure_ascii=False) for item in documents(count, own)]
        (directory / name).write_text("\n".join(lines) + "\n")
    return directory


@cache
def words():
    return tokenizer.train((item["text"] for item in documents()), SIZE.vocabulary)


def fresh(seed=5):
    return model.build(SIZE, seed)


def publish(parent):
    """Publish the tiny base; return its directory, named by its digest."""
    return weights.publish(fresh(), words(), parent)


def plan_for(base_dir, *, training=TRAINING, lora=LORA):
    return RunPlan(
        purpose="TEST",
        base_manifest_sha256=Digest(base_dir.name),
        initial_adapter=ZERO_DIGEST,
        layout_sha256=ZERO_DIGEST,
        parameters=1,
        lora=lora,
        training=training,
        aggregation=Aggregation(
            method=Method.FEDAVG,
            outer_lr_milli=1000,
            momentum_milli=0,
            clip_milli=1000,
            bits=16,
            tolerated=1,
        ),
        members=("nec", "sony"),
        min_members=2,
        phase_timeout_s=60,
    )


def attached(seed=7):
    wrapped = adapter.attach(fresh(), LORA, seed)
    return wrapped, adapter.layout_of(wrapped)


def noise(layout, seed=0, scale=0.02):
    rng = np.random.default_rng(seed)
    return (rng.standard_normal(layout.size) * scale).astype(np.float32)
