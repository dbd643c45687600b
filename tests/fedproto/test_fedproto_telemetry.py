"""Traces: written to a local file when asked, by several processes, and nowhere otherwise."""

import json
import os
import subprocess
import sys
from pathlib import Path

PROGRAM = """
import sys
from fedproto import telemetry
telemetry.start(sys.argv[1])
parent = telemetry.parent(sys.argv[2]) if len(sys.argv) > 2 else None
with telemetry.tracer().start_as_current_span("fed.round", context=parent):
    for _ in range(50):
        with telemetry.tracer().start_as_current_span("fed.round.phase", attributes={"n": 1}):
            pass
    print(telemetry.traceparent())
    print(telemetry.current().trace_id)
"""


def run(*words: str, file: Path | None) -> subprocess.Popen[str]:
    env = {k: v for k, v in os.environ.items() if k != "RENMEI_TRACE_FILE"}
    if file is not None:
        env["RENMEI_TRACE_FILE"] = str(file)
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *words], env=env, stdout=subprocess.PIPE, text=True
    )


def test_a_trace_goes_on_in_another_process_and_lines_never_mix(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    first = run("coordinator", file=path).communicate()[0].split()
    others = [run(f"member-{i}", first[0], file=path) for i in range(3)]
    for other in others:
        assert other.communicate()[0].split()[1] == first[1]
    spans = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(spans) == 4 * 51
    assert {span["trace_id"] for span in spans} == {first[1]}
    assert {span["service"] for span in spans} == {
        "coordinator",
        *(f"member-{i}" for i in range(3)),
    }


def test_without_a_file_spans_have_ids_and_go_nowhere(tmp_path: Path) -> None:
    lines = run("coordinator", file=None).communicate()[0].split()
    assert lines[1] != "0" * 32
    assert list(tmp_path.iterdir()) == []


def test_without_tracing_ids_are_zeros_and_no_header_is_sent() -> None:
    program = "from fedproto import telemetry as t; print(t.current(), repr(t.traceparent()))"
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert "0" * 32 in result.stdout
    assert result.stdout.endswith("''\n")


def test_a_header_that_is_none_starts_a_new_trace() -> None:
    out = run("member", "not-a-traceparent", file=None).communicate()[0].split()
    assert len(out[1]) == 32
    assert out[1] != "0" * 32
