"""What the agent asks of its trainer and of Flower; each has a real shell and a fake in the tests."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from fedproto.governance.plan import RunPlan
from fedproto.layout import FlatVector
from member_node.ballot import Found
from member_node.session import TrainedDelta


class Trainer(Protocol):
    """The member's trainer, a process of its own with the data and no network."""

    def prepare(self, plan: RunPlan, base_dir: Path) -> Found:
        """Load the base model and say what adapter, layout and dataset it leads to."""

    def train(self, round_no: int, adapter: FlatVector) -> TrainedDelta:
        """Train for one round from a global adapter."""

    def personalise(self, adapter: FlatVector) -> Path:
        """Train the private adapter beside the final global one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One Flower message: a round authorisation and the trace that it belongs to."""

    authorisation: bytes
    traceparent: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What goes back: a signed receipt, or the code and why of a refusal; never data."""

    receipt: bytes = b""
    code: str = ""
    why: str = ""


class TaskSource(Protocol):
    """Where tasks come from; runs no code that came with them."""

    def serve(self, answer: Callable[[Task], Answer]) -> None:
        """Answer tasks until stopped."""

    def stop(self) -> None:
        """Stop serving."""
