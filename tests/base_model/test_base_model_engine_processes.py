"""Trainings in processes of their own, alone and in pairs: killed, resumed, compared."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from training_process_kit import (
    ALONE,
    CHANCE,
    EXPERTS,
    STEPS,
    finish,
    kill_after,
    losses,
    losses_any,
    recipe,
    weights_of,
)
from transformers import AutoModelForCausalLM

from base_model.engine import meter, network, worker
from base_model.engine.layout import Layout
from base_model.engine.recipe import parse

TWO = Layout(processes=2)


def killed_and_resumed(data: Path, root: Path, *, processes: int, kills: int, model: str) -> None:
    layout = Layout(processes=processes)
    source = recipe(root, model=model)
    whole = finish(source, data, root / "whole", layout)
    out = root / "killed"
    moments = sorted(CHANCE.choice(np.arange(1, STEPS), kills, replace=False).tolist())
    for moment in moments:
        kill_after(source, data, out, layout, moment)
    resumed = finish(source, data, out, layout)
    assert losses(out) == losses(root / "whole"), moments
    assert resumed["manifest_sha256"] == whole["manifest_sha256"], moments


@pytest.mark.parametrize(("processes", "kills", "model"), [(1, 2, EXPERTS), (2, 1, "")])
def test_a_training_killed_at_any_moment_ends_with_the_same_bits(
    data: Path, tmp_path: Path, processes: int, kills: int, model: str
) -> None:
    killed_and_resumed(data, tmp_path, processes=processes, kills=kills, model=model)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("model", ["", EXPERTS], ids=["dense", "moe"])
def test_ten_kills_of_ten_are_resumed_bit_for_bit(
    data: Path, tmp_path: Path, processes: int, model: str
) -> None:
    killed_and_resumed(data, tmp_path, processes=processes, kills=10, model=model)


def test_one_process_and_two_have_the_same_losses_and_go_on_from_each_other(
    data: Path, tmp_path: Path
) -> None:
    source = recipe(tmp_path)
    alone = finish(source, data, tmp_path / "alone")
    other = tmp_path / "other"
    kill_after(source, data, other, TWO, 9)
    kill_after(source, data, other, ALONE, 21)
    ended = finish(source, data, other, TWO)
    expected, found = losses_any(tmp_path / "alone"), losses_any(other)
    assert sorted(found) == sorted(expected) == list(range(1, STEPS + 1))
    # The order of sums differs, and Muon turns matrices in bf16: losses agree to 1 %.
    for step, loss in expected.items():
        assert found[step] == pytest.approx(loss, rel=0.01), step
    # The first loss comes before any step: only the order of its sums differs.
    assert found[1] == pytest.approx(expected[1], rel=1e-5)
    same, mixed = weights_of(alone), weights_of(ended)
    assert same.keys() == mixed.keys()


def renmei(*words: str) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).parent / "renmei"), "--json", "model", "pretrain", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=200)


def test_the_command_trains_tells_and_publishes_a_model_of_the_same_logits(
    data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    source = recipe(tmp_path, steps=8, precision="bf16")
    done = renmei(str(source), "--data", str(data), "--out", str(out), "--watts", "100")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)["data"]
    assert Path(told["curve"]).read_text().startswith("<svg")
    lines = meter.read(Path(told["metrics"]))
    assert [line["step"] for line in lines] == list(range(1, 9))
    assert lines[-1]["joules"] > 0
    assert lines[-1]["tokens_per_s"] > 0
    assert lines[-1]["eta_s"] == 0
    model = AutoModelForCausalLM.from_pretrained(told["path"])
    trained = network.build(parse(source.read_text(), "").model, model.config.vocab_size, 7)
    (snapshot,) = (out / worker.SNAPSHOTS).glob("step-00000008/*.safetensors")
    weights = {
        name.removeprefix("weight."): tensor
        for name, tensor in load_file(snapshot).items()
        if name.startswith("weight.")
    }
    trained.load_state_dict(weights, strict=False)
    batch = torch.arange(5, 37).reshape(1, -1)
    with torch.no_grad():
        assert torch.equal(trained(input_ids=batch).logits, model(input_ids=batch).logits)


@pytest.mark.parametrize(
    ("change", "code", "why"),
    [
        (lambda words: [*words, "--processes", "3"], "RNM-CONF-0001", "by 3 processes"),
        (lambda words: ["missing.toml", *words[1:]], "RNM-CONF-0001", "missing.toml"),
        (lambda words: [words[0], "--data", "nowhere", *words[3:]], "RNM-DATA-0001", "nowhere"),
    ],
    ids=["processes", "recipe", "data"],
)
def test_what_cannot_be_trained_is_refused_by_name(
    data: Path, tmp_path: Path, change: Any, code: str, why: str
) -> None:
    words = [str(recipe(tmp_path)), "--data", str(data), "--out", str(tmp_path / "out")]
    done = renmei(*change(words))
    assert done.returncode != 0
    told = json.loads(done.stdout)
    assert told["data"]["code"] == code
    assert why in json.dumps(told, ensure_ascii=False)


# With the filler there is room for two snapshots, not for a third; without it for four.
ON_A_SMALL_DISK = """
mount -t tmpfs -o size=1300k t /mnt && head -c 500k /dev/zero > /mnt/filler || exit 99
"$@" --out /mnt/out; echo $?
cat /mnt/out/fault.json; echo
ls /mnt/out/snapshots/*/state.json
rm /mnt/filler
"$@" --out /mnt/out; echo $?
cp /mnt/out/metrics.jsonl "$KEPT"
"""


def test_a_full_disk_leaves_the_last_snapshot_and_the_training_goes_on_when_there_is_room(
    data: Path, tmp_path: Path
) -> None:
    probe = ["unshare", "--user", "--map-root-user", "--mount", "true"]
    if subprocess.run(probe, capture_output=True, check=False).returncode:
        pytest.skip("this machine lets no one mount a tmpfs; the loop's own test fails an exchange")
    source = recipe(tmp_path)
    finish(source, data, tmp_path / "whole")
    words = [
        sys.executable,
        "-m",
        "base_model.engine.worker",
        str(source),
        "--data",
        str(data),
    ]
    done = subprocess.run(
        [*probe[:-1], "sh", "-c", ON_A_SMALL_DISK, "sh", *words],
        env=os.environ | {"KEPT": str(tmp_path / meter.FILE)},
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    first, fault, *snapshots, second = done.stdout.splitlines()
    assert (first, second) == ("1", "0"), done.stderr
    assert json.loads(fault)["code"] == "RNM-DISK-0001"
    assert len(snapshots) >= 1
    assert losses(tmp_path) == losses(tmp_path / "whole")
