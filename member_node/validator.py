"""The member as a validating witness: says of a checkpoint that every entry under it was allowed.

Decides nothing: what it signs is what the node's own mirror accepted, which verified each signature,
replayed each act under the charter, and never goes back. The coordinator is told, and keeps the line
beside the cosignatures. A shell module.
"""

import threading
from collections.abc import Callable

import grpc

from audit.mirror import Mirror
from audit.note import NoteSigner, parse
from audit.witness import unix_seconds
from fedproto.errors import FederationError
from fedproto.transport import from_rpc_error
from fedproto.v1 import witness_pb2_grpc
from fedproto.v1.witness_pb2 import ValidateRequest
from member_node.gate import GatedChannel
from member_node.log import Log

_PATIENCE_S = 10.0
_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 30.0


class Validator:
    """Validates each checkpoint that the mirror has accepted, once, in a thread of its own."""

    def __init__(
        self,
        channel: GatedChannel,
        key: NoteSigner,
        mirror: Mirror,
        log: Log,
        clock_s: Callable[[], int] = unix_seconds,
    ) -> None:
        self._stub = witness_pb2_grpc.WitnessStub(channel)
        self._to = channel.to
        self._key, self._mirror, self._log, self._clock_s = key, mirror, log, clock_s
        self._validated = 0
        self._stop = threading.Event()

    def run(self) -> None:
        """Validate until `stop`."""
        pause = _PAUSE_S
        while not self._stop.wait(pause):
            try:
                self.look()
                pause = _PAUSE_S
            except FederationError as error:
                self._log.failed("ledger.validating", error)
                pause = min(2 * pause, _LONGEST_PAUSE_S)

    def stop(self) -> None:
        """Stop validating."""
        self._stop.set()

    def look(self) -> None:
        """Validate the newest accepted checkpoint, if that was not done; raise why it was not taken."""
        note = self._mirror.note
        if note is None:
            return
        text = parse(note).text
        size = int(text.split(b"\n", 2)[1])
        if size <= self._validated:
            return
        line = self._key.cosign(text, self._clock_s())
        try:
            self._stub.Validate(ValidateRequest(size=size, line=line.encode()), timeout=_PATIENCE_S)
        except grpc.RpcError as error:
            raise from_rpc_error(error, self._to) from None
        self._validated = size
