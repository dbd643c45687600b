"""On a real terminal: colour where it is wanted, and one line that is rewritten."""

import os
import pty
import subprocess
import sys

import pytest

ENV = {
    k: v
    for k, v in os.environ.items()
    if not k.startswith(("LC_", "LANG", "RENMEI_")) and k not in ("NO_COLOR", "TERM")
}


def on_terminal(program: str, env: dict[str, str]) -> str:
    """Run a program whose stderr is a terminal, and return what it wrote there."""
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        env={**ENV, **env},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=follower,
    )
    os.close(follower)
    chunks = []
    while True:
        try:
            chunk = os.read(leader, 65_536)
        except OSError:
            break
        if not chunk:
            break
        chunks.append(chunk)
    os.close(leader)
    process.wait(timeout=30)
    return b"".join(chunks).decode()


FAIL = "import sys; from renmei.cli import main; sys.exit(main(['nothing']))"
STEP = """
import os, sys, time
from renmei.output import Terminal
console = Terminal(out=sys.stdout, err=sys.stderr, environ=os.environ, clock=time.monotonic,
                   lang="ja", as_json=False)
step = console.progress("学習", 4, "steps")
for _ in range(4):
    time.sleep(0.12)
    step.advance()
step.close()
"""


@pytest.mark.parametrize(
    ("env", "coloured"),
    [
        ({"TERM": "xterm"}, True),
        ({"TERM": "xterm", "NO_COLOR": "1"}, False),
        ({"TERM": "dumb"}, False),
    ],
    ids=str,
)
def test_an_error_is_coloured_on_a_terminal_that_wants_it(
    env: dict[str, str], coloured: bool
) -> None:
    shown = on_terminal(FAIL, env)
    assert "RNM-CONF-0001" in shown
    assert ("\x1b[" in shown) is coloured


def test_progress_rewrites_one_line_on_a_terminal() -> None:
    shown = on_terminal(STEP, {"TERM": "xterm"})
    assert shown.count("\n") == 1
    assert shown.count("\r\x1b[2K") >= 3


def test_a_dumb_terminal_gets_plain_lines() -> None:
    shown = on_terminal(STEP, {"TERM": "dumb"})
    assert "\x1b" not in shown
