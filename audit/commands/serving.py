"""`renmei audit serve | witness`: a log's files, or a witness, for strangers over plain HTTP.

Decides nothing: `audit.static_log` and `audit.witness` do. Writes the address as the first line, then
serves until it is told to stop. TLS belongs to the proxy before it. A shell module.
"""

import argparse
import signal
import sys
import threading
from pathlib import Path

from audit.note import NoteSigner, NoteVerifier
from audit.static_log import serve_log
from audit.web import WebServer
from audit.witness import Witness
from audit.witness_site import serve_witness
from fedproto.command import Console, Reply
from fedproto.durable import make_private_directory, write_atomic
from fedproto.errors import LocalFault
from fedproto.party import seed_file, write_seed
from fedproto.process import wait_for

_KEY = "witness.key"


def serve(args: argparse.Namespace, console: Console) -> Reply:
    """Serve a published log or a mirror."""
    host, port = _address(args.listen)
    return _until_told(serve_log(Path(args.directory), host, port), console)


def witness(args: argparse.Namespace, console: Console) -> Reply:
    """Serve a witness over a directory of its own; the first start makes its key."""
    root = Path(args.directory)
    make_private_directory(root)
    key_file = root / _KEY if args.key is None else Path(args.key)
    if args.key is None:
        write_seed(key_file, 32)
    key = NoteSigner(args.name, seed_file(key_file, 32), cosigner=True)
    write_atomic(root / "witness.vkey", f"{key.vkey}\n".encode())
    logs = {log.name: log for log in map(_log_key, args.log_key)}
    host, port = _address(args.listen)
    return _until_told(serve_witness(Witness(root, key, logs), host, port), console)


def _until_told(server: WebServer, console: Console) -> Reply:
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    console.event({"ready": True, "url": server.url}, server.url)
    sys.stdout.flush()
    wait_for(stop)
    server.close()
    return Reply(data={"stopped": True}, text=console.say(en="stopped", ja="停止しました"))


def _address(listen: str) -> tuple[str, int]:
    host, colon, port = listen.rpartition(":")
    if not colon or not host or not (port.isascii() and port.isdigit()) or int(port) > 65_535:
        raise LocalFault(
            "RNM-CONF-0001",
            what=f"{listen[:80]!r} is no address to listen on",
            why="it is not HOST:PORT",
            mend="write for example 127.0.0.1:8080, or [::1]:8080",
        )
    return host.strip("[]"), int(port)


def _log_key(vkey: str) -> NoteVerifier:
    try:
        return NoteVerifier.from_vkey(vkey)
    except ValueError as error:
        raise LocalFault(
            "RNM-CONF-0001",
            what="a log key was refused",
            why=str(error),
            mend="copy it from the log's operator or from `renmei audit charter`",
        ) from None
