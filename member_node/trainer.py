"""The trainer: the one process that sees the member's data. No network, no keys.

A shell module: `python -m member_node.trainer --dir DIR --socket PATH`. It listens on a unix socket of
this user alone and serves one agent at a time. Sockets of any other family are refused in the process
itself, beside what the system's unit forbids.
"""

import argparse
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import numpy as np

from fedproto import jcs
from fedproto.errors import FederationError, LocalFault
from fedproto.governance.plan import RunPlan
from fedproto.layout import FlatVector
from fedproto.schema import from_json
from fedproto.v1 import trainer_pb2 as pb
from member_node.train import Progress
from member_node.trainer_wire import BadFrame, receive, send

_MAX_SOCKET_PATH = 107


def forbid_network() -> None:
    """Refuse every socket but unix ones from here on; cannot be undone in this process."""

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "socket.__new__" and arguments[1] != socket.AF_UNIX:
            raise PermissionError("the trainer opens no network socket")
        if event in ("socket.getaddrinfo", "socket.gethostbyname"):
            raise PermissionError("the trainer looks up no name")

    sys.addaudithook(hook)


def listen(path: Path) -> socket.socket:
    """Listen on a unix socket that only this user can open."""
    if len(os.fsencode(path)) > _MAX_SOCKET_PATH:
        raise LocalFault(
            "RNM-CONF-0001",
            what="the trainer cannot listen",
            why=f"the socket path has more than {_MAX_SOCKET_PATH} bytes",
            mend="name a shorter path with --socket",
        )
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # Created 0600: there is no moment in which others could connect.
    before = os.umask(0o177)
    try:
        listener.bind(str(path))
    finally:
        os.umask(before)
    listener.listen(1)
    return listener


class Server:
    """Serves one agent at a time from one warm studio."""

    def __init__(self, root: Path, *, compiled: bool) -> None:
        self._root = root
        self._compiled = compiled
        self._studio: Any = None

    def serve(self, listener: socket.socket) -> None:
        """Answer agents until the process is told to end."""
        while True:
            connection, _ = listener.accept()
            with connection:
                try:
                    self._converse(connection)
                except (BadFrame, BrokenPipeError, ConnectionResetError) as error:
                    sys.stderr.write(f"connection ended: {type(error).__name__}\n")

    def _converse(self, connection: socket.socket) -> None:
        while (request := receive(connection, pb.TrainerRequest)) is not None:
            try:
                reply = self._answer(request, connection)
            except FederationError as error:
                reply = _fault(error)
            except (RuntimeError, OSError) as error:
                if isinstance(error, BrokenPipeError | ConnectionResetError):
                    raise
                # torch raises RuntimeError; its text can hold values, so only its type is told.
                reply = _fault(
                    LocalFault(
                        "RNM-BUG-0001",
                        what="the trainer failed",
                        why=type(error).__name__,
                        mend="see the trainer's log of this minute",
                    )
                )
                sys.stderr.write(f"trainer failed: {error!r}\n")
            send(connection, reply)

    @property
    def studio(self) -> Any:
        """The studio; torch is loaded with the first request, not before the socket is there."""
        if self._studio is None:
            from member_node.studio import Studio

            self._studio = Studio(self._root, compiled=self._compiled)
        return self._studio

    def _answer(self, request: pb.TrainerRequest, connection: socket.socket) -> pb.TrainerReply:
        def on_progress(progress: Progress) -> None:
            # Also how an agent that hung up is noticed: sending raises, and training ends.
            send(
                connection,
                pb.TrainerReply(
                    progress=pb.Progress(
                        step=progress.step,
                        steps=progress.steps,
                        loss=progress.loss,
                        eta_s=progress.eta_s,
                    )
                ),
            )

        match request.WhichOneof("request"):
            case "prepare":
                return self._prepare(request.prepare)
            case "train":
                start = _vector(request.train.adapter)
                delta = self.studio.train(request.train.round, start, on_progress)
                return pb.TrainerReply(
                    delta=pb.LocalDelta(delta=delta.astype("<f4").tobytes(), weight=1.0)
                )
            case "personalise":
                path = self.studio.personalise(_vector(request.personalise.adapter), on_progress)
                return pb.TrainerReply(personalised=pb.Personalised(path=str(path)))
            case other:
                raise LocalFault(
                    "RNM-FORM-0002",
                    what="the trainer refused a request",
                    why=f"{other or 'an empty request'} is not known here",
                    mend="use agent and trainer of the same version",
                )

    def _prepare(self, request: pb.PrepareRequest) -> pb.TrainerReply:
        plan = from_json(RunPlan, jcs.loads(request.plan), "plan")
        prepared = self.studio.prepare(plan, Path(request.base_dir))
        return pb.TrainerReply(
            prepared=pb.Prepared(
                layout=prepared.layout.to_bytes(),
                dataset=prepared.dataset,
                initial_adapter=prepared.initial.astype("<f4").tobytes(),
            )
        )


def _vector(raw: bytes) -> FlatVector:
    if len(raw) % 4:
        raise LocalFault(
            "RNM-MODEL-0002",
            what="an adapter was refused",
            why="its bytes are not float32",
            mend="use agent and trainer of the same version",
        )
    return np.frombuffer(raw, "<f4").astype(np.float32)


def _fault(error: FederationError) -> pb.TrainerReply:
    return pb.TrainerReply(
        fault=pb.TrainerFault(code=error.code, what=error.what, why=error.why, mend=error.mend)
    )


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m member_node.trainer")
    parser.add_argument("--dir", type=Path, required=True)
    parser.add_argument("--socket", type=Path, required=True)
    parser.add_argument("--no-compile", action="store_true")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    forbid_network()
    try:
        listener = listen(options.socket)
    except FederationError as error:
        sys.stderr.write(f"{error.code} {error.what}: {error.why}. {error.mend}\n")
        sys.exit(int(error.exit))
    try:
        Server(options.dir, compiled=not options.no_compile).serve(listener)
    finally:
        options.socket.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
