"""What privacy is spent on a dataset: the curve, entry by entry, against the charter's limits.

Decides nothing: a total is its member's own accountant's, which composes and does not add. Pure.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from audit.records import Dataset, State
from fedproto.ids import Digest, MemberId, RunId


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One expense; ε in millionths, δ is 10^-`delta_exp`."""

    index: int
    run: RunId
    round: int
    mechanism: str
    accountant: str
    sigma_micro: int
    q_ppm: int
    steps: int
    delta_exp: int
    epsilon_micro: int
    total_epsilon_micro: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """A dataset's expenses in the order of the ledger, and what the charter in force leaves."""

    dataset: Digest
    member: MemberId
    declared: int
    withdrawn: int | None
    epsilon_micro: int
    limit_micro: int
    left_micro: int
    points: tuple[Point, ...]

    @property
    def cites(self) -> tuple[int, ...]:
        """Every entry that this rests on, in order."""
        ends = () if self.withdrawn is None else (self.withdrawn,)
        return tuple(sorted({self.declared, *ends, *(point.index for point in self.points)}))


def curves(state: State, dataset: Digest | None = None) -> Iterator[Curve]:
    """Yield the curve of every dataset in the order of their declarations, or of one."""
    named = [item for name, item in state.datasets.items() if dataset in {None, name}]
    for item in sorted(named, key=lambda found: found.declared.index):
        yield _curve(item, state.charter.limits.epsilon_micro_per_dataset)


def _curve(dataset: Dataset, limit: int) -> Curve:
    return Curve(
        dataset=dataset.declared.body.commitment,
        member=dataset.declared.member,
        declared=dataset.declared.index,
        withdrawn=dataset.withdrawn,
        epsilon_micro=dataset.epsilon_micro,
        limit_micro=limit,
        # A later charter may have set a limit below what was spent.
        left_micro=max(0, limit - dataset.epsilon_micro),
        points=tuple(
            Point(
                index=act.index,
                run=act.body.run,
                round=act.body.round,
                mechanism=act.body.mechanism,
                accountant=act.body.accountant.value,
                sigma_micro=act.body.sigma_micro,
                q_ppm=act.body.q_ppm,
                steps=act.body.steps,
                delta_exp=act.body.delta_exp,
                epsilon_micro=act.body.epsilon_micro,
                total_epsilon_micro=act.body.total_epsilon_micro,
            )
            for act in dataset.spent
        ),
    )
