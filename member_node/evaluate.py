"""Bits per byte of held-out documents at the member: the base, an adapter, an adapter with the private one.

Decides nothing; scores stay by document, so that intervals can be drawn over documents. Reads test files
of the member's own and returns numbers, never text.
"""

from collections.abc import Sequence
from pathlib import Path

import torch

from base_model import tokenizer as tokenizers
from base_model.evaluate import DocumentScore, score
from fedproto.governance.plan import RunPlan
from fedproto.layout import AdapterLayout, FlatVector
from member_node import adapter, data, personal
from member_node.studio import learner


def texts(paths: Sequence[Path], *, limit_bytes: int = 0) -> list[str]:
    """Read the texts of test files, whole documents up to `limit_bytes` a file (0: all of them)."""
    chosen: list[str] = []
    for path in paths:
        size = 0
        for document in data.read_documents([path]):
            size += len(document.text.encode())
            if limit_bytes and size > limit_bytes:
                break
            chosen.append(document.text)
    return chosen


class Bench:
    """One base model with places for a shared and a private adapter; scores one after another."""

    def __init__(self, plan: RunPlan, base_dir: Path) -> None:
        ready = learner(plan, base_dir, compiled=False)
        self._plan = plan
        self._model = ready.model
        self._tokenizer = tokenizers.load(base_dir)
        self.layout: AdapterLayout = ready.layout

    def read(self, directory: Path) -> FlatVector:
        """Read an adapter of this plan's layout."""
        return adapter.read(directory, self.layout)

    def base(self, documents: Sequence[str]) -> list[DocumentScore]:
        """Score documents with the base model alone."""
        with self._model.disable_adapter():
            return self._score(documents)

    def adapted(self, documents: Sequence[str], shared: FlatVector) -> list[DocumentScore]:
        """Score documents with one adapter."""
        adapter.load_flat(self._model, self.layout, shared)
        return self._score(documents)

    def personal(
        self, documents: Sequence[str], shared: FlatVector, private: FlatVector
    ) -> list[DocumentScore]:
        """Score documents with a shared and a private adapter in parallel."""
        adapter.load_flat(self._model, self.layout, shared)
        personal.attach(self._model, self._plan)
        try:
            adapter.load_flat(self._model, self.layout, private, personal.PRIVATE)
            return self._score(documents)
        finally:
            personal.detach(self._model)

    def _score(self, documents: Sequence[str]) -> list[DocumentScore]:
        torch.set_num_threads(1)
        window = self._plan.training.sequence
        return score(self._model, self._tokenizer, documents, window=window)
