"""The Flower ClientApp of a member: installed here, approved here; the app bundle only names it.

It turns one Flower message into one answer of the agent, and holds nothing itself. The agent sets the
handler; without one, as in a process that Flower itself would start, every task is refused.
"""

from collections.abc import Callable

from fedproto.offline import seal_environment

seal_environment()

from flwr.app import ConfigRecord, Context, Message, RecordDict  # noqa: E402
from flwr.clientapp import ClientApp  # noqa: E402

from member_node.ports import Answer, Task  # noqa: E402

# The record's name and fields are those of the coordinator's ServerApp.
RECORD = "renmei"

app = ClientApp()


def refuse_all(_: Task) -> Answer:
    """Refuse: no agent stands behind this process."""
    return Answer(code="RNM-CONSENT-0004", why="tasks are answered by the member's agent alone")


class Handler:
    """Who answers; a slot, since Flower calls the app by name."""

    answer: Callable[[Task], Answer] = staticmethod(refuse_all)


@app.train()
def train(message: Message, _: Context) -> Message:
    """Hand the message's authorisation to the agent and its answer back."""
    return reply(message, answer_to(message))


def answer_to(message: Message) -> Answer:
    """Return the agent's answer; refuse a message of another form."""
    record = message.content.config_records.get(RECORD)
    authorisation = record.get("authorisation") if record is not None else None
    if not isinstance(authorisation, bytes):
        return Answer(code="RNM-FORM-0002", why="the message holds no round authorisation")
    traceparent = str(record.get("traceparent", "")) if record is not None else ""
    return Handler.answer(Task(authorisation=authorisation, traceparent=traceparent))


def reply(message: Message, answer: Answer) -> Message:
    """Return the Flower reply that carries an answer."""
    record = ConfigRecord({"receipt": answer.receipt, "code": answer.code, "why": answer.why})
    return Message(RecordDict({RECORD: record}), reply_to=message)
