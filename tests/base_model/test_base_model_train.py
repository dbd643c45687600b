"""Pretraining in real processes that are really killed: the same losses and weights, bit for bit."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from base_kit import TINY, some_documents, tiny_recipe
from tokenizers import Tokenizer

from base_model import snapshot
from base_model.model import build, make_loss
from base_model.packing import Batches, pack
from base_model.train import Schedule, StepReport, finite, optimisers, train
from fedproto.errors import LocalFault

_WORKER = Path(__file__).with_name("pretrain_worker.py")
STEPS = 9


@pytest.fixture
def directory(tokenizer: Tokenizer, tmp_path: Path) -> Path:
    pack(some_documents(), tokenizer, tmp_path / "packed")
    return tmp_path


def words(directory: Path, processes: int, seed: int = 7, *more: str) -> list[str]:
    return [
        sys.executable,
        str(_WORKER),
        str(directory),
        *map(str, (processes, STEPS, seed)),
        *more,
    ]


def run(directory: Path, processes: int = 1, seed: int = 7) -> list[str]:
    done = subprocess.run(
        words(directory, processes, seed), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def run_and_kill(directory: Path, processes: int, at: int) -> list[str]:
    """Return the lines of a training that gets SIGKILL after step `at`."""
    lines = []
    with subprocess.Popen(
        words(directory, processes, 7, "wait"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as worker:
        assert worker.stdin
        assert worker.stdout
        for line in worker.stdout:
            lines.append(line.rstrip())
            if line.startswith(f"{at} "):
                worker.kill()
                break
            worker.stdin.write("\n")
            worker.stdin.flush()
    assert worker.returncode == -signal.SIGKILL
    return lines


@pytest.mark.parametrize("processes", [1, 2])
def test_a_killed_training_resumes_with_the_same_losses_and_weights(
    directory: Path, processes: int
) -> None:
    whole = run(directory, processes)
    assert len(whole) == STEPS + 2
    shutil.rmtree(directory / "snapshots")

    # Snapshots are made after steps 2, 4, 6 and 8.
    killed = run_and_kill(directory, processes, at=5)
    assert killed == whole[:5]
    resumed = run(directory, processes)
    assert resumed == whole[4:]


def test_a_training_that_has_ended_is_not_repeated(directory: Path) -> None:
    model = build(TINY, 7)
    recipe = tiny_recipe(steps=4)
    batches = Batches(stream=packed(directory), sequence=recipe.sequence, seed=7)
    loss = make_loss(model, compile_=False)
    snapshots = directory / "snapshots"
    first = train(model, loss, batches, recipe.schedule, snapshots=snapshots)
    steps: list[StepReport] = []
    again = train(
        build(TINY, 7), loss, batches, recipe.schedule, snapshots=snapshots, on_step=steps.append
    )
    assert (again, steps) == (first, [])


def packed(directory: Path):
    from base_model.packing import read

    return read(directory / "packed")


def test_two_processes_train_as_one_does(directory: Path) -> None:
    recipe = tiny_recipe(STEPS)
    model, alone = build(TINY, 7), []
    train(
        model,
        make_loss(model, compile_=False),
        Batches(stream=packed(directory), sequence=recipe.sequence, seed=7),
        recipe.schedule,
        on_step=lambda report: alone.append(report.loss),
    )
    shared = [float.fromhex(line.split()[1]) for line in run(directory, 2)[:STEPS]]
    # The same batches; sums in another order, in bf16.
    assert shared == pytest.approx(alone, rel=2e-3)


def children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(word) for word in text.split()]


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks into /proc")
def test_a_process_that_dies_stops_the_others_by_name(directory: Path) -> None:
    with subprocess.Popen(
        words(directory, 2, 7, "wait"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as worker:
        assert worker.stdout
        assert worker.stdout.readline().startswith("1 ")
        for child in children(worker.pid):
            if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
                os.kill(child, signal.SIGKILL)
        _, errors = worker.communicate("\n" * STEPS, timeout=60)
    assert worker.returncode == 1
    assert errors.strip().splitlines()[-1] == "RNM-PROC-0002"


# --- snapshots ---------------------------------------------------------------------------------


@pytest.fixture
def state(tmp_path: Path):
    """A model and its optimisers after a step, and the directory of their snapshots."""
    model = build(TINY, 7)
    steppers = optimisers(model, Schedule(steps=4, batch=2))
    tokens = torch.randint(3, TINY.vocabulary, (2, 17), generator=torch.Generator().manual_seed(0))
    make_loss(model, compile_=False)(tokens).backward()
    for stepper in steppers:
        stepper.step()
    return model, steppers, tmp_path / "snapshots"


def save(state, step: int) -> Path:
    model, steppers, directory = state
    snapshot.save(directory, model, steppers, step=step, loss=0.1, training="a" * 64)
    return directory / f"step-{step:08d}"


def restore(state, training: str = "a" * 64) -> tuple[int, float]:
    model = build(TINY, 8)
    steppers = optimisers(model, Schedule(steps=4, batch=2))
    found = snapshot.restore(state[2], model, steppers, training=training)
    if found[0]:
        assert all(map(torch.equal, model.parameters(), state[0].parameters()))
        for own, saved in zip(steppers, state[1], strict=True):
            for index, values in saved.state_dict()["state"].items():
                for key, value in values.items():
                    assert torch.equal(own.state_dict()["state"][index][key], value)
    return found


def test_a_snapshot_brings_back_weights_and_optimisers(state) -> None:
    save(state, 3)
    assert restore(state) == (3, 0.1)


def test_only_the_newest_snapshot_is_kept(state) -> None:
    save(state, 2)
    newest = save(state, 4)
    assert list(state[2].iterdir()) == [newest]


def test_a_snapshot_without_its_commit_counts_as_absent(state) -> None:
    first = save(state, 2)
    shutil.copytree(first, state[2] / "step-00000004")
    (state[2] / "step-00000004" / "COMMIT").unlink()
    assert restore(state)[0] == 2
    (first / "COMMIT").unlink()
    assert restore(state)[0] == 0
    # What was torn is written over.
    save(state, 4)
    assert restore(state)[0] == 4


def test_a_snapshot_of_another_training_is_refused(state) -> None:
    save(state, 2)
    with pytest.raises(LocalFault) as caught:
        restore(state, training="b" * 64)
    assert caught.value.code == "RNM-MODEL-0002"


def test_corpus_seed_and_schedule_tell_trainings_apart(directory: Path) -> None:
    recipe = tiny_recipe(steps=2)
    stream = packed(directory)

    def go(seed: int = 7, cut: int = 0, schedule: Schedule = recipe.schedule) -> float:
        model = build(TINY, 7)
        return train(
            model,
            make_loss(model, compile_=False),
            Batches(stream=stream[cut:], sequence=32, seed=seed),
            schedule,
            snapshots=directory / "snapshots",
        )

    go()
    for changes in ({"seed": 8}, {"cut": 1}, {"schedule": Schedule(steps=2, batch=4, warm_up=3)}):
        with pytest.raises(LocalFault, match="another model, corpus, recipe or seed"):
            go(**changes)


@pytest.mark.parametrize("name", ["model.safetensors", "optimiser.safetensors", "state.json"])
@pytest.mark.parametrize("damage", ["cut", "gone", "empty"])
def test_a_damaged_snapshot_is_refused_by_name(state, name: str, damage: str) -> None:
    path = save(state, 2) / name
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(
            b"" if damage == "empty" else path.read_bytes()[: path.stat().st_size // 2]
        )
    with pytest.raises(LocalFault) as caught:
        restore(state)
    assert caught.value.code == "RNM-MODEL-0002"


def test_a_snapshot_is_safetensors_and_json_only(state) -> None:
    target = save(state, 2)
    assert sorted(path.name for path in target.iterdir()) == [
        "COMMIT",
        "model.safetensors",
        "optimiser.safetensors",
        "state.json",
    ]
    assert json.loads((target / "state.json").read_bytes())["step"] == 2


def test_a_snapshot_that_finds_no_room_leaves_the_one_before(
    state, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(state, 2)

    def full(handle: int) -> None:
        with open("/dev/full", "wb", buffering=0) as nowhere:
            nowhere.write(b"x")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(LocalFault) as caught:
            save(state, 4)
    assert caught.value.code == "RNM-DISK-0001"
    assert restore(state) == (2, 0.1)


# --- the loop ----------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", [float("nan"), float("inf"), float("-inf")])
def test_a_loss_that_is_not_finite_stops_the_training_before_a_step(
    directory: Path, loss: float
) -> None:
    model = build(TINY, 7)
    before = [p.detach().clone() for p in model.parameters()]
    plain = make_loss(model, compile_=False)
    batches = Batches(stream=packed(directory), sequence=32, seed=7)
    with pytest.raises(LocalFault) as caught:
        train(model, lambda tokens: plain(tokens) * loss, batches, Schedule(steps=2, batch=2))
    assert caught.value.code == "RNM-MODEL-0002"
    assert all(map(torch.equal, before, model.parameters()))
    assert finite(1.5, 0) == 1.5


def test_a_step_tells_its_number_its_loss_and_the_time_that_is_left(directory: Path) -> None:
    model = build(TINY, 7)
    reports: list[StepReport] = []
    last = train(
        model,
        make_loss(model, compile_=False),
        Batches(stream=packed(directory), sequence=32, seed=7),
        Schedule(steps=3, batch=2),
        on_step=reports.append,
    )
    assert [(r.step, r.steps) for r in reports] == [(1, 3), (2, 3), (3, 3)]
    assert reports[-1].loss == last
    assert reports[0].eta_s > 0
    assert reports[-1].eta_s == 0
    assert all(r.tokens_per_s > 0 for r in reports)


def test_rates_warm_up_stay_and_fall() -> None:
    rates = [Schedule(steps=100, batch=1, warm_up=10).rate(step) for step in range(100)]
    assert rates[:10] == pytest.approx([(n + 1) / 10 for n in range(10)])
    assert set(rates[10:50]) == {1.0}
    assert rates[50:] == sorted(rates[50:], reverse=True)
    assert rates[-1] == pytest.approx(0.02)


@pytest.mark.parametrize(
    "wrong", [{"steps": 0}, {"batch": 0}, {"warm_up": 0}, {"decay": 0.0}, {"decay": 1.5}]
)
def test_a_schedule_without_sense_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="schedule"):
        Schedule(**{"steps": 1, "batch": 1, **wrong})  # type: ignore[arg-type]
