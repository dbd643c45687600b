"""The outer step: FedAvg with Nesterov momentum on the flat vector (DiLoCo, Douillard et al. 2023).

Decides the next global adapter from the mean delta alone, so it sees no member. float32 throughout and
without randomness: the same inputs give the same bytes. Pure.
"""

from dataclasses import dataclass

import numpy as np

from fedproto.layout import FlatVector


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A global adapter and the momentum that led to it."""

    adapter: FlatVector
    momentum: FlatVector


def start(adapter: FlatVector) -> Step:
    """Return the state that a run starts from."""
    return Step(adapter=adapter, momentum=np.zeros_like(adapter))


def advance(state: Step, mean_delta: FlatVector, *, rate: float, decay: float) -> Step:
    """Take one outer step.

    With momentum v, decay m and rate r: v' = m v + delta; adapter' = adapter + r (delta + m v').
    `decay` 0 and `rate` 1 is plain FedAvg.
    """
    m, r = np.float32(decay), np.float32(rate)
    momentum = m * state.momentum + mean_delta
    adapter = state.adapter + r * (mean_delta + m * momentum)
    return Step(adapter=adapter.astype(np.float32), momentum=momentum.astype(np.float32))
