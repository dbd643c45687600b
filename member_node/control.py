"""The node's own door: how `renmei node vote` and `status` reach the running agent.

Decides nothing. A unix socket in a directory of this user alone; one line of JSON each way. The agent
alone holds the keys and the journal, so that a vote by hand passes the same gate as any other message.
A shell module.
"""

import json
import os
import socket
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from fedproto.errors import CODES, FederationError, LocalFault
from fedproto.jcs import Json

NAME = "agent"
_MAX_LINE = 64 << 10
_PATIENCE_S = 120.0

Handler = Callable[[Mapping[str, str]], Json]


class ControlServer:
    """Answers requests of this user's own commands."""

    def __init__(self, path: Path, handlers: Mapping[str, Handler]) -> None:
        self._path = path
        self._handlers = handlers
        # The agent holds its directory's lock: a socket that is there belongs to nobody alive.
        path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        path.chmod(0o600)
        self._listener.listen(8)

    def start(self) -> None:
        """Serve in a thread of its own until `stop`."""
        threading.Thread(target=self._accept, name="control", daemon=True).start()

    def stop(self) -> None:
        """Close the door."""
        self._path.unlink(missing_ok=True)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            connection.settimeout(_PATIENCE_S)
            try:
                reply = self._answer(_read_line(connection))
                connection.sendall(json.dumps(reply).encode() + b"\n")
            except OSError:
                # The command was interrupted; what it asked for is done or not, and the ledger says.
                return

    def _answer(self, line: bytes) -> Json:
        try:
            request = {str(k): str(v) for k, v in json.loads(line).items()}
            return {"data": self._handlers[request["act"]](request)}
        except FederationError as error:
            fields = {"code": error.code, "what": error.what, "why": error.why, "mend": error.mend}
            return {"error": dict(fields)}
        except (ValueError, KeyError, AttributeError):
            return {
                "error": {
                    "code": "RNM-CONF-0001",
                    "what": "a command to the node was refused",
                    "why": "the agent does not know it",
                    "mend": "use the `renmei` of the same version as the running agent",
                }
            }


def ask(path: Path, act: str, **fields: str) -> Json:
    """Ask the running agent; raise RNM-PROC-0001 if there is none, or the error that it answers."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(_PATIENCE_S)
            connection.connect(str(path))
            connection.sendall(json.dumps({"act": act, **fields}).encode() + b"\n")
            reply = json.loads(_read_line(connection) or b"{}")
    except (OSError, ValueError) as error:
        raise LocalFault(
            "RNM-PROC-0001",
            what="the node's agent did not answer",
            why=os.strerror(error.errno or 0) if isinstance(error, OSError) else "it said nothing",
            mend="start it with `renmei node run`, or see its log",
        ) from None
    if "error" in reply:
        named = reply["error"]
        code = named["code"] if named["code"] in CODES else "RNM-BUG-0001"
        raise LocalFault(code, what=named["what"], why=named["why"], mend=named["mend"])
    data: Json = reply.get("data")
    return data


def _read_line(connection: socket.socket) -> bytes:
    line = b""
    while not line.endswith(b"\n") and len(line) < _MAX_LINE:
        block = connection.recv(4096)
        if not block:
            break
        line += block
    return line
