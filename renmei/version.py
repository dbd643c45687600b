"""`renmei version`: what is installed, read from metadata; nothing is imported."""

import argparse
import platform
from importlib import metadata

from fedproto.command import Console, Reply

_PARTS = ("cryptography", "flwr", "grpcio", "peft", "sqlmodel", "torch", "transformers")


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def version(args: argparse.Namespace, console: Console) -> Reply:
    """Return the versions of Renmei, Python and the libraries that decide what this machine can do."""
    del args
    own = _installed("renmei") or "0"
    parts = {name: _installed(name) for name in _PARTS}
    absent = console.say(en="not installed", ja="未導入")
    lines = [f"renmei {own}", f"python {platform.python_version()}"]
    lines += [f"{name} {found or absent}" for name, found in parts.items()]
    data = {"renmei": own, "python": platform.python_version(), "parts": parts}
    return Reply(data=data, text="\n".join(lines))
