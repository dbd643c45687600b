"""Pretraining by a recipe, over one process or several on this machine.

A shell module. Decides how many threads a process has: one, since two collapse on a busy machine.
Processes start afresh (spawn), read the packed tokens from disk and share nothing but gradients.
"""

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess, parent_process
from multiprocessing.shared_memory import SharedMemory
from multiprocessing.synchronize import Semaphore
from pathlib import Path
from typing import Any

import numpy as np
import torch

from base_model import model, packing
from base_model.recipes import Recipe
from base_model.team import ALONE, SharedMemoryTeam, Team
from base_model.train import StepReport, train
from fedproto.durable import disk_fault
from fedproto.errors import FederationError

Signals = Sequence[Sequence[Semaphore]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What every process of a pretraining is told."""

    recipe: Recipe
    packed: Path
    seed: int
    compile_: bool
    snapshots: Path | None


def useful_processes() -> int:
    """Return how many processes are worth it here: two where there are two cores, else one."""
    return min(2, len(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else 1


def pretrain(
    job: Job, *, processes: int = 1, on_step: Callable[[StepReport], None] = lambda report: None
) -> tuple[Any, float]:
    """Train a base model on packed tokens; return it with its last loss.

    The same job gives the same losses, bit for bit, with the same number of processes; a batch is
    the same for every number. Raises what `train` raises, and RNM-PROC-0002 if a process ends early.
    """
    if job.recipe.schedule.batch % processes:
        raise ValueError("each process takes an equal part of a batch")
    if processes == 1:
        return _run(job, ALONE, on_step)
    context = multiprocessing.get_context("spawn")
    signals = [[context.Semaphore(0) for _ in range(processes)] for _ in range(processes)]
    try:
        memory = SharedMemory(create=True, size=processes * _row(job) * 4)
    except OSError as error:
        raise disk_fault(Path("/dev/shm"), error) from None  # noqa: S108  # where it would be
    others: list[BaseProcess] = []
    try:
        for rank in range(1, processes):
            words = (rank, processes, job, memory.name, signals)
            others.append(context.Process(target=_other, args=words, daemon=True))
            others[-1].start()
        team = _team(0, processes, job, memory, signals, lambda: all(o.is_alive() for o in others))
        return _run(job, team, on_step)
    finally:
        for other in others:
            other.terminate()
            other.join()
        _release(memory)
        memory.unlink()


def _run(job: Job, team: Team, on_step: Callable[[StepReport], None]) -> tuple[Any, float]:
    torch.set_num_threads(1)
    net = model.build(job.recipe.size, job.seed)
    loss_of = model.make_loss(net, compile_=job.compile_)
    batches = packing.Batches(
        stream=packing.read(job.packed), sequence=job.recipe.sequence, seed=job.seed
    )
    last = train(
        net,
        loss_of,
        batches,
        job.recipe.schedule,
        snapshots=job.snapshots,
        on_step=on_step,
        team=team,
    )
    return net, last


def _other(rank: int, ranks: int, job: Job, name: str, signals: Signals) -> None:
    """Be one of the processes that `pretrain` starts."""
    # An interrupt reaches the whole group; the first process ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    memory = SharedMemory(name=name)
    parent = parent_process()
    try:
        team = _team(
            rank, ranks, job, memory, signals, lambda: parent is not None and parent.is_alive()
        )
        _run(job, team, lambda report: None)
    except FederationError:
        # The first process meets the same fault, or sees this one end; it is the one that reports.
        sys.exit(1)
    finally:
        _release(memory)


def _row(job: Job) -> int:
    """Return how many numbers a process shares: a gradient for each parameter, and its loss."""
    with torch.device("meta"):
        net = model.build(job.recipe.size, job.seed)
    return 1 + sum(int(p.numel()) for p in net.parameters())


def _team(
    rank: int,
    ranks: int,
    job: Job,
    memory: SharedMemory,
    signals: Signals,
    others_live: Callable[[], bool],
) -> SharedMemoryTeam:
    buffer = np.ndarray((ranks, _row(job)), np.float32, memory.buf)
    return SharedMemoryTeam(rank=rank, buffer=buffer, signals=signals, others_live=others_live)


def _release(memory: SharedMemory) -> None:
    try:
        memory.close()
    except BufferError:
        # An array still looks into it (a traceback holds it): it goes when that array goes.
        return
