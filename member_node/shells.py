"""The processes around the agent: its trainer, and the courier that brings Flower's tasks.

Decides nothing. The trainer is started here where no unit of the system did (in production it runs as
another user, without network); it is started again when it ends. The courier, the stock SuperNode, sees
the world through the node's tunnel alone. A shell module.
"""

import socket
import sys
import threading
from pathlib import Path

from fedproto import process
from fedproto.offline import ENVIRONMENT
from fedproto.party import runtime_socket
from member_node.agent import Site
from member_node.courier import Courier, make_key
from member_node.ports import TaskSource, Trainer
from member_node.trainer_client import TrainerClient

TRAINER = "trainer"
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 30.0
_POLL_S = 0.1


class TrainerKeeper:
    """Keeps a trainer running as a child, from a thread that lives as long as it shall."""

    def __init__(self, root: Path, path: Path, *, compiled: bool) -> None:
        self._log = root / "trainer.log"
        self._command = [
            *(sys.executable, "-m", "member_node.trainer"),
            *("--dir", str(root), "--socket", str(path)),
            *(() if compiled else ("--no-compile",)),
        ]
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep, name=TRAINER, daemon=True)

    def start(self) -> None:
        """Start the trainer."""
        self._thread.start()

    def stop(self) -> None:
        """End the trainer."""
        self._stop.set()
        self._thread.join()

    def _keep(self) -> None:
        pause = _FIRST_PAUSE_S
        while not self._stop.is_set():
            child = process.spawn("the trainer", self._command, self._log, ENVIRONMENT)
            while child.running and not self._stop.wait(_POLL_S):
                pass
            child.stop(grace_s=2.0)
            # A trainer that ends at once, again and again, must not keep the machine busy.
            self._stop.wait(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_S)


class StockShells:
    """The real shells: the member's trainer on its socket, and Flower's stock SuperNode."""

    def __init__(self, *, compiled: bool = True) -> None:
        self._compiled = compiled
        self._keeper: TrainerKeeper | None = None
        self._courier: Courier | None = None
        self._client: TrainerClient | None = None

    def trainer(self, site: Site) -> Trainer:
        """Return a client of the trainer; start one if nobody listens at its socket."""
        root = site.party.root
        path = runtime_socket(root, TRAINER)
        if not _listens(path):
            self._keeper = TrainerKeeper(root, path, compiled=self._compiled)
            self._keeper.start()
        self._client = TrainerClient(path)
        return self._client

    def tasks(self, site: Site) -> TaskSource:
        """Start the courier behind the tunnel; return where it offers its tasks."""
        # Flower is slow to import and needed here alone.
        from member_node.flower_adapter import FlowerTasks

        party = site.party
        make_key(party.keys)
        courier = Courier(
            party.root / "courier",
            keys=party.keys,
            gateway=party.profile.gateway,
            proxy=site.tunnel.url,
        )
        courier.start()
        self._courier = courier
        return FlowerTasks(courier.runtime_address, courier.secret_file, site.log)

    def stop(self) -> None:
        """End the courier and the trainer, if they were started here."""
        if self._client is not None:
            self._client.close()
        if self._courier is not None:
            self._courier.stop()
        if self._keeper is not None:
            self._keeper.stop()


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        return probe.connect_ex(str(path)) == 0
