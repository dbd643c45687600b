"""Learning-rate schedules, and what counts as a spike of the loss. Pure."""

from collections.abc import Sequence
from math import cos, isfinite, pi, sqrt

from base_model.engine.recipe import Keeping, Plan


def rate(plan: Plan, step: int) -> float:
    """Return the factor of the peak rates at a step, counted from 0."""
    rise = min(1.0, (step + 1) / plan.warm_up)
    if plan.schedule == "cosine":
        share = min(1.0, max(0.0, (step - plan.warm_up) / max(1, plan.steps - plan.warm_up)))
        return rise * (plan.floor + (1 - plan.floor) * (1 + cos(pi * share)) / 2)
    start = plan.steps * (1 - plan.decay)
    fall = 1.0 if step < start else (plan.steps - step) / (plan.steps - start)
    return rise * max(fall, plan.floor)


def is_spike(loss: float, recent: Sequence[float], keeping: Keeping) -> bool:
    """Whether a loss is not finite, or far above the recent ones (once there are enough of them)."""
    if not isfinite(loss):
        return True
    if len(recent) < keeping.window:
        return False
    mean = sum(recent) / len(recent)
    spread = sqrt(sum((value - mean) ** 2 for value in recent) / len(recent))
    # Where losses hardly vary any more, a tenth of the mean is no spike either.
    return loss > mean + max(keeping.spike * spread, 0.1 * abs(mean))
