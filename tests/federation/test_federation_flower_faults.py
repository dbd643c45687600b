"""What a SuperLink in wrong hands, or a part of Flower that dies, does to the two sides: nothing lasting."""

import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import pytest
from flower_kit import FOREIGN_PROJECT, Lab, wait_for

from fedproto.errors import FederationError
from member_node import client_app
from member_node.ports import Answer

HOSTILE = """
import time
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
client, server = ClientApp(), ServerApp()

def one(record):
    return RecordDict({{"renmei": record}})

KINDS = [
    (one(ConfigRecord({{"authorisation": b"x"}})), "evaluate"),
    (one(ConfigRecord({{"authorisation": b"x"}})), "query"),
    (one(ConfigRecord({{"authorisation": b"x"}})), "train.keys"),
    (one(ConfigRecord({{"authorisation": "x"}})), "train"),
    (one(ConfigRecord({{"authorisation": b"x", "traceparent": [1, 2]}})), "train"),
    (one(MetricRecord({{"authorisation": 1}})), "train"),
    (RecordDict(), "train"),
    (one(ConfigRecord({{"authorisation": b"last"}})), "train"),
]

@server.main()
def main(grid, context):
    while len(nodes := [n.node_id for n in grid.get_nodes() if n.name == "honda"]) < 1:
        time.sleep(0.1)
    messages = [Message(c, dst_node_id=nodes[0], message_type=kind) for c, kind in KINDS]
    left = {{i: number for number, i in enumerate(grid.push_messages(messages))}}
    codes = {{}}
    while left:
        for reply in grid.pull_messages(list(left)):
            number = left.pop(reply.metadata.reply_to_message_id)
            codes[number] = "error" if reply.has_error() else reply.content["renmei"]["code"]
        time.sleep(0.1)
    with open({out!r}, "w") as file:
        file.write(" ".join(codes[number] or "ok" for number in range(len(KINDS))))
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    answers = dict.fromkeys(("honda", "nec"), lambda task: Answer(receipt=task.authorisation))
    made = Lab(tmp_path_factory.mktemp("lab"), answers)
    yield made
    made.close()


@pytest.mark.e2e
def test_whatever_kind_of_message_a_superlink_sends_the_agent_refuses_it_and_goes_on(
    lab: Lab, tmp_path: Path
) -> None:
    out = tmp_path / "codes"
    before = len(lab.tasks["honda"])
    code = HOSTILE.format(out=str(out)).encode()
    lab.start_bundle({"pyproject.toml": FOREIGN_PROJECT.encode(), "foreign.py": code})
    wait_for(out.exists)
    wait_for(lambda: bool(out.read_text()))
    assert out.read_text().split() == ["RNM-FORM-0002"] * 7 + ["ok"]
    assert lab.agents["honda"].is_alive()
    assert [task.authorisation for task in lab.tasks["honda"][before:]] == [b"last"]


@pytest.mark.e2e
def test_a_supernode_that_does_not_know_a_task_any_more_leaves_the_agent_alone(lab: Lab) -> None:
    """Flower's own client would send SIGINT to this process, which ends a node."""
    interrupts: list[int] = []

    def note(number: int, _: FrameType | None) -> None:
        interrupts.append(number)

    before = signal.signal(signal.SIGINT, note)
    try:
        # The token of a task of before the SuperNode's death: its successor answers 401.
        work = threading.Thread(
            target=lab.sources["honda"]._run, args=("0" * 128, client_app.app), daemon=True
        )
        work.start()
        work.join(20)
    finally:
        signal.signal(signal.SIGINT, before)
    assert not work.is_alive()
    assert interrupts == []
    assert "task.lost" in lab.logs["honda"].getvalue()


def serverapps(lab: Lab) -> list[int]:
    """Return the ServerApps of this lab: their environment names its directory."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            command, environment = (path / "cmdline").read_bytes(), (path / "environ").read_bytes()
        except OSError:
            continue
        if b"flwr-serverapp" in command and str(lab.root).encode() in environment:
            found.append(int(path.name))
    return found


@pytest.mark.e2e
def test_after_kill_9_of_the_superlink_the_members_supernodes_serve_the_next_run(lab: Lab) -> None:
    lab.host.control.start_run("a" * 32)
    wait_for(lambda: bool(lab.orders.reports) and bool(serverapps(lab)))
    superlink = lab.host._children[0].process
    superlink.kill()
    superlink.wait()
    # A SuperNode asks again after 503 alone; after another error it ends.
    assert lab.outside("/v1/fleet/pull-messages", kind="application/x-protobuf") == 503
    with pytest.raises(FederationError) as caught:
        lab.host.check()
    assert caught.value.code == "RNM-PROC-0002"
    lab.restart_flower()
    assert serverapps(lab) == [], "a ServerApp of before would take the next order"
    lab.orders.reports.clear()
    lab.orders.left = [b"authorisation 1", b"authorisation 2"]
    lab.host.control.start_run("b" * 32)
    wait_for(lambda: [len(found) for found in lab.orders.replies.values()] == [2, 2], 90)
    assert all(r.receipt for found in lab.orders.replies.values() for r in found.values())
