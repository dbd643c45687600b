from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class NextRequest(_message.Message):
    __slots__ = ("run",)
    RUN_FIELD_NUMBER: _ClassVar[int]
    run: str
    def __init__(self, run: _Optional[str] = ...) -> None: ...

class NextResponse(_message.Message):
    __slots__ = ("finished", "authorisation", "traceparent", "nodes", "timeout_s", "ctx")
    class NodesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: bytes
        def __init__(self, key: _Optional[str] = ..., value: _Optional[bytes] = ...) -> None: ...
    FINISHED_FIELD_NUMBER: _ClassVar[int]
    AUTHORISATION_FIELD_NUMBER: _ClassVar[int]
    TRACEPARENT_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_S_FIELD_NUMBER: _ClassVar[int]
    CTX_FIELD_NUMBER: _ClassVar[int]
    finished: bool
    authorisation: bytes
    traceparent: str
    nodes: _containers.ScalarMap[str, bytes]
    timeout_s: int
    ctx: bytes
    def __init__(self, finished: _Optional[bool] = ..., authorisation: _Optional[bytes] = ..., traceparent: _Optional[str] = ..., nodes: _Optional[_Mapping[str, bytes]] = ..., timeout_s: _Optional[int] = ..., ctx: _Optional[bytes] = ...) -> None: ...

class NodeReply(_message.Message):
    __slots__ = ("member", "receipt", "code", "why")
    MEMBER_FIELD_NUMBER: _ClassVar[int]
    RECEIPT_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    member: str
    receipt: bytes
    code: str
    why: str
    def __init__(self, member: _Optional[str] = ..., receipt: _Optional[bytes] = ..., code: _Optional[str] = ..., why: _Optional[str] = ...) -> None: ...

class ReportRequest(_message.Message):
    __slots__ = ("run", "ctx", "replies")
    RUN_FIELD_NUMBER: _ClassVar[int]
    CTX_FIELD_NUMBER: _ClassVar[int]
    REPLIES_FIELD_NUMBER: _ClassVar[int]
    run: str
    ctx: bytes
    replies: _containers.RepeatedCompositeFieldContainer[NodeReply]
    def __init__(self, run: _Optional[str] = ..., ctx: _Optional[bytes] = ..., replies: _Optional[_Iterable[_Union[NodeReply, _Mapping]]] = ...) -> None: ...

class ReportResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
