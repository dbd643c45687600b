"""One process of a pretraining, alone or under torchrun: `python -m base_model.engine.worker RECIPE …`.

Joins recipe, data, network, snapshots and meter; the first process writes lines, curve and release. A
named fault goes to `fault.json`, from which the command that started it speaks. A shell module.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from tokenizers import Tokenizer
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor

from base_model import canaries, dataset, manifest, releases, weights
from base_model import tokenizer as tokenizers
from base_model.engine import meter, network
from base_model.engine.layout import Layout, meshes
from base_model.engine.loop import Crew, Listener, Step, Training
from base_model.engine.meter import Meter
from base_model.engine.recipe import CANARIES, Recipe, parse
from base_model.engine.shards import Shelf
from base_model.mixture import Mixture
from base_model.packing import Stream
from base_model.tokenizer import BOS, EOS
from fedproto import telemetry
from fedproto.durable import write_atomic
from fedproto.errors import FederationError

SNAPSHOTS, MODELS, RESULT, FAULT, CURVE = (
    "snapshots",
    "models",
    "result.json",
    "fault.json",
    "loss.svg",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What one pretraining is: a recipe, the build of `renmei model data`, and where it writes.

    `tensor` and `replicas` lay it out on the processes (`base_model.engine.layout`).
    """

    recipe: Recipe
    data: Path
    out: Path
    watts: float = 0.0
    tensor: int = 1
    replicas: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """The processes of a training: how they are laid out, and how they talk."""

    crew: Crew
    mesh: DeviceMesh | None
    tensor: DeviceMesh | None
    exchange: Callable[[str], list[str]]


def processes() -> int:
    """Return how many processes torchrun started; one, where it did not."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def join(layout: Layout) -> World:
    """Meet the other processes that torchrun started, if it did."""
    cuda = torch.cuda.is_available()
    device = "cuda" if cuda else "cpu"
    ranks = layout.processes
    if ranks == 1:
        crew = Crew(rank=0, ranks=1, lane=0, lanes=1, device=device, mean=float)
        return World(crew=crew, mesh=None, tensor=None, exchange=lambda digest: [digest])
    if cuda:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo")
    # Snapshots are written in a thread: what it exchanges must not meet the training's own messages.
    aside = dist.new_group(backend="gloo")

    def mean(total: torch.Tensor) -> float:
        dist.all_reduce(total)
        return float(total / ranks)

    def exchange(digest: str) -> list[str]:
        own = torch.tensor(list(bytes.fromhex(digest).ljust(32, b"\0")), dtype=torch.uint8)
        every = [torch.empty_like(own) for _ in range(ranks)]
        dist.all_gather(every, own, group=aside)
        return [bytes(part.tolist()).hex() if part.any() else "" for part in every]

    mesh, tensor = meshes(device, layout)
    rank = dist.get_rank()
    # "tensor" is the last axis: ranks that cut the same matrices are next to each other.
    lane, lanes = rank // layout.tensor, layout.lanes
    crew = Crew(rank=rank, ranks=ranks, lane=lane, lanes=lanes, device=device, mean=mean)
    return World(crew=crew, mesh=mesh, tensor=tensor, exchange=exchange)


def pretrain(job: Job, on_step: Callable[[meter.Line], None] = lambda line: None) -> dict[str, Any]:
    """Train to the recipe's end and publish the result; returns what `result.json` says.

    Raises:
        LocalFault: RNM-CONF-0001 batch and processes don't divide; what data, snapshots and loop raise.
    """
    recipe, plan = job.recipe, job.recipe.train
    layout = Layout(processes=processes(), tensor=job.tensor, replicas=job.replicas)
    layout.check(recipe.model, plan)
    world = join(layout)
    crew = world.crew
    if crew.device == "cpu":
        torch.set_num_threads(1)
    made = dataset.open_manifest(job.data)
    words = tokenizers.load(job.data)
    dataset.require_tokenizer(words, made, job.data)
    data = dataset.mixture(job.data, recipe.mixture, sequence=plan.sequence, seed=plan.seed)
    if recipe.canaries.count:
        data = _with_canaries(data, recipe, words)
    model = network.build(recipe.model, made.tokenizer.vocabulary, plan.seed).to(crew.device)
    flops = meter.flops_of_token(model, plan.sequence)
    objective = network.prepare(model, plan, world.mesh, world.tensor)
    shelf = Shelf(
        job.out / SNAPSHOTS,
        rank=crew.rank,
        ranks=crew.ranks,
        exchange=world.exchange,
        keep=recipe.snapshots.keep,
        leads=crew.rank % layout.tensor == 0,
    )
    told = _told(job, crew, flops) if crew.rank == 0 else None
    training = Training(
        objective,
        network.optimisers(objective, plan),
        data,
        recipe,
        crew,
        shelf,
        _listener(told, on_step),
    )
    try:
        training.resume()
        last = training.run()
        result = _publish(job, objective, made.digest, last, crew)
    finally:
        shelf.close()
        if told is not None:
            told.close()
            lines = meter.read(job.out / meter.FILE)
            write_atomic(job.out / CURVE, meter.curve(lines, f"{recipe.name}: loss").encode())
    return result


def _with_canaries(data: Mixture, recipe: Recipe, words: Tokenizer) -> Mixture:
    """Return the mixture with the recipe's canaries as a stream of their own."""
    found: list[int] = []
    for encoding in words.encode_batch_fast(canaries.documents(recipe.canaries)):
        found += [BOS, *encoding.ids, EOS]
    # Some windows at least: a short pass is repeated.
    passes = -(-4 * (data.sequence + 1) // len(found))
    stream = Stream.of(np.asarray(found * passes, "<u4"))
    return replace(
        data,
        sources={**data.sources, CANARIES: stream},
        weights={**data.weights, CANARIES: recipe.canaries.weight},
    )


def _told(job: Job, crew: Crew, flops: float) -> Meter:
    # Of float8 too: so that precisions compare.
    dtype = torch.float32 if job.recipe.train.precision == "float32" else torch.bfloat16
    peak = meter.matmul_peak(crew.device, dtype) * crew.ranks
    return Meter(job.out, job.recipe, flops, peak=peak, watts=job.watts, first=0)


def _listener(told: Meter | None, on_step: Callable[[meter.Line], None]) -> Listener:
    def step(taken: Step) -> None:
        if told is not None:
            on_step(told.step(**asdict(taken)))

    def event(what: dict[str, object]) -> None:
        if told is not None:
            told.event(**what)

    return Listener(step=step, event=event)


def _publish(
    job: Job, objective: network.Objective, data: str, last: float, crew: Crew
) -> dict[str, Any]:
    """Gather the weights and write a release at the first process."""
    whole: dict[str, torch.Tensor] = {}
    for name, parameter in objective.named_parameters():
        full = parameter.full_tensor() if isinstance(parameter, DTensor) else parameter
        if crew.rank == 0:
            plain = name.replace("_orig_mod.", "").removeprefix("model.")
            whole[plain] = full.detach().float().cpu()
    if crew.rank != 0:
        return {}
    words = tokenizers.load(job.data)
    clean = network.build(job.recipe.model, words.get_vocab_size(), job.recipe.train.seed)
    clean.load_state_dict(whole, strict=False)
    origin = releases.origin(job.recipe, (job.data / manifest.FILE).read_bytes())
    release = weights.publish(clean, words, job.out / MODELS, beside=origin)
    result = {
        "recipe": job.recipe.name,
        "recipe_sha256": job.recipe.digest,
        "corpus_sha256": data,
        "manifest_sha256": release.name,
        "parameters": sum(p.numel() for p in clean.parameters()),
        "last_loss_nats": last,
        "path": str(release),
    }
    write_atomic(job.out / RESULT, json.dumps(result).encode())
    return result


def main() -> None:
    """Run one process; a named fault ends it with status 1."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--watts", type=float, default=0.0)
    parser.add_argument("--tensor", type=int, default=1)
    parser.add_argument("--replicas", type=int, default=1)
    args = parser.parse_args()
    telemetry.start("renmei-pretrain")
    try:
        recipe = parse(args.recipe.read_text(), str(args.recipe))
        pretrain(Job(recipe=recipe, **{n: v for n, v in vars(args).items() if n != "recipe"}))
    except FederationError as fault:
        # The first process to fail says why; the others only met its absence.
        named = {"code": fault.code, "what": fault.what, "why": fault.why, "mend": fault.mend}
        if not (args.out / FAULT).exists():
            args.out.mkdir(parents=True, exist_ok=True)
            write_atomic(args.out / FAULT, json.dumps(named).encode())
        sys.stderr.write(f"{fault}\n")
        sys.exit(1)
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


if __name__ == "__main__":
    main()
