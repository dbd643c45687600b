"""The Flower ServerApp: a courier between the coordinator and Flower's grid. Decides nothing.

It asks the coordinator over a unix socket for the next round authorisation, pushes it to the SuperNodes
of the members that take part, each as soon as its node is there, and reports every reply when it comes,
refusals and failures included, so that a round never waits for a member that is known to stay away. A
new order ends the work on the one before. It holds no key, sees no update, and serves one Renmei run.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from fedproto.offline import seal_environment

seal_environment()

import grpc  # noqa: E402
from flwr.app import ConfigRecord, Context, Message, MessageType, RecordDict  # noqa: E402
from flwr.serverapp import Grid, ServerApp  # noqa: E402

from federation.app_bundle import RUN_KEY  # noqa: E402
from fedproto.v1 import dispatch_pb2, dispatch_pb2_grpc  # noqa: E402
from fedproto.v1.dispatch_pb2 import NextResponse, NodeReply  # noqa: E402

# One Flower record each way; the member's side reads and writes the same names.
RECORD = "renmei"
_POLL_S = 0.1
# After a restart SuperNodes come back one by one within half a minute.
_ABSENT_S = 45.0
# How long the last replies of a run may take: they are on their way when its last round ends.
_LAST_S = 10.0
_SOCKET = "RENMEI_DISPATCH_SOCKET"

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Carry authorisations to members and replies back until the run is finished."""
    run = str(context.run_config[RUN_KEY])
    # Our own coordinator behind a 0600 socket in its own directory: no network, hence no TLS.
    with grpc.insecure_channel(f"unix:{os.environ[_SOCKET]}") as channel:
        coordinator = dispatch_pb2_grpc.DispatchStub(channel)

        def report(ctx: bytes, replies: list[NodeReply]) -> None:
            coordinator.Report(dispatch_pb2.ReportRequest(run=run, ctx=ctx, replies=replies))

        request = dispatch_pb2.NextRequest(run=run)
        order = coordinator.Next(request, wait_for_ready=True)
        while not order.finished:
            # Asked for at once: the next order tells that this one is over.
            following = coordinator.Next.future(request)
            Errand(grid, order, report).carry(following)
            order = following.result()


@dataclass(slots=True)
class Errand:
    """One order on its way to the nodes, and their replies on the way back."""

    grid: Grid
    order: NextResponse
    report: Callable[[bytes, list[NodeReply]], None]
    # Members that were not reached yet, and those whose reply has not come, by message.
    _absent: set[str] = field(default_factory=set)
    _waiting: dict[str, str] = field(default_factory=dict)

    def carry(self, following: "grpc.Future[NextResponse]") -> None:
        """Push and pull until all have replied, it is late, or the next order is there."""
        started = time.monotonic()
        late_at = started + self.order.timeout_s
        last_at: float | None = None
        self._absent = set(self.order.nodes)
        while (self._absent or self._waiting) and time.monotonic() < late_at:
            if following.done():
                last_at = last_at or time.monotonic() + _LAST_S
                if not following.result().finished or time.monotonic() > last_at:
                    return
            self._push()
            replies = self._pull()
            if self._absent and time.monotonic() > started + _ABSENT_S:
                replies += _failed(self._absent, "RNM-TLS-0001", "its Flower node is not connected")
                self._absent.clear()
            if replies:
                self.report(self.order.ctx, replies)
            time.sleep(_POLL_S)
        self._absent.update(self._waiting.values())
        self.report(self.order.ctx, _failed(self._absent, "RNM-ROUND-0002", "no reply in time"))

    def _push(self) -> None:
        """Send the authorisation to each node that has come on line since."""
        if not self._absent:
            return
        owners = {key: member for member, key in self.order.nodes.items() if member in self._absent}
        online = {
            node.node_id: owners[node.public_key]
            for node in self.grid.get_nodes()
            if node.public_key in owners and node.status == "online"
        }
        record = ConfigRecord(
            {
                "authorisation": self.order.authorisation,
                "traceparent": self.order.traceparent,
            }
        )
        messages = [
            Message(
                RecordDict({RECORD: record}), dst_node_id=node_id, message_type=MessageType.TRAIN
            )
            for node_id in online
        ]
        if not messages:
            return
        for message_id, message in zip(self.grid.push_messages(messages), messages, strict=True):
            member = online[message.metadata.dst_node_id]
            self._waiting[message_id] = member
            self._absent.discard(member)

    def _pull(self) -> list[NodeReply]:
        replies = []
        for reply in self.grid.pull_messages(list(self._waiting)) if self._waiting else ():
            member = self._waiting.pop(reply.metadata.reply_to_message_id or "", None)
            if member is not None:
                replies.append(_reply(member, reply))
        return replies


def _failed(members: set[str], code: str, why: str) -> list[NodeReply]:
    return [NodeReply(member=member, code=code, why=why) for member in sorted(members)]


def _reply(member: str, reply: Message) -> NodeReply:
    if reply.has_error():
        return NodeReply(member=member, code="RNM-PROC-0002", why=str(reply.error.reason)[:200])
    record = reply.content.config_records.get(RECORD)
    if record is None:
        return NodeReply(
            member=member, code="RNM-FORM-0002", why="the reply holds no record of Renmei"
        )
    receipt = record.get("receipt", b"")
    return NodeReply(
        member=member,
        receipt=receipt if isinstance(receipt, bytes) else b"",
        code=str(record.get("code", "")),
        why=str(record.get("why", "")),
    )
