"""The `renmei` command: finds the handler of a verb, runs it, and ends with its exit status.

Decides nothing about the work. Imports the standard library alone until a handler is called, so that
`renmei --help` is quick and an auditor needs neither torch, flwr nor grpc. Every error ends as a named
block on stderr; no traceback is shown unless RENMEI_DEBUG=1.
"""

import argparse
import difflib
import os
import re
import secrets
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn, cast

from fedproto.command import Commands, Handler, Lang, Reply, SubParsers
from fedproto.errors import FederationError
from renmei.fault import missing_part, unforeseen, usage
from renmei.lang import choose
from renmei.output import Terminal

# Each has `register(commands)`; in the order in which --help shows them.
MODULES = (
    "renmei.builtin",
    "federation.cli",
    "federation.governing_cli",
    "federation.ledger_cli",
    "member_node.cli",
    "audit.cli",
    "base_model.cli",
)
INTERRUPTED = 130
BROKEN_PIPE = 141

# Nothing calls out: what Flower and the model hub would send of their own accord is off in this and
# in every process that this command starts.
_ENVIRONMENT = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    # TLS 1.3 only; gRPC reads this while it is imported (fedproto.transport says why).
    "GRPC_SSL_CIPHER_SUITES": "ECDHE-RSA-AES256-GCM-SHA384",
}
_GLOBAL = {
    "en": "everywhere: --json (envelope on stdout)  --lang ja|en  --trace FILE (spans, local file)",
    "ja": "共通: --json (標準出力に封筒形式)  --lang ja|en  --trace FILE (トレースを手元に記録)",
}


@dataclass(slots=True)
class Globals:
    """The options that stand anywhere on the command line."""

    as_json: bool = False
    lang: str | None = None
    trace: str | None = None


class Parser(argparse.ArgumentParser):
    """A parser that raises a named error where argparse would print and exit."""

    def error(self, message: str) -> NoReturn:
        """Raise RNM-CONF-0001, with the nearest command if one was mistyped."""
        mend = f"run: {self.prog} --help"
        mistyped = re.search(r"invalid choice: '([^']*)'", message)
        if mistyped:
            known = [
                name
                for action in self._actions
                if isinstance(action, argparse._SubParsersAction)  # noqa: SLF001  # no public way
                for name in action.choices
            ]
            near = difflib.get_close_matches(mistyped[1], known, n=1)
            if near:
                mend = f"did you mean: {self.prog} {near[0]}"
        raise usage(message, mend)


def take_globals(argv: Sequence[str]) -> tuple[Globals, list[str]]:
    """Split off the global options, wherever they stand before `--`."""
    found, words = Globals(), list(argv)
    rest: list[str] = []
    while words:
        word = words.pop(0)
        name, given, value = word.partition("=")
        if word == "--":
            return found, [*rest, word, *words]
        if word == "--json":
            found.as_json = True
        elif name in ("--lang", "--trace"):
            if not given and not words:
                raise usage(f"{name} needs a value", "run: renmei --help")
            value = value if given else words.pop(0)
            if name == "--trace":
                found.trace = value
            elif value in ("ja", "en"):
                found.lang = value
            else:
                raise usage(f"--lang is ja or en, not {value!r}", "run: renmei --help")
        else:
            rest.append(word)
    return found, rest


def build_parser(lang: Lang) -> Parser:
    """Declare every command; strings only, no handler is imported."""
    text = (
        "主権データの連合ファインチューニングと、誰でも検証できる台帳"
        if lang == "ja"
        else "Federated sovereign-data fine-tuning, with a ledger that anyone verifies"
    )
    parser = Parser(prog="renmei", description=text, epilog=_GLOBAL[lang], allow_abbrev=False)
    subparsers = cast(
        SubParsers, parser.add_subparsers(dest="noun", metavar="COMMAND", required=True)
    )
    commands = Commands(subparsers, lang, _GLOBAL[lang])
    for module in MODULES:
        # An installation may leave out whole packages (an auditor's needs only `audit`).
        if find_spec(module.split(".")[0]) is not None and find_spec(module) is not None:
            import_module(module).register(commands)
    return parser


def _handler(name: str) -> Handler:
    module, _, function = name.partition(":")
    return cast(Handler, getattr(import_module(module), function))


def _run(args: argparse.Namespace, console: Terminal, trace: str | None) -> Reply:
    handler: str = args.handler
    if trace is None:
        return _handler(handler)(args, console)
    # Appended to by this process and those it starts; the path must mean the same in each.
    os.environ["RENMEI_TRACE_FILE"] = str(Path(trace).absolute())
    telemetry = import_module("fedproto.telemetry")
    try:
        telemetry.start("renmei")
    except OSError as error:
        raise usage(
            f"--trace {trace}: {os.strerror(error.errno or 0)}", "name a file that can be written"
        ) from None
    with telemetry.tracer().start_as_current_span(f"renmei.{args.command.replace(' ', '.')}"):
        return _handler(handler)(args, console)


def _invoke(argv: Sequence[str], console: Terminal, given: Globals, command: list[str]) -> int:
    args = build_parser(console.lang).parse_args(argv)
    command.append(args.command)
    reply = _run(args, console, given.trace or os.environ.get("RENMEI_TRACE_FILE"))
    console.deliver(args.command, reply)
    return int(reply.exit)


def _console(given: Globals) -> Terminal:
    return Terminal(
        out=sys.stdout,
        err=sys.stderr,
        environ=os.environ,
        clock=time.monotonic,
        lang=choose(given.lang, os.environ),
        as_json=given.as_json,
    )


def _fail(console: Terminal, command: str, error: BaseException) -> int:
    if os.environ.get("RENMEI_DEBUG") == "1":
        traceback.print_exception(error)
    named = error if isinstance(error, FederationError) else None
    if named is None and isinstance(error, ModuleNotFoundError):
        named = missing_part(error)
    if named is not None:
        console.fail(command, named)
        return int(named.exit)
    bug = unforeseen(error)
    console.fail(command, bug, support=secrets.token_hex(6))
    return int(bug.exit)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    os.environ.update(_ENVIRONMENT)
    words = sys.argv[1:] if argv is None else argv
    given = Globals(as_json="--json" in words)
    command: list[str] = []
    try:
        given, rest = take_globals(words)
        return _invoke(rest, _console(given), given, command)
    except SystemExit as stop:
        # argparse ends this way after --help.
        return stop.code if isinstance(stop.code, int) else 0
    except KeyboardInterrupt:
        sys.stderr.write("\n")
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output went away; the interpreter must not complain at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except Exception as error:  # noqa: BLE001  # the outermost shell: everything ends as a named error
        return _fail(_console(given), command[0] if command else "", error)


if __name__ == "__main__":
    sys.exit(main())
