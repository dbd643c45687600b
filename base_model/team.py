"""A team: the ranks that share each batch of a training, and the mean of their gradients.

Decides the order of the sum (by rank), so that every rank steps by the same bits. Gradients meet in
shared memory of this machine: no socket, no pickle. A rank that ends early stops the others.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.synchronize import Semaphore
from typing import Any, Protocol

import numpy as np
import torch

from fedproto.errors import LocalFault

Buffer = np.ndarray[Any, np.dtype[np.float32]]

_PATIENCE_S = 1.0


class Team(Protocol):
    """What the training loop asks of those that it shares a batch with."""

    @property
    def rank(self) -> int:
        """This process's number, from 0."""

    @property
    def ranks(self) -> int:
        """How many processes there are."""

    def mean(self, loss: float, gradients: Sequence[torch.Tensor | None]) -> float:
        """Replace the gradients by their mean over the ranks; return the mean loss."""


@dataclass(frozen=True, slots=True)
class Alone:
    """A team of one."""

    rank: int = 0
    ranks: int = 1

    def mean(self, loss: float, gradients: Sequence[torch.Tensor | None]) -> float:  # noqa: ARG002
        """Return the loss; the gradients are the mean already."""
        return loss


ALONE = Alone()


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedMemoryTeam:
    """Ranks on one machine: a row of `buffer` (ranks, values + 1) each, and signals between them.

    `signals[i][j]` is released by rank i for rank j; `others_live` says whether to go on waiting.
    """

    rank: int
    buffer: Buffer
    signals: Sequence[Sequence[Semaphore]]
    others_live: Callable[[], bool]

    @property
    def ranks(self) -> int:
        """How many processes there are."""
        return int(self.buffer.shape[0])

    def mean(self, loss: float, gradients: Sequence[torch.Tensor | None]) -> float:
        """Replace the gradients by their mean over the ranks; return the mean loss."""
        present = [gradient for gradient in gradients if gradient is not None]
        flat = torch.cat([gradient.flatten() for gradient in present])
        self.buffer[self.rank, :-1] = flat.cpu().numpy()
        self.buffer[self.rank, -1] = loss
        self._meet()
        total = self.buffer.sum(axis=0, dtype=np.float32) / np.float32(self.ranks)
        # Nobody writes the next step's gradients before all have read these.
        self._meet()
        mean = torch.from_numpy(total)
        start = 0
        for gradient in present:
            end = start + gradient.numel()
            gradient.copy_(mean[start:end].view_as(gradient))
            start = end
        return float(total[-1])

    def _meet(self) -> None:
        others = [rank for rank in range(self.ranks) if rank != self.rank]
        for other in others:
            self.signals[self.rank][other].release()
        for other in others:
            while not self.signals[other][self.rank].acquire(timeout=_PATIENCE_S):
                if not self.others_live():
                    raise LocalFault(
                        "RNM-PROC-0002",
                        what="the training stopped",
                        why="another process of it has ended",
                        mend="run it again: it goes on from its last snapshot",
                    )
