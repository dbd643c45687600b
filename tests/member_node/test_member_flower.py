"""The member's Flower shell, with Flower's real messages and no process."""

import pytest
from flwr.app import (
    Array,
    ArrayRecord,
    ConfigRecord,
    Context,
    Error,
    Message,
    MetricRecord,
    RecordDict,
)
from flwr.supercore.task_identity import TaskIdentity

from member_node import client_app, flower_adapter
from member_node.ports import Answer

CONTEXT = Context(run_id=1, node_id=2, node_config={}, state=RecordDict(), run_config={})


@pytest.fixture(autouse=True)
def _in_a_task(monkeypatch):
    """Flower's messages name the task that they are made in."""
    for name in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)


def message(content, kind="train"):
    return Message(content, dst_node_id=2, message_type=kind)


def record(**fields):
    return RecordDict({client_app.RECORD: ConfigRecord(fields)})


def ask(given):
    """Return the reply's record and the tasks that reached the agent."""
    tasks = []

    def answer(task):
        tasks.append(task)
        return Answer(receipt=b"receipt")

    reply = client_app.respond(client_app.make_app(answer), given, CONTEXT)
    return reply.content.config_records[client_app.RECORD], tasks


def test_an_authorisation_reaches_the_agent_and_its_receipt_goes_back():
    said, tasks = ask(message(record(authorisation=b"sealed", traceparent="00-1-2-01")))
    assert dict(said) == {"receipt": b"receipt", "code": "", "why": ""}
    assert [(t.authorisation, t.traceparent) for t in tasks] == [(b"sealed", "00-1-2-01")]


def test_a_message_without_a_trace_is_answered():
    said, tasks = ask(message(record(authorisation=b"sealed")))
    assert said["receipt"] == b"receipt"
    assert tasks[0].traceparent == ""


@pytest.mark.parametrize("kind", ["evaluate", "query", "train.keys"])
def test_another_kind_of_message_is_refused_although_it_holds_an_authorisation(kind):
    said, tasks = ask(message(record(authorisation=b"sealed"), kind))
    assert (said["code"], said["receipt"]) == ("RNM-FORM-0002", b"")
    assert tasks == []


@pytest.mark.parametrize(
    "content",
    [
        RecordDict(),
        RecordDict({"other": ConfigRecord({"authorisation": b"sealed"})}),
        RecordDict({client_app.RECORD: MetricRecord({"authorisation": 1})}),
        RecordDict({client_app.RECORD: ArrayRecord({"a": Array("u1", (1,), "npy", b"x")})}),
        record(),
        record(authorisation="sealed"),
        record(authorisation=[b"sealed"]),
        record(authorisation=7),
        record(authorisation=b"sealed", traceparent=b"00-1-2-01"),
        record(authorisation=b"sealed", traceparent=["00-1-2-01"]),
    ],
)
def test_a_malformed_message_is_refused_and_never_reaches_the_agent(content):
    said, tasks = ask(message(content))
    assert (said["code"], said["receipt"]) == ("RNM-FORM-0002", b"")
    assert tasks == []


def test_a_message_that_is_an_error_is_refused():
    broken = Message(Error(code=1, reason="x"), reply_to=message(RecordDict()))
    said, tasks = ask(broken)
    assert said["code"] == "RNM-FORM-0002"
    assert tasks == []


def test_the_app_that_the_bundle_names_refuses_every_task_in_a_process_of_flowers_own():
    reply = client_app.app(message(record(authorisation=b"sealed")), CONTEXT)
    assert reply.content[client_app.RECORD]["code"] == "RNM-CONSENT-0004"


def test_client_app_tasks_alone_are_claimed():
    assert flower_adapter.TASK_TYPES == ("flwr-clientapp",)
