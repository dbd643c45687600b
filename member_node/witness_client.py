"""The member as a witness: cosigns the log's checkpoints over a stream that it opened itself.

Decides nothing: `audit.witness` verifies that a checkpoint extends the last one and persists before it
answers. Keeps the stream up while the node runs, and dials again with growing pauses. Answers only what
the coordinator asked, in the bytes of C2SP tlog-witness. A shell module.
"""

import queue
import threading
from collections.abc import Callable, Iterator

import grpc

from audit.witness import Witness
from fedproto.transport import from_rpc_error
from fedproto.v1 import witness_pb2_grpc
from fedproto.v1.witness_pb2 import WitnessAnswer, WitnessRequest
from member_node.gate import GatedChannel
from member_node.log import Log

_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 15.0
_OK = 200


class WitnessClient:
    """Attends the coordinator's log until it is told to stop."""

    def __init__(self, channel: GatedChannel, witness: Witness, origin: str, log: Log) -> None:
        """Attend the log of an origin with a witness that knows its key."""
        self._origin = origin
        self._stub = witness_pb2_grpc.WitnessStub(channel)
        self._to = channel.to
        self._witness = witness
        self._log = log
        self._stop = threading.Event()
        self._cancel: Callable[[], object] = _nothing

    def run(self) -> None:
        """Attend; come back only after `stop`."""
        pause = _FIRST_PAUSE_S
        while not self._stop.is_set():
            if self._attend():
                pause = _FIRST_PAUSE_S
            self._stop.wait(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_S)

    def stop(self) -> None:
        """End the stream."""
        self._stop.set()
        self._cancel()

    def _attend(self) -> bool:
        """Serve one stream to its end; say whether it ever carried a request."""
        answers: queue.SimpleQueue[WitnessAnswer | None] = queue.SimpleQueue()
        answers.put(WitnessAnswer(id=0, body=self._witness.latest(self._origin) or b""))
        call = self._stub.Attend(_until_none(answers))
        self._cancel = call.cancel
        served = False
        try:
            for request in call:
                answers.put(self._answer(request))
                served = True
        except grpc.RpcError as error:
            if not self._stop.is_set():
                self._log.failed("witness.lost", from_rpc_error(error, self._to))
        finally:
            answers.put(None)
        return served

    def _answer(self, request: WitnessRequest) -> WitnessAnswer:
        status, body = self._witness.add_checkpoint(request.add_checkpoint)
        if status != _OK:
            self._log.info("witness.refused", count=status)
        return WitnessAnswer(id=request.id, status=status, body=body)


def _nothing() -> None:
    """There is no stream yet."""


def _until_none(answers: "queue.SimpleQueue[WitnessAnswer | None]") -> Iterator[WitnessAnswer]:
    while (answer := answers.get()) is not None:
        yield answer
