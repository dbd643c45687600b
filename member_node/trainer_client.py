"""The agent's side of the trainer's socket: implements the `Trainer` port.

Trusts the trainer, which is the member's own, with everything but its frames. A trainer that has ended
is a named error; the next call connects again. A shell module.
"""

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from fedproto import jcs
from fedproto.errors import CODES, LocalFault
from fedproto.governance.plan import RunPlan
from fedproto.ids import Digest
from fedproto.layout import AdapterLayout, FlatVector
from fedproto.schema import to_json
from fedproto.v1 import trainer_pb2 as pb
from member_node.ballot import Found
from member_node.session import TrainedDelta
from member_node.trainer_wire import BadFrame, receive, send

OnProgress = Callable[[int, int, float], None]
_PATIENCE_S = 60.0
_POLL_S = 0.05


class TrainerClient:
    """One connection, one request at a time. Thread-safe."""

    def __init__(
        self,
        path: Path,
        on_progress: OnProgress = lambda step, steps, eta_s: None,
        *,
        patience_s: float = _PATIENCE_S,
    ) -> None:
        self._path = path
        self._on_progress = on_progress
        self._patience_s = patience_s
        self._lock = threading.Lock()
        self._connection: socket.socket | None = None

    def prepare(self, plan: RunPlan, base_dir: Path) -> Found:
        """Load the base model and say what adapter, layout and dataset it leads to."""
        request = pb.PrepareRequest(plan=jcs.dumps(to_json(plan)), base_dir=str(base_dir))
        prepared = self._ask(pb.TrainerRequest(prepare=request), "prepared").prepared
        layout = AdapterLayout.from_bytes(prepared.layout)
        return Found(
            layout_sha256=layout.digest,
            parameters=layout.size,
            initial=np.frombuffer(prepared.initial_adapter, "<f4").astype(np.float32),
            dataset=Digest(prepared.dataset),
        )

    def train(self, round_no: int, adapter: FlatVector) -> TrainedDelta:
        """Train for one round from a global adapter."""
        request = pb.TrainRequest(round=round_no, adapter=adapter.astype("<f4").tobytes())
        delta = self._ask(pb.TrainerRequest(train=request), "delta").delta
        return TrainedDelta(
            delta=np.frombuffer(delta.delta, "<f4").astype(np.float32), weight=delta.weight
        )

    def personalise(self, adapter: FlatVector) -> Path:
        """Train the private adapter beside the final global one; return where it lies."""
        request = pb.PersonaliseRequest(adapter=adapter.astype("<f4").tobytes())
        reply = self._ask(pb.TrainerRequest(personalise=request), "personalised")
        return Path(reply.personalised.path)

    def close(self) -> None:
        """Hang up: a training in work ends at its next step, and who waits for it is told."""
        connection, self._connection = self._connection, None
        if connection is not None:
            # Closing alone would not wake a thread that waits for the reply.
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()

    def _ask(self, request: pb.TrainerRequest, kind: str) -> pb.TrainerReply:
        """Send a request and return its reply; anything else ends the connection."""
        with self._lock:
            answered = False
            try:
                reply = self._converse(request)
                answered = reply is not None
            except (OSError, BadFrame):
                reply = None
            finally:
                # A reply that nobody waited for must never be taken for the next request's.
                if not answered:
                    self.close()
        if reply is None or reply.WhichOneof("reply") not in (kind, "fault"):
            raise _gone()
        return _checked(reply)

    def _converse(self, request: pb.TrainerRequest) -> pb.TrainerReply | None:
        connection = self._connected()
        send(connection, request)
        while (reply := receive(connection, pb.TrainerReply)) is not None:
            if reply.WhichOneof("reply") != "progress":
                break
            progress = reply.progress
            self._on_progress(progress.step, progress.steps, progress.eta_s)
        return reply

    def _connected(self) -> socket.socket:
        if self._connection is None:
            deadline = time.monotonic() + self._patience_s
            while True:
                connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                try:
                    connection.connect(str(self._path))
                except (FileNotFoundError, ConnectionRefusedError):
                    connection.close()
                    if time.monotonic() > deadline:
                        raise
                    # It may be starting; there is nothing to be told by until its socket is there.
                    time.sleep(_POLL_S)
                else:
                    self._connection = connection
                    break
        return self._connection


def _checked(reply: pb.TrainerReply) -> pb.TrainerReply:
    if reply.WhichOneof("reply") == "fault":
        fault = reply.fault
        code = fault.code if fault.code in CODES else "RNM-BUG-0001"
        raise LocalFault(code, what=fault.what, why=fault.why, mend=fault.mend)
    return reply


def _gone() -> LocalFault:
    return LocalFault(
        "RNM-PROC-0002",
        what="the trainer did not answer",
        why="its process has ended, or does not listen",
        mend="read trainer.log in the member's directory; the node connects again by itself",
    )
