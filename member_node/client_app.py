"""The Flower ClientApp of a member: installed here, approved here; the app bundle only names it.

It turns one Flower message into one answer of the agent, and holds nothing itself.
"""

from collections.abc import Callable

from fedproto.offline import seal_environment

seal_environment()

from flwr.app import ConfigRecord, Context, Message, MessageType, RecordDict  # noqa: E402
from flwr.clientapp import ClientApp  # noqa: E402

from member_node.ports import Answer, Task  # noqa: E402

# The record's name and fields are those of the coordinator's ServerApp.
RECORD = "renmei"


def make_app(answer: Callable[[Task], Answer]) -> ClientApp:
    """Return a ClientApp that hands each message's authorisation to `answer`."""
    made = ClientApp()

    @made.train()
    def train(message: Message, _: Context) -> Message:
        return _reply(message, _answer(message, answer))

    return made


def respond(app: ClientApp, message: Message, context: Context) -> Message:
    """Return the app's reply, or a refusal of what is no round authorisation; never raises for it.

    A ClientApp raises for a message type that it does not know, and a SuperLink may send any.
    """
    if message.has_error() or message.metadata.message_type != MessageType.TRAIN:
        return _reply(message, Answer(code="RNM-FORM-0002", why="the message is of another kind"))
    return app(message, context)


def _answer(message: Message, answer: Callable[[Task], Answer]) -> Answer:
    record = message.content.config_records.get(RECORD)
    authorisation = record.get("authorisation") if record is not None else None
    traceparent = record.get("traceparent", "") if record is not None else None
    if not isinstance(authorisation, bytes) or not isinstance(traceparent, str):
        return Answer(code="RNM-FORM-0002", why="the message holds no round authorisation")
    return answer(Task(authorisation=authorisation, traceparent=traceparent))


def _reply(message: Message, answer: Answer) -> Message:
    record = ConfigRecord({"receipt": answer.receipt, "code": answer.code, "why": answer.why})
    return Message(RecordDict({RECORD: record}), reply_to=message)


def _refuse(_: Task) -> Answer:
    return Answer(code="RNM-CONSENT-0004", why="tasks are answered by the member's agent alone")


# What the app bundle names: in a process that Flower itself would start, every task is refused.
app = make_app(_refuse)
