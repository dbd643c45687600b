from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Hello(_message.Message):
    __slots__ = ("ctx", "session")
    CTX_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    ctx: bytes
    session: bytes
    def __init__(self, ctx: _Optional[bytes] = ..., session: _Optional[bytes] = ...) -> None: ...

class Welcome(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class UploadBegin(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class UploadChunk(_message.Message):
    __slots__ = ("index", "data")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    index: int
    data: bytes
    def __init__(self, index: _Optional[int] = ..., data: _Optional[bytes] = ...) -> None: ...

class ChunkRequest(_message.Message):
    __slots__ = ("member", "index")
    MEMBER_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    member: str
    index: int
    def __init__(self, member: _Optional[str] = ..., index: _Optional[int] = ...) -> None: ...

class Abort(_message.Message):
    __slots__ = ("code", "why", "culprit")
    CODE_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    CULPRIT_FIELD_NUMBER: _ClassVar[int]
    code: str
    why: str
    culprit: str
    def __init__(self, code: _Optional[str] = ..., why: _Optional[str] = ..., culprit: _Optional[str] = ...) -> None: ...

class MemberFrame(_message.Message):
    __slots__ = ("hello", "advertise", "encrypted_shares", "masked_header", "masked_chunk", "confirm", "reveal", "abort", "complaint", "opening", "read_chunk", "audited", "upload_begin", "taken")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    ADVERTISE_FIELD_NUMBER: _ClassVar[int]
    ENCRYPTED_SHARES_FIELD_NUMBER: _ClassVar[int]
    MASKED_HEADER_FIELD_NUMBER: _ClassVar[int]
    MASKED_CHUNK_FIELD_NUMBER: _ClassVar[int]
    CONFIRM_FIELD_NUMBER: _ClassVar[int]
    REVEAL_FIELD_NUMBER: _ClassVar[int]
    ABORT_FIELD_NUMBER: _ClassVar[int]
    COMPLAINT_FIELD_NUMBER: _ClassVar[int]
    OPENING_FIELD_NUMBER: _ClassVar[int]
    READ_CHUNK_FIELD_NUMBER: _ClassVar[int]
    AUDITED_FIELD_NUMBER: _ClassVar[int]
    UPLOAD_BEGIN_FIELD_NUMBER: _ClassVar[int]
    TAKEN_FIELD_NUMBER: _ClassVar[int]
    hello: Hello
    advertise: bytes
    encrypted_shares: bytes
    masked_header: bytes
    masked_chunk: UploadChunk
    confirm: bytes
    reveal: bytes
    abort: Abort
    complaint: bytes
    opening: bytes
    read_chunk: ChunkRequest
    audited: bytes
    upload_begin: UploadBegin
    taken: int
    def __init__(self, hello: _Optional[_Union[Hello, _Mapping]] = ..., advertise: _Optional[bytes] = ..., encrypted_shares: _Optional[bytes] = ..., masked_header: _Optional[bytes] = ..., masked_chunk: _Optional[_Union[UploadChunk, _Mapping]] = ..., confirm: _Optional[bytes] = ..., reveal: _Optional[bytes] = ..., abort: _Optional[_Union[Abort, _Mapping]] = ..., complaint: _Optional[bytes] = ..., opening: _Optional[bytes] = ..., read_chunk: _Optional[_Union[ChunkRequest, _Mapping]] = ..., audited: _Optional[bytes] = ..., upload_begin: _Optional[_Union[UploadBegin, _Mapping]] = ..., taken: _Optional[int] = ...) -> None: ...

class Result(_message.Message):
    __slots__ = ("model_out", "ledger_index", "included")
    MODEL_OUT_FIELD_NUMBER: _ClassVar[int]
    LEDGER_INDEX_FIELD_NUMBER: _ClassVar[int]
    INCLUDED_FIELD_NUMBER: _ClassVar[int]
    model_out: bytes
    ledger_index: int
    included: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, model_out: _Optional[bytes] = ..., ledger_index: _Optional[int] = ..., included: _Optional[_Iterable[str]] = ...) -> None: ...

class CoordinatorFrame(_message.Message):
    __slots__ = ("key_list", "share_list", "survivor_list", "confirmations", "result", "abort", "complaint", "opening", "transcript", "chunk", "welcome", "credit", "taken", "transcripts")
    KEY_LIST_FIELD_NUMBER: _ClassVar[int]
    SHARE_LIST_FIELD_NUMBER: _ClassVar[int]
    SURVIVOR_LIST_FIELD_NUMBER: _ClassVar[int]
    CONFIRMATIONS_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    ABORT_FIELD_NUMBER: _ClassVar[int]
    COMPLAINT_FIELD_NUMBER: _ClassVar[int]
    OPENING_FIELD_NUMBER: _ClassVar[int]
    TRANSCRIPT_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    WELCOME_FIELD_NUMBER: _ClassVar[int]
    CREDIT_FIELD_NUMBER: _ClassVar[int]
    TAKEN_FIELD_NUMBER: _ClassVar[int]
    TRANSCRIPTS_FIELD_NUMBER: _ClassVar[int]
    key_list: bytes
    share_list: bytes
    survivor_list: bytes
    confirmations: bytes
    result: Result
    abort: Abort
    complaint: bytes
    opening: bytes
    transcript: bytes
    chunk: UploadChunk
    welcome: Welcome
    credit: int
    taken: int
    transcripts: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, key_list: _Optional[bytes] = ..., share_list: _Optional[bytes] = ..., survivor_list: _Optional[bytes] = ..., confirmations: _Optional[bytes] = ..., result: _Optional[_Union[Result, _Mapping]] = ..., abort: _Optional[_Union[Abort, _Mapping]] = ..., complaint: _Optional[bytes] = ..., opening: _Optional[bytes] = ..., transcript: _Optional[bytes] = ..., chunk: _Optional[_Union[UploadChunk, _Mapping]] = ..., welcome: _Optional[_Union[Welcome, _Mapping]] = ..., credit: _Optional[int] = ..., taken: _Optional[int] = ..., transcripts: _Optional[_Iterable[bytes]] = ...) -> None: ...
