"""The ServerApp's errand, with a grid that the test moves: who is told, when, and what is reported."""

import threading
import time
from concurrent.futures import Future
from types import SimpleNamespace

import pytest
from flwr.app import ConfigRecord, Error, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from federation import server_app
from federation.server_app import RECORD, Errand
from fedproto.v1.dispatch_pb2 import NextResponse

KEYS = {"honda": b"key of honda", "nec": b"key of nec", "sony": b"key of sony"}


class Grid:
    """Nodes that come on line, and replies that come in, when the test says so."""

    def __init__(self, online=KEYS):
        self.nodes = {number: KEYS[name] for number, name in enumerate(KEYS, 1) if name in online}
        self.pushed = {}
        self.replies = []

    def get_nodes(self):
        return [
            SimpleNamespace(node_id=number, public_key=key, status="online")
            for number, key in self.nodes.items()
        ]

    def push_messages(self, messages):
        ids = []
        for message in messages:
            name = list(KEYS)[message.metadata.dst_node_id - 1]
            assert name not in self.pushed, "told twice"
            self.pushed[name] = message
            ids.append(f"message to {name}")
        return ids

    def pull_messages(self, ids):
        taken = [reply for reply in self.replies if reply.metadata.reply_to_message_id in ids]
        self.replies = [reply for reply in self.replies if reply not in taken]
        return taken

    def reply(self, name, **values):
        """Have a node answer; without values it failed."""
        has_error = not values
        content = RecordDict({RECORD: ConfigRecord(values)}) if values else None
        self.replies.append(
            SimpleNamespace(
                metadata=SimpleNamespace(reply_to_message_id=f"message to {name}"),
                has_error=lambda: has_error,
                error=Error(code=1, reason="ClientApp raised: secret words"),
                content=content,
            )
        )


class Run:
    """An errand under way in a thread."""

    def __init__(self, grid, timeout_s=30):
        self.grid = grid
        self.reported = {}
        self.following = Future()
        order = NextResponse(
            authorisation=b"authorisation",
            traceparent="00-1-2-01",
            nodes=KEYS,
            timeout_s=timeout_s,
            ctx=b"ctx",
        )
        self.errand = Errand(grid, order, self._report)
        self.thread = threading.Thread(target=self.errand.carry, args=(self.following,))
        self.thread.start()

    def _report(self, ctx, replies):
        assert ctx == b"ctx"
        for reply in replies:
            assert reply.member not in self.reported, "reported twice"
            self.reported[reply.member] = reply

    def until(self, holds):
        deadline = time.monotonic() + 20
        while not holds():
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def join(self):
        self.thread.join(20)
        assert not self.thread.is_alive()


@pytest.fixture(autouse=True)
def _in_a_flower_task(monkeypatch):
    monkeypatch.setattr(TaskIdentity, "_task_id", 1)
    monkeypatch.setattr(TaskIdentity, "_run_id", 1)
    monkeypatch.setattr(TaskIdentity, "_node_id", 1)
    monkeypatch.setattr(server_app, "_POLL_S", 0.005)


def test_a_refusal_is_reported_while_the_others_still_train():
    run = Run(Grid())
    run.until(lambda: len(run.grid.pushed) == 3)
    run.grid.reply("nec", code="RNM-CONSENT-0004", why="policy")
    run.until(lambda: "nec" in run.reported)
    assert run.reported["nec"].code == "RNM-CONSENT-0004"
    assert set(run.reported) == {"nec"}
    assert run.thread.is_alive()
    for name in ("honda", "sony"):
        run.grid.reply(name, receipt=b"receipt of " + name.encode())
    run.join()
    assert run.reported["sony"].receipt == b"receipt of sony"


def test_members_that_are_there_are_told_at_once_and_others_when_they_come():
    run = Run(Grid(online=("honda",)))
    run.until(lambda: set(run.grid.pushed) == {"honda"})
    run.grid.nodes[2] = KEYS["nec"]
    run.until(lambda: set(run.grid.pushed) == {"honda", "nec"})
    record = run.grid.pushed["nec"].content.config_records[RECORD]
    assert dict(record) == {"authorisation": b"authorisation", "traceparent": "00-1-2-01"}
    run.following.set_result(NextResponse())
    run.join()


def test_a_member_whose_node_stays_away_is_reported_and_the_errand_goes_on(monkeypatch):
    monkeypatch.setattr(server_app, "_ABSENT_S", 0.1)
    run = Run(Grid(online=("honda", "nec")))
    run.until(lambda: "sony" in run.reported)
    assert run.reported["sony"].code == "RNM-TLS-0001"
    assert run.thread.is_alive()
    for name in ("honda", "nec"):
        run.grid.reply(name, receipt=b"r")
    run.join()


def test_the_next_order_ends_this_one_although_a_node_hangs():
    run = Run(Grid())
    run.until(lambda: len(run.grid.pushed) == 3)
    run.following.set_result(NextResponse(ctx=b"next"))
    run.join()
    assert not run.reported


def test_the_last_replies_of_a_run_still_arrive_after_its_end():
    run = Run(Grid())
    run.until(lambda: len(run.grid.pushed) == 3)
    run.following.set_result(NextResponse(finished=True))
    for name in KEYS:
        run.grid.reply(name, receipt=b"r")
    run.join()
    assert set(run.reported) == set(KEYS)


def test_a_finished_run_does_not_wait_for_a_node_that_hangs(monkeypatch):
    monkeypatch.setattr(server_app, "_LAST_S", 0.1)
    run = Run(Grid())
    run.until(lambda: len(run.grid.pushed) == 3)
    run.following.set_result(NextResponse(finished=True))
    run.join()


def test_whoever_has_not_replied_in_time_is_named():
    run = Run(Grid(), timeout_s=1)
    run.join()
    assert {name: reply.code for name, reply in run.reported.items()} == dict.fromkeys(
        KEYS, "RNM-ROUND-0002"
    )


def test_an_error_and_a_foreign_reply_have_codes_of_their_own():
    run = Run(Grid())
    run.until(lambda: len(run.grid.pushed) == 3)
    run.grid.reply("honda")
    run.grid.reply("nec", receipt="not bytes")
    run.grid.replies.append(
        SimpleNamespace(
            metadata=SimpleNamespace(reply_to_message_id="message to sony"),
            has_error=lambda: False,
            content=RecordDict({}),
        )
    )
    run.join()
    assert run.reported["honda"].code == "RNM-PROC-0002"
    assert run.reported["nec"].receipt == b""
    assert run.reported["sony"].code == "RNM-FORM-0002"


def test_the_pushed_message_is_a_training_message_for_that_node_alone():
    run = Run(Grid())
    run.until(lambda: len(run.grid.pushed) == 3)
    message = run.grid.pushed["sony"]
    assert isinstance(message, Message)
    assert message.metadata.dst_node_id == 3
    assert message.metadata.message_type == "train"
    run.following.set_result(NextResponse())
    run.join()
