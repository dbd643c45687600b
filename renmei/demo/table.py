"""The demo's table: bits per byte on held-out text, every figure measured in this run.

Takes scores by document and gives rows with bootstrap intervals over documents. It arranges nothing:
where a local adapter wins on its own domain, the table shows it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from base_model.evaluate import DocumentScore, bits_per_byte, bootstrap_interval
from renmei.demo.settings import MEMBERS, Settings

# An arm's scores by test set: the domains, "common", and each member's own mixture.
Scores = Mapping[str, Sequence[DocumentScore]]

BASE = "base"
FEDERATED = "federated"
CENTRALISED = "centralised"
MEAN = "mean"
OWN = "own mixture"


def local_arm(member: str) -> str:
    """Name the arm of a member that trains alone."""
    return f"local-only {member}"


def private_arm(member: str) -> str:
    """Name the arm of a member's private adapter on top of the federated one."""
    return f"federated + private {member}"


def mixture(member: str) -> str:
    """Name the test set of a member's own mixture of documents."""
    return f"mixture {member}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """Bits per byte and its 95 % interval over documents."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One arm: its name and a cell for each column."""

    name: str
    cells: Mapping[str, Cell]

    def to_json(self) -> dict[str, object]:
        """Return the row for `--json`."""
        return {
            "arm": self.name,
            "bits_per_byte": {
                column: {"value": cell.value, "low": cell.low, "high": cell.high}
                for column, cell in self.cells.items()
            },
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A comparison that the demo is held to, and what this run measured."""

    en: str
    ja: str
    held: bool
    always: bool
    margins: Mapping[str, float]

    @property
    def words(self) -> tuple[str, str]:
        """The claim, whether it held and by how much, in English and Japanese."""
        margins = ", ".join(f"{name} {margin:+.1%}" for name, margin in self.margins.items())
        mark = "✔" if self.held else "✘"
        return f"{mark} {self.en}: {margins}", f"{mark} {self.ja}: {margins}"

    def required(self, length: str) -> bool:
        """Say whether the demo fails without it; the short one is too short to promise quality."""
        return self.always and length != "fast"

    def to_json(self) -> dict[str, object]:
        """Return the claim for `--json`; margins are shares of the compared value."""
        return {"claim": self.en, "held": self.held, "margins": dict(self.margins)}


def rows(arms: Mapping[str, Scores], members: Sequence[str], seed: int) -> list[Row]:
    """Return a row for each arm; columns are the domains, their mean, and the own mixtures."""
    return [Row(name=name, cells=_cells(name, arms[name], members, seed)) for name in arms]


def _cells(name: str, scores: Scores, members: Sequence[str], seed: int) -> dict[str, Cell]:
    columns = {member: _cell([scores[member]], seed) for member in members}
    columns[MEAN] = _cell([scores[member] for member in members], seed)
    for member in members:
        # A private adapter is its member's alone: it is not shown on others' mixtures.
        if not name.startswith("federated + private") or name == private_arm(member):
            columns[mixture(member)] = _cell([scores[mixture(member)]], seed)
    return columns


def _cell(sets: Sequence[Sequence[DocumentScore]], seed: int) -> Cell:
    low, high = bootstrap_interval(sets, seed)
    value = sum(bits_per_byte(scores) for scores in sets) / len(sets)
    return Cell(value=value, low=low, high=high)


def claims(table: Sequence[Row], members: Sequence[str]) -> list[Claim]:
    """Say which of the demo's expectations this run's figures bear out."""
    cells = {row.name: row.cells for row in table}

    def gain(arm: str, other: str, column: str) -> float:
        return 1 - cells[arm][column].value / cells[other][column].value

    against_base = {m: gain(FEDERATED, BASE, m) for m in members}
    against_local = {m: gain(FEDERATED, local_arm(m), MEAN) for m in members}
    own = {m: gain(private_arm(m), local_arm(m), mixture(m)) for m in members}
    return [
        Claim(
            en="the federated adapter beats the base for every member",
            ja="連合アダプターは全メンバーで基盤モデルを上回る",
            always=True,
            held=all(margin > 0 for margin in against_base.values()),
            margins=against_base,
        ),
        Claim(
            en="the federated adapter beats every local-only adapter on the mean of the domains",
            ja="連合アダプターは4分野の平均で全ての単独アダプターを上回る",
            always=True,
            held=all(margin > 0 for margin in against_local.values()),
            margins=against_local,
        ),
        Claim(
            en="federated + private beats local-only on each member's own mixture",
            ja="連合+専用は各メンバー自身の文書構成で単独アダプターを上回る",
            always=False,
            held=all(margin > 0 for margin in own.values()),
            margins=own,
        ),
    ]


def steps_of(name: str, settings: Settings) -> str:
    """Return how many local steps went into an arm; a private adapter has some of its own."""
    total = settings.rounds * settings.steps
    if name == BASE:
        return "0"
    if name == CENTRALISED:
        return str(total * len(MEMBERS))
    return f"{total}+{settings.steps}" if name.startswith("federated + private") else str(total)


def render(table: Sequence[Row], members: Sequence[str], settings: Settings) -> str:
    """Return the table as text: first the domains and their mean, then each member's own mixture.

    A cell is the value and half its interval's width; `steps` are the local steps that it took.
    """
    steps = {row.name: steps_of(row.name, settings) for row in table}
    domains = _block(table, [*members, MEAN], [*members, MEAN], steps)
    heads = [f"{member}'s mixture" for member in members]
    mixtures = _block(table, [mixture(member) for member in members], heads, steps)
    return f"{domains}\n\n{mixtures}"


def _block(
    table: Sequence[Row], columns: Sequence[str], heads: Sequence[str], steps: Mapping[str, str]
) -> str:
    width = max(len(row.name) for row in table)
    size = max(15, 2 + max(len(head) for head in heads))
    lines = [f"{'':<{width}}{'steps':>8}" + "".join(f"{head:>{size}}" for head in heads)]
    for row in table:
        cells = [row.cells.get(column) for column in columns]
        if any(cells):
            text = "".join(f"{_text(cell):>{size}}" for cell in cells)
            lines.append(f"{row.name:<{width}}{steps[row.name]:>8}{text}")
    return "\n".join(lines)


def _text(cell: Cell | None) -> str:
    return "-" if cell is None else f"{cell.value:.3f} ±{(cell.high - cell.low) / 2:.3f}"
