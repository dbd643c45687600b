from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class ValidateRequest(_message.Message):
    __slots__ = ("size", "line")
    SIZE_FIELD_NUMBER: _ClassVar[int]
    LINE_FIELD_NUMBER: _ClassVar[int]
    size: int
    line: bytes
    def __init__(self, size: _Optional[int] = ..., line: _Optional[bytes] = ...) -> None: ...

class ValidateResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class WitnessRequest(_message.Message):
    __slots__ = ("id", "add_checkpoint")
    ID_FIELD_NUMBER: _ClassVar[int]
    ADD_CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    id: int
    add_checkpoint: bytes
    def __init__(self, id: _Optional[int] = ..., add_checkpoint: _Optional[bytes] = ...) -> None: ...

class WitnessAnswer(_message.Message):
    __slots__ = ("id", "status", "body")
    ID_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    id: int
    status: int
    body: bytes
    def __init__(self, id: _Optional[int] = ..., status: _Optional[int] = ..., body: _Optional[bytes] = ...) -> None: ...
