"""The real processes around the agent: the trainer, the courier, and Flower's tasks.

Implements `agent.Shells`. In production the trainer is a unit of its own and already listens; where it
does not, as in the demo, it is started as a child. A shell module.
"""

import socket
import sys
from pathlib import Path

from fedproto import process
from fedproto.party import runtime_socket
from member_node.agent import Site
from member_node.courier import Courier
from member_node.flower_adapter import FlowerTasks
from member_node.ports import TaskSource, Trainer
from member_node.trainer_client import TrainerClient

TRAINER = "trainer"


class StockShells:
    """Starts what is missing; `stop` ends what was started."""

    def __init__(self, *, compiled: bool = True) -> None:
        self._compiled = compiled
        self._trainer: process.Child | None = None
        self._client: TrainerClient | None = None
        self._courier: Courier | None = None

    def trainer(self, site: Site) -> Trainer:
        """Return the trainer behind its socket, started if nobody listens there."""
        root = site.party.root
        path = runtime_socket(root, TRAINER)
        if not _listens(path):
            command = [sys.executable, "-m", "member_node.trainer"]
            command += ["--dir", str(root), "--socket", str(path)]
            if not self._compiled:
                command.append("--no-compile")
            self._trainer = process.spawn("trainer", command, root / "trainer.log")
        self._client = TrainerClient(path)
        return self._client

    def tasks(self, site: Site) -> TaskSource:
        """Return the SuperNode's tasks, the SuperNode started behind the journalled tunnel."""
        party = site.party
        self._courier = Courier(
            party.root / "flower",
            keys=party.keys,
            gateway=party.profile.gateway,
            proxy=site.tunnel.url,
        )
        self._courier.start()
        return FlowerTasks(self._courier.runtime_address, self._courier.secret_file)

    def stop(self) -> None:
        """End the courier, then the trainer."""
        if self._courier is not None:
            self._courier.stop()
        if self._client is not None:
            self._client.close()
        if self._trainer is not None:
            self._trainer.stop()


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True
