"""Getting ready for a run: the base model here, the trainer warm, the dataset declared.

Decides nothing: what the trainer finds is compared by ballot and consent. Does the work once for a plan,
at the vote, so that a round starts at once. A shell module.
"""

import threading
from pathlib import Path

from fedproto.errors import FederationError, LocalFault
from fedproto.governance.plan import RunPlan
from fedproto.ids import Digest
from fedproto.layout import FlatVector
from fedproto.party import Party
from member_node import policy as policies
from member_node.acts import ActClient, made_before
from member_node.artifact_client import ArtifactClient
from member_node.ballot import Found
from member_node.ledger_client import LedgerClient
from member_node.ports import Trainer

TRAIN_FILE = Path("data") / "train.jsonl"


class Preparation:
    """Keeps what the trainer found for the plan that it holds; used by several threads."""

    def __init__(
        self,
        *,
        party: Party,
        ledger: LedgerClient,
        acts: ActClient,
        artifacts: ArtifactClient,
        trainer: Trainer,
    ) -> None:
        self._party = party
        self._ledger = ledger
        self._acts = acts
        self._artifacts = artifacts
        self._trainer = trainer
        self._lock = threading.Lock()
        self._plan: Digest | None = None
        self._found: Found | None = None

    def ensure(self, plan: RunPlan) -> Found:
        """Return what the trainer finds for a plan; fetch the base model and load it if need be."""
        with self._lock:
            if self._found is None or self._plan != plan.digest:
                base = self._artifacts.base_model(plan.base_manifest_sha256)
                self._found = self._trainer.prepare(plan, base)
                self._plan = plan.digest
            return self._found

    def forget(self) -> None:
        """Prepare anew the next time: the trainer was restarted."""
        with self._lock:
            self._plan = self._found = None

    def initial_adapter(self, plan: RunPlan) -> FlatVector:
        """Return the adapter that the run starts from, as the node's own trainer made it."""
        return self.ensure(plan).initial

    def declare(self, dataset: Digest) -> None:
        """Declare the dataset, unless the ledger has it."""
        if self._ledger.state.dataset(dataset) is not None:
            return
        policy = policies.load(self._party.root)
        if policy.dataset is None:
            raise LocalFault(
                "RNM-CONSENT-0004",
                what="no dataset was declared",
                why="policy.json does not say on which legal basis this node trains",
                mend="add `dataset` to policy.json",
            )
        try:
            self._acts.declare_dataset(dataset, policy.dataset, policy.digest, self._size_bucket())
        except FederationError as error:
            # After a crash the declaration may stand in the ledger already.
            if not made_before(error):
                raise

    def _size_bucket(self) -> int:
        """Return log2 of the corpus's size, rounded down: all that is told of it."""
        path = self._party.root / TRAIN_FILE
        try:
            size = path.stat().st_size
        except OSError:
            size = 0
        if size == 0:
            raise LocalFault(
                "RNM-DATA-0001",
                what="no dataset was declared",
                why=f"{path} is missing or empty",
                mend="put this member's corpus there, one JSON object a line",
            )
        return size.bit_length() - 1
