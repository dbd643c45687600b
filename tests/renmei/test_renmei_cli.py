"""The command's contract: streams, envelope, exit statuses, languages, start-up cost."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fedproto.errors import CODES, Exit

ENV = {
    name: value
    for name, value in os.environ.items()
    if not name.startswith(("LC_", "LANG", "RENMEI_")) and name not in ("NO_COLOR", "TERM")
}


def renmei(
    *words: str, env: dict[str, str] | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "renmei.cli", *words],
        env={**ENV, **(env or {})},
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def call_main(
    handler: str, *, words: tuple[str, ...] = (), env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the frame in a process of its own, with one more command whose body is `handler`."""
    program = f"""
import sys, types
from fedproto.command import Reply
from fedproto.errors import Exit, LocalFault, PeerFault
import renmei.cli
def handler(args, console):
{handler}
probe = types.ModuleType("probe")
probe.handler = handler
probe.register = lambda commands: commands.noun("probe", en="p", ja="p").verb(
    "go", handler="probe:handler", en="go", ja="go")
sys.modules["probe"] = probe
renmei.cli.find_spec = lambda name: probe
renmei.cli.MODULES = ("probe",)
sys.exit(renmei.cli.main(["probe", "go", *{words!r}]))
"""
    return subprocess.run(
        [sys.executable, "-c", program],
        env={**ENV, **(env or {})},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_help_is_quick_and_loads_no_heavy_library() -> None:
    program = (
        "import sys, renmei.cli\n"
        "assert renmei.cli.main(['--help']) == 0\n"
        "heavy = {'torch', 'flwr', 'grpc', 'sqlmodel', 'numpy', 'opentelemetry', 'transformers'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    best = 9.0
    for _ in range(5):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, env=ENV)
        best = min(best, time.perf_counter() - start)
    assert best < 0.4


def test_every_declared_command_has_a_help_that_loads_no_handler() -> None:
    result = renmei("--help")
    assert result.returncode == 0
    for noun in ("demo", "explain", "version"):
        assert noun in result.stdout
        assert renmei(noun, "--help").returncode == 0


def test_json_gives_one_envelope_on_stdout_and_nothing_on_stderr() -> None:
    result = renmei("version", "--json")
    envelope = json.loads(result.stdout)
    assert result.stdout.count("\n") == 1
    assert result.stderr == ""
    assert list(envelope) == ["schema", "status", "data", "warnings", "next"]
    assert envelope["schema"] == "renmei.version/v1"
    assert envelope["status"] == "ok"


def test_a_global_option_may_stand_anywhere() -> None:
    before, after = renmei("--json", "version"), renmei("version", "--json")
    assert before.stdout == after.stdout


def test_an_error_leaves_stdout_empty_and_names_code_what_why_mend() -> None:
    result = renmei("explan")
    assert result.returncode == Exit.USAGE
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert lines[0].startswith("error RNM-CONF-0001  ")
    assert [line.split()[0] for line in lines[1:]] == ["what", "why", "mend", "more"]
    assert "did you mean: renmei explain" in result.stderr


def test_the_error_block_is_japanese_for_a_japanese_reader_and_keeps_the_english_title() -> None:
    result = renmei("--lang", "ja", "explan")
    assert result.stderr.startswith("エラー RNM-CONF-0001  ")
    assert CODES["RNM-CONF-0001"].en in result.stderr.splitlines()[0]
    assert "対処" in result.stderr


@pytest.mark.parametrize(
    ("env", "japanese"),
    [
        ({"LC_MESSAGES": "ja_JP.UTF-8"}, True),
        ({"LANG": "ja_JP.UTF-8"}, True),
        ({"LC_ALL": "C.UTF-8", "LANG": "ja_JP.UTF-8"}, False),
        ({"LANG": "en_GB.UTF-8"}, False),
        ({}, False),
    ],
)
def test_without_an_option_the_locale_decides_the_language(
    env: dict[str, str], japanese: bool
) -> None:
    result = renmei("explain", "RNM-DISK-0001", env={**env, "PYTHONUTF8": "1"})
    assert ("対処" in result.stdout) is japanese


def test_the_option_wins_over_the_locale() -> None:
    result = renmei("explain", "RNM-DISK-0001", "--lang=en", env={"LANG": "ja_JP.UTF-8"})
    assert "How to mend it" in result.stdout


@pytest.mark.parametrize(
    "words", [(), ("--lang",), ("--lang", "de", "version"), ("demo", "--seed", "x"), ("--trace",)]
)
def test_a_wrong_command_line_exits_2(words: tuple[str, ...]) -> None:
    result = renmei(*words)
    assert result.returncode == 2
    assert "RNM-CONF-0001" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("code", list(CODES))
def test_a_named_error_ends_the_command_with_the_status_of_its_code(code: str) -> None:
    # In this process, to keep it quick; test_each_exit_status... does it in real ones.
    from io import StringIO

    from fedproto.errors import LocalFault
    from renmei.output import Terminal

    err = StringIO()
    console = Terminal(
        out=StringIO(), err=err, environ={}, clock=time.monotonic, lang="en", as_json=False
    )
    fault = LocalFault(code, what="w", why="y", mend="m")
    console.fail("probe", fault)
    assert fault.exit is CODES[code].exit
    assert err.getvalue().startswith(f"error {code}  {CODES[code].en} / {CODES[code].ja}")


@pytest.mark.parametrize("status", [s for s in Exit if s not in (Exit.OK, Exit.BUG)])
def test_each_exit_status_is_reached_by_a_real_process(status: Exit) -> None:
    code = next(code for code, line in CODES.items() if line.exit is status)
    result = call_main(f"    raise LocalFault({code!r}, what='a', why='b', mend='c')")
    assert result.returncode == int(status)
    assert code in result.stderr


def test_a_reply_that_is_an_alarm_has_data_on_stdout_and_its_own_status() -> None:
    result = call_main(
        "    return Reply(data={'a': 1}, text='t', exit=Exit.VERIFY)", words=("--json",)
    )
    assert result.returncode == 5
    assert json.loads(result.stdout)["status"] == "error"


def test_warnings_and_next_commands_go_to_stderr() -> None:
    result = call_main("    return Reply(data=1, text='t', warnings=('w',), next=('renmei x',))")
    assert result.stdout == "t\n"
    assert "warning  w" in result.stderr
    assert "renmei x" in result.stderr


def test_an_unforeseen_error_exits_70_and_shows_neither_its_message_nor_locals() -> None:
    body = "    secret = 'k3y-0f-d34th'\n    raise ValueError('seed ' + secret)"
    result = call_main(body)
    assert result.returncode == 70
    assert "RNM-BUG-0001" in result.stderr
    assert "ValueError" in result.stderr
    assert "support id" in result.stderr
    assert "k3y-0f-d34th" not in result.stderr + result.stdout
    assert "Traceback" not in result.stderr


def test_the_traceback_is_shown_on_request_only() -> None:
    result = call_main("    raise ValueError('x')", env={"RENMEI_DEBUG": "1"})
    assert "Traceback" in result.stderr


def test_an_error_with_json_is_an_envelope_too() -> None:
    body = "    raise LocalFault('RNM-DISK-0001', what='a', why='b', mend='c')"
    result = call_main(body, words=("--json",))
    envelope = json.loads(result.stdout)
    assert envelope["status"] == "error"
    assert envelope["data"]["code"] == "RNM-DISK-0001"
    assert envelope["next"] == ["renmei explain RNM-DISK-0001"]


def test_a_stream_is_one_json_object_a_line_and_says_where_it_ends() -> None:
    body = "    console.event(1, 'one')\n    return Reply(data=2, text='two')"
    result = call_main(body, words=("--json",))
    first, last = (json.loads(line) for line in result.stdout.splitlines())
    assert first == {"data": 1, "terminal": False}
    assert last["terminal"] is True
    assert call_main(body).stdout == "one\ntwo\n"


def test_a_library_that_is_not_installed_is_named_with_the_extra_that_brings_it() -> None:
    result = call_main("    raise ModuleNotFoundError(\"No module\", name='torch.nn')")
    assert result.returncode == 1
    assert "renmei[pretrain]" in result.stderr


def test_an_own_module_that_is_missing_is_a_bug_not_a_missing_part() -> None:
    result = call_main("    raise ModuleNotFoundError(\"No module\", name='audit.nothing')")
    assert result.returncode == 70


def test_ctrl_c_exits_130_without_a_traceback() -> None:
    program = "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nimport time\ntime.sleep(5)"
    result = call_main("\n".join(f"    {line}" for line in program.splitlines()))
    assert result.returncode == 130
    assert "Traceback" not in result.stderr


def test_a_reader_that_goes_away_ends_the_command_quietly() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "renmei.cli", "explain"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=ENV,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    complaint = process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=30) == 141
    assert complaint == b""


def test_nothing_is_coloured_off_a_terminal_whatever_the_environment_says() -> None:
    result = renmei("explan", env={"TERM": "xterm-256color", "FORCE_COLOR": "1"})
    assert "\x1b" not in result.stderr + result.stdout


def test_telemetry_of_others_is_off_before_any_handler_runs() -> None:
    body = "    import os\n    return Reply(data=None, text=os.environ['FLWR_TELEMETRY_ENABLED'])"
    result = call_main(body, env={"FLWR_TELEMETRY_ENABLED": "1"})
    assert result.stdout == "0\n"


def test_trace_writes_the_span_of_the_command_to_a_private_file(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    body = "    from fedproto import telemetry\n    return Reply(data=telemetry.traceparent(), text='')"
    result = call_main(body, words=("--json", "--trace", str(path)))
    span = json.loads(path.read_text().splitlines()[0])
    assert span["name"] == "renmei.probe.go"
    assert span["trace_id"] in json.loads(result.stdout)["data"]
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_trace_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    result = renmei("version", "--trace", str(tmp_path / "absent" / "trace.jsonl"))
    assert result.returncode == 2
    assert "trace.jsonl" in result.stderr


def test_an_auditors_machine_without_any_extra_runs_the_frame() -> None:
    """Only `cryptography` is installed there; every other library is blocked here."""
    program = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"torch", "flwr", "grpc", "sqlmodel", "numpy", "opentelemetry",
                                  "google", "transformers", "peft", "rich", "typer", "click"}:
            raise ModuleNotFoundError(f"blocked: {name}", name=name)
sys.meta_path.insert(0, Block())
from renmei.cli import main
sys.exit(main(["version"]) or main(["audit", "verify", "--help"]) or main(["explain"]))
"""
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=ENV, check=False
    )
    assert result.returncode == 0, result.stderr
