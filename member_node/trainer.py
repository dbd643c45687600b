"""The trainer: the one process that sees the member's data. No network, no keys.

Decides who is served: one agent at a time, over a unix socket of this user alone. Trusts no frame. What
it answers holds no text and no private adapter: the adapter layout, a commitment, a delta, a path, or a
fault by code. `python -m member_node.trainer --dir DIR --socket PATH`. A shell module.
"""

import argparse
import os
import signal
import socket
import sys
import traceback
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import numpy as np

from fedproto import jcs
from fedproto.durable import make_private_directory
from fedproto.errors import FederationError, LocalFault
from fedproto.governance.plan import RunPlan
from fedproto.layout import FlatVector
from fedproto.schema import from_json
from fedproto.v1 import trainer_pb2 as pb
from member_node.confinement import confine
from member_node.trainer_wire import BadFrame, receive, send

if TYPE_CHECKING:
    # torch is loaded once the socket is there, so that an agent can connect meanwhile.
    from member_node.studio import Studio
    from member_node.train import Progress

KEYS = "keys"
COMPILED = "compiled"
_CACHE = "TORCHINDUCTOR_CACHE_DIR"
_MAX_SOCKET_PATH = 107
_BACKLOG = 4


class _HungUp(Exception):
    """The agent is gone: what it asked for is of no use to anybody."""


def listen(path: Path) -> socket.socket:
    """Listen on a unix socket that only this user can open.

    Raises:
        LocalFault: RNM-CONF-0001 the path is too long, or its directory is open to others;
            RNM-PROC-0003 another trainer listens there.
    """
    if len(os.fsencode(path)) > _MAX_SOCKET_PATH:
        raise _cannot(f"the socket path has more than {_MAX_SOCKET_PATH} bytes", "a shorter path")
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = path.parent.stat()
    if status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise _cannot(f"{path.parent} is not this user's alone (0700)", "a path in another place")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        if probe.connect_ex(str(path)) == 0:
            raise LocalFault(
                "RNM-PROC-0003",
                what="the trainer cannot listen",
                why=f"another trainer listens at {path}",
                mend="stop the other one, or leave it to serve this node",
            )
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # Created 0600: there is no moment in which others could connect.
    before = os.umask(0o177)
    try:
        listener.bind(str(path))
    finally:
        os.umask(before)
    listener.listen(_BACKLOG)
    return listener


def _cannot(why: str, other: str, option: str = "--socket") -> LocalFault:
    return LocalFault(
        "RNM-CONF-0001",
        what="the trainer did not start",
        why=why,
        mend=f"name {other} with {option}",
    )


class Server:
    """Serves one agent at a time from one warm studio."""

    def __init__(self, root: Path, *, compiled: bool) -> None:
        self._root = root
        self._compiled = compiled
        self._studio: Studio | None = None

    def serve(self, listener: socket.socket) -> None:
        """Answer agents until the process is told to end."""
        self._ready()
        while True:
            connection, _ = listener.accept()
            with connection:
                try:
                    self._converse(connection)
                except (BadFrame, _HungUp, OSError) as error:
                    _log(f"connection ended: {type(error).__name__}")

    def _converse(self, connection: socket.socket) -> None:
        while (request := receive(connection, pb.TrainerRequest)) is not None:
            send(connection, self._reply(request, connection))

    def _reply(self, request: pb.TrainerRequest, connection: socket.socket) -> pb.TrainerReply:
        try:
            return self._answer(request, connection)
        except FederationError as error:
            return _fault(error)
        except _HungUp:
            raise
        except Exception as error:  # noqa: BLE001  # the process's edge: no failure goes out unnamed
            # Its words may quote the data, so only its type and place are told; the state is dropped.
            self._studio = None
            _log(f"the trainer failed: {type(error).__name__} at {_place(error)}")
            return _fault(
                LocalFault(
                    "RNM-BUG-0001",
                    what="the trainer failed",
                    why=type(error).__name__,
                    mend="see the trainer's log of this minute",
                )
            )

    def _ready(self) -> "Studio":
        if self._studio is None:
            # peft brings transformers: most of the start passes before the first request comes.
            import peft  # noqa: F401

            from member_node.studio import Studio

            self._studio = Studio(self._root, compiled=self._compiled)
        return self._studio

    def _answer(self, request: pb.TrainerRequest, connection: socket.socket) -> pb.TrainerReply:
        studio = self._ready()

        def on_progress(progress: "Progress") -> None:
            try:
                send(connection, _progress(progress))
            except OSError:
                raise _HungUp from None

        match request.WhichOneof("request"):
            case "prepare":
                return _prepare(studio, request.prepare)
            case "train":
                start = _vector(request.train.adapter)
                delta = studio.train(request.train.round, start, on_progress)
                raw = delta.astype("<f4").tobytes()
                return pb.TrainerReply(delta=pb.LocalDelta(delta=raw, weight=1.0))
            case "personalise":
                path = studio.personalise(_vector(request.personalise.adapter), on_progress)
                return pb.TrainerReply(personalised=pb.Personalised(path=str(path)))
            case _:
                raise LocalFault(
                    "RNM-FORM-0002",
                    what="the trainer refused a request",
                    why="it asks for nothing that is known here",
                    mend="use agent and trainer of the same version",
                )


def _prepare(studio: "Studio", request: pb.PrepareRequest) -> pb.TrainerReply:
    plan = from_json(RunPlan, jcs.loads(request.plan), "plan")
    prepared = studio.prepare(plan, Path(request.base_dir))
    return pb.TrainerReply(
        prepared=pb.Prepared(
            layout=prepared.layout.to_bytes(),
            dataset=prepared.dataset,
            initial_adapter=prepared.initial.astype("<f4").tobytes(),
        )
    )


def _progress(progress: "Progress") -> pb.TrainerReply:
    return pb.TrainerReply(
        progress=pb.Progress(
            step=progress.step,
            steps=progress.steps,
            loss=progress.loss,
            eta_s=progress.eta_s,
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


def _place(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    return " < ".join(f"{Path(f.filename).name}:{f.lineno}" for f in reversed(frames[-4:]))


def _log(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def _end(_number: int, _frame: FrameType | None) -> None:
    sys.exit(0)


def _start(options: argparse.Namespace) -> socket.socket:
    """Fence the process in, then listen; nothing of the member's is touched before."""
    missing = confine(options.dir / KEYS)
    if missing:
        _log(f"no fence by the kernel ({missing}): the system's unit must cut the network")
    if not options.dir.is_dir():
        raise _cannot(f"there is no directory {options.dir}", "the member's directory", "--dir")
    if not options.no_compile:
        kept = str(_compiled(options.dir))
        os.environ.setdefault(_CACHE, kept)
        # Where the compiler's headers are kept, whatever the cache's place.
        os.environ.setdefault("TMPDIR", kept)
    return listen(options.socket)


def _compiled(root: Path) -> Path:
    """Return where compiled code is kept: this user's own cache, or else the member's directory.

    Code is loaded from there: never from /tmp, where another user could have put some.
    """
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    shared = Path(home) / "renmei" / COMPILED
    try:
        make_private_directory(shared)
    except FederationError:
        # A service's user has no home of its own.
        make_private_directory(root / COMPILED)
        return (root / COMPILED).resolve()
    return shared.resolve()


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m member_node.trainer", allow_abbrev=False)
    parser.add_argument("--dir", type=Path, required=True)
    parser.add_argument("--socket", type=Path, required=True)
    parser.add_argument("--no-compile", action="store_true")
    options = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end)
    try:
        listener = _start(options)
    except FederationError as error:
        _log(f"{error.code} {error.what}: {error.why}. {error.mend}")
        sys.exit(int(error.exit))
    try:
        Server(options.dir, compiled=not options.no_compile).serve(listener)
    finally:
        options.socket.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
