"""Faults that have no name yet: each becomes a named error, with nothing in it that is secret.

Decides what a person sees of an exception nobody foresaw: its type and place, never its message or
its locals, which may hold a key or a text. The traceback is shown only with RENMEI_DEBUG=1.
"""

import traceback

from fedproto.errors import FederationError, LocalFault

# The extra of `pip install renmei[...]` that brings each optional library.
_EXTRAS = {
    "torch": "pretrain",
    "transformers": "pretrain",
    "tokenizers": "pretrain",
    "safetensors": "pretrain",
    "onnx": "edge",
    "onnxruntime": "edge",
    "onnxscript": "edge",
    "peft": "member",
    "flwr": "coordinator",
    "grpc": "net",
    "google": "net",
    "sqlmodel": "net",
    "sqlalchemy": "net",
    "opentelemetry": "net",
    "numpy": "net",
    "rich": "net",
}


def usage(why: str, mend: str) -> FederationError:
    """Return the error of a command line that is not understood (exit 2)."""
    return LocalFault("RNM-CONF-0001", what="the command was not understood", why=why, mend=mend)


def missing_part(error: ModuleNotFoundError) -> FederationError | None:
    """Name the extra that brings a library which is not installed; nothing if it is our own."""
    library = (error.name or "").split(".")[0]
    extra = _EXTRAS.get(library)
    if extra is None:
        return None
    return LocalFault(
        "RNM-CONF-0002",
        what="the command could not start",
        why=f"it needs the library {library}, which this installation does not have",
        mend=f"run: pip install 'renmei[{extra}]'   (or use a machine set up for this role)",
    )


def unforeseen(error: BaseException) -> FederationError:
    """Name any other exception: exit 70, with the type and the place it came from."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {frames[-1].filename.rsplit('/', 1)[-1]}:{frames[-1].lineno}" if frames else ""
    return LocalFault(
        "RNM-BUG-0001",
        what="the command stopped",
        why=f"{type(error).__name__}{place}",
        mend="run it again with RENMEI_DEBUG=1 and report what it prints, after reading it: "
        "a traceback may hold your paths",
    )
