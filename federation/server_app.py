"""The Flower ServerApp: a courier between the coordinator and Flower's grid. Decides nothing.

It asks the coordinator over a unix socket for the next round authorisation, pushes it to the SuperNodes
of the members that take part, and reports what they reply, refusals and failures included. It holds
no key, sees no update, and serves one Renmei run.
"""

import os
import time
from collections.abc import Mapping

from fedproto.offline import seal_environment

seal_environment()

import grpc  # noqa: E402
from flwr.app import ConfigRecord, Context, Message, MessageType, RecordDict  # noqa: E402
from flwr.serverapp import Grid, ServerApp  # noqa: E402

from federation.app_bundle import RUN_KEY  # noqa: E402
from fedproto.v1 import dispatch_pb2, dispatch_pb2_grpc  # noqa: E402

# One Flower record each way; the member's side reads and writes the same names.
RECORD = "renmei"
_POLL_S = 0.1
_SOCKET = "RENMEI_DISPATCH_SOCKET"

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Carry authorisations to members and replies back until the run is finished."""
    run = str(context.run_config[RUN_KEY])
    # Our own coordinator behind a 0600 socket in its own directory: no network, hence no TLS.
    with grpc.insecure_channel(f"unix:{os.environ[_SOCKET]}") as channel:
        coordinator = dispatch_pb2_grpc.DispatchStub(channel)
        while True:
            order = coordinator.Next(dispatch_pb2.NextRequest(run=run), wait_for_ready=True)
            if order.finished:
                return
            replies = _carry(grid, order)
            coordinator.Report(dispatch_pb2.ReportRequest(run=run, ctx=order.ctx, replies=replies))


def _carry(grid: Grid, order: dispatch_pb2.NextResponse) -> list[dispatch_pb2.NodeReply]:
    deadline = time.monotonic() + order.timeout_s
    members = _await_nodes(grid, order.nodes, deadline)
    record = ConfigRecord({"authorisation": order.authorisation, "traceparent": order.traceparent})
    waiting: dict[str, str] = {}
    messages = [
        Message(RecordDict({RECORD: record}), dst_node_id=node_id, message_type=MessageType.TRAIN)
        for node_id in members
    ]
    for message_id, message in zip(grid.push_messages(messages), messages, strict=True):
        waiting[message_id] = members[message.metadata.dst_node_id]
    replies = [
        dispatch_pb2.NodeReply(
            member=member, code="RNM-TLS-0001", why="its Flower node is not connected"
        )
        for member in order.nodes
        if member not in members.values()
    ]
    while waiting and time.monotonic() < deadline:
        for reply in grid.pull_messages(list(waiting)):
            member = waiting.pop(reply.metadata.reply_to_message_id or "", None)
            if member is not None:
                replies.append(_reply(member, reply))
        time.sleep(_POLL_S)
    replies += [
        dispatch_pb2.NodeReply(member=member, code="RNM-ROUND-0002", why="no reply in time")
        for member in waiting.values()
    ]
    return replies


def _await_nodes(grid: Grid, wanted: Mapping[str, bytes], deadline: float) -> dict[int, str]:
    """Return the nodes of the wanted members by id, once all are there or it is late.

    After a restart SuperNodes come back one by one within half a minute; a member that stays away
    is a dropout, not a reason to wait for ever.
    """
    patience = min(deadline, time.monotonic() + 45)
    owners = {key: member for member, key in wanted.items()}
    while True:
        online = {
            node.node_id: owners[node.public_key]
            for node in grid.get_nodes()
            if node.public_key in owners and node.status == "online"
        }
        if len(online) == len(owners) or time.monotonic() > patience:
            return online
        time.sleep(_POLL_S)


def _reply(member: str, reply: Message) -> dispatch_pb2.NodeReply:
    if reply.has_error():
        return dispatch_pb2.NodeReply(
            member=member, code="RNM-PROC-0002", why=str(reply.error.reason)[:200]
        )
    record = reply.content.config_records.get(RECORD)
    if record is None:
        return dispatch_pb2.NodeReply(
            member=member, code="RNM-FORM-0002", why="the reply holds no record of Renmei"
        )
    receipt = record.get("receipt", b"")
    return dispatch_pb2.NodeReply(
        member=member,
        receipt=receipt if isinstance(receipt, bytes) else b"",
        code=str(record.get("code", "")),
        why=str(record.get("why", "")),
    )
