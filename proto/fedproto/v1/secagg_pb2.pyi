from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Advertise(_message.Message):
    __slots__ = ("ctx", "member", "mask_x25519", "mask_mlkem", "channel_x25519", "channel_mlkem", "signature")
    CTX_FIELD_NUMBER: _ClassVar[int]
    MEMBER_FIELD_NUMBER: _ClassVar[int]
    MASK_X25519_FIELD_NUMBER: _ClassVar[int]
    MASK_MLKEM_FIELD_NUMBER: _ClassVar[int]
    CHANNEL_X25519_FIELD_NUMBER: _ClassVar[int]
    CHANNEL_MLKEM_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    ctx: bytes
    member: str
    mask_x25519: bytes
    mask_mlkem: bytes
    channel_x25519: bytes
    channel_mlkem: bytes
    signature: bytes
    def __init__(self, ctx: _Optional[bytes] = ..., member: _Optional[str] = ..., mask_x25519: _Optional[bytes] = ..., mask_mlkem: _Optional[bytes] = ..., channel_x25519: _Optional[bytes] = ..., channel_mlkem: _Optional[bytes] = ..., signature: _Optional[bytes] = ...) -> None: ...

class KeyList(_message.Message):
    __slots__ = ("keys",)
    KEYS_FIELD_NUMBER: _ClassVar[int]
    keys: _containers.RepeatedCompositeFieldContainer[Advertise]
    def __init__(self, keys: _Optional[_Iterable[_Union[Advertise, _Mapping]]] = ...) -> None: ...

class SealedShare(_message.Message):
    __slots__ = ("ciphertext", "kem_ciphertext", "kem_wrapped", "mask_commitment", "self_commitment", "kem_commitment")
    CIPHERTEXT_FIELD_NUMBER: _ClassVar[int]
    KEM_CIPHERTEXT_FIELD_NUMBER: _ClassVar[int]
    KEM_WRAPPED_FIELD_NUMBER: _ClassVar[int]
    MASK_COMMITMENT_FIELD_NUMBER: _ClassVar[int]
    SELF_COMMITMENT_FIELD_NUMBER: _ClassVar[int]
    KEM_COMMITMENT_FIELD_NUMBER: _ClassVar[int]
    ciphertext: bytes
    kem_ciphertext: bytes
    kem_wrapped: bytes
    mask_commitment: bytes
    self_commitment: bytes
    kem_commitment: bytes
    def __init__(self, ciphertext: _Optional[bytes] = ..., kem_ciphertext: _Optional[bytes] = ..., kem_wrapped: _Optional[bytes] = ..., mask_commitment: _Optional[bytes] = ..., self_commitment: _Optional[bytes] = ..., kem_commitment: _Optional[bytes] = ...) -> None: ...

class ShareHeader(_message.Message):
    __slots__ = ("ctx", "h1", "member", "self_seed_commitment", "entry_digests", "signature")
    CTX_FIELD_NUMBER: _ClassVar[int]
    H1_FIELD_NUMBER: _ClassVar[int]
    MEMBER_FIELD_NUMBER: _ClassVar[int]
    SELF_SEED_COMMITMENT_FIELD_NUMBER: _ClassVar[int]
    ENTRY_DIGESTS_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    ctx: bytes
    h1: bytes
    member: str
    self_seed_commitment: bytes
    entry_digests: _containers.RepeatedScalarFieldContainer[bytes]
    signature: bytes
    def __init__(self, ctx: _Optional[bytes] = ..., h1: _Optional[bytes] = ..., member: _Optional[str] = ..., self_seed_commitment: _Optional[bytes] = ..., entry_digests: _Optional[_Iterable[bytes]] = ..., signature: _Optional[bytes] = ...) -> None: ...

class EncryptedShares(_message.Message):
    __slots__ = ("header", "entries")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    header: ShareHeader
    entries: _containers.RepeatedCompositeFieldContainer[SealedShare]
    def __init__(self, header: _Optional[_Union[ShareHeader, _Mapping]] = ..., entries: _Optional[_Iterable[_Union[SealedShare, _Mapping]]] = ...) -> None: ...

class DealtShare(_message.Message):
    __slots__ = ("header", "entry")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    ENTRY_FIELD_NUMBER: _ClassVar[int]
    header: ShareHeader
    entry: SealedShare
    def __init__(self, header: _Optional[_Union[ShareHeader, _Mapping]] = ..., entry: _Optional[_Union[SealedShare, _Mapping]] = ...) -> None: ...

class ShareList(_message.Message):
    __slots__ = ("dealt",)
    DEALT_FIELD_NUMBER: _ClassVar[int]
    dealt: _containers.RepeatedCompositeFieldContainer[DealtShare]
    def __init__(self, dealt: _Optional[_Iterable[_Union[DealtShare, _Mapping]]] = ...) -> None: ...

class UploadHeader(_message.Message):
    __slots__ = ("ctx", "h1", "h2", "member", "root", "signature")
    CTX_FIELD_NUMBER: _ClassVar[int]
    H1_FIELD_NUMBER: _ClassVar[int]
    H2_FIELD_NUMBER: _ClassVar[int]
    MEMBER_FIELD_NUMBER: _ClassVar[int]
    ROOT_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    ctx: bytes
    h1: bytes
    h2: bytes
    member: str
    root: bytes
    signature: bytes
    def __init__(self, ctx: _Optional[bytes] = ..., h1: _Optional[bytes] = ..., h2: _Optional[bytes] = ..., member: _Optional[str] = ..., root: _Optional[bytes] = ..., signature: _Optional[bytes] = ...) -> None: ...

class MaskedHeader(_message.Message):
    __slots__ = ("header", "words", "chunk_digests")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    WORDS_FIELD_NUMBER: _ClassVar[int]
    CHUNK_DIGESTS_FIELD_NUMBER: _ClassVar[int]
    header: UploadHeader
    words: int
    chunk_digests: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, header: _Optional[_Union[UploadHeader, _Mapping]] = ..., words: _Optional[int] = ..., chunk_digests: _Optional[_Iterable[bytes]] = ...) -> None: ...

class SurvivorList(_message.Message):
    __slots__ = ("headers",)
    HEADERS_FIELD_NUMBER: _ClassVar[int]
    headers: _containers.RepeatedCompositeFieldContainer[UploadHeader]
    def __init__(self, headers: _Optional[_Iterable[_Union[UploadHeader, _Mapping]]] = ...) -> None: ...

class Confirm(_message.Message):
    __slots__ = ("ctx", "h1", "h2", "h3", "member", "signature")
    CTX_FIELD_NUMBER: _ClassVar[int]
    H1_FIELD_NUMBER: _ClassVar[int]
    H2_FIELD_NUMBER: _ClassVar[int]
    H3_FIELD_NUMBER: _ClassVar[int]
    MEMBER_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    ctx: bytes
    h1: bytes
    h2: bytes
    h3: bytes
    member: str
    signature: bytes
    def __init__(self, ctx: _Optional[bytes] = ..., h1: _Optional[bytes] = ..., h2: _Optional[bytes] = ..., h3: _Optional[bytes] = ..., member: _Optional[str] = ..., signature: _Optional[bytes] = ...) -> None: ...

class Confirmations(_message.Message):
    __slots__ = ("confirms",)
    CONFIRMS_FIELD_NUMBER: _ClassVar[int]
    confirms: _containers.RepeatedCompositeFieldContainer[Confirm]
    def __init__(self, confirms: _Optional[_Iterable[_Union[Confirm, _Mapping]]] = ...) -> None: ...

class RevealedShare(_message.Message):
    __slots__ = ("member", "share", "salt")
    MEMBER_FIELD_NUMBER: _ClassVar[int]
    SHARE_FIELD_NUMBER: _ClassVar[int]
    SALT_FIELD_NUMBER: _ClassVar[int]
    member: str
    share: bytes
    salt: bytes
    def __init__(self, member: _Optional[str] = ..., share: _Optional[bytes] = ..., salt: _Optional[bytes] = ...) -> None: ...

class Reveal(_message.Message):
    __slots__ = ("ctx", "h1", "h2", "h3", "member", "self_shares", "mask_shares", "signature")
    CTX_FIELD_NUMBER: _ClassVar[int]
    H1_FIELD_NUMBER: _ClassVar[int]
    H2_FIELD_NUMBER: _ClassVar[int]
    H3_FIELD_NUMBER: _ClassVar[int]
    MEMBER_FIELD_NUMBER: _ClassVar[int]
    SELF_SHARES_FIELD_NUMBER: _ClassVar[int]
    MASK_SHARES_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    ctx: bytes
    h1: bytes
    h2: bytes
    h3: bytes
    member: str
    self_shares: _containers.RepeatedCompositeFieldContainer[RevealedShare]
    mask_shares: _containers.RepeatedCompositeFieldContainer[RevealedShare]
    signature: bytes
    def __init__(self, ctx: _Optional[bytes] = ..., h1: _Optional[bytes] = ..., h2: _Optional[bytes] = ..., h3: _Optional[bytes] = ..., member: _Optional[str] = ..., self_shares: _Optional[_Iterable[_Union[RevealedShare, _Mapping]]] = ..., mask_shares: _Optional[_Iterable[_Union[RevealedShare, _Mapping]]] = ..., signature: _Optional[bytes] = ...) -> None: ...

class Complaint(_message.Message):
    __slots__ = ("ctx", "h1", "h2", "member", "dealer", "reason", "signature")
    CTX_FIELD_NUMBER: _ClassVar[int]
    H1_FIELD_NUMBER: _ClassVar[int]
    H2_FIELD_NUMBER: _ClassVar[int]
    MEMBER_FIELD_NUMBER: _ClassVar[int]
    DEALER_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    ctx: bytes
    h1: bytes
    h2: bytes
    member: str
    dealer: str
    reason: str
    signature: bytes
    def __init__(self, ctx: _Optional[bytes] = ..., h1: _Optional[bytes] = ..., h2: _Optional[bytes] = ..., member: _Optional[str] = ..., dealer: _Optional[str] = ..., reason: _Optional[str] = ..., signature: _Optional[bytes] = ...) -> None: ...

class Opening(_message.Message):
    __slots__ = ("ctx", "h1", "h2", "member", "holder", "mask_share", "self_share", "mask_salt", "self_salt", "signature")
    CTX_FIELD_NUMBER: _ClassVar[int]
    H1_FIELD_NUMBER: _ClassVar[int]
    H2_FIELD_NUMBER: _ClassVar[int]
    MEMBER_FIELD_NUMBER: _ClassVar[int]
    HOLDER_FIELD_NUMBER: _ClassVar[int]
    MASK_SHARE_FIELD_NUMBER: _ClassVar[int]
    SELF_SHARE_FIELD_NUMBER: _ClassVar[int]
    MASK_SALT_FIELD_NUMBER: _ClassVar[int]
    SELF_SALT_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    ctx: bytes
    h1: bytes
    h2: bytes
    member: str
    holder: str
    mask_share: bytes
    self_share: bytes
    mask_salt: bytes
    self_salt: bytes
    signature: bytes
    def __init__(self, ctx: _Optional[bytes] = ..., h1: _Optional[bytes] = ..., h2: _Optional[bytes] = ..., member: _Optional[str] = ..., holder: _Optional[str] = ..., mask_share: _Optional[bytes] = ..., self_share: _Optional[bytes] = ..., mask_salt: _Optional[bytes] = ..., self_salt: _Optional[bytes] = ..., signature: _Optional[bytes] = ...) -> None: ...

class RecoveredSecret(_message.Message):
    __slots__ = ("member", "secret")
    MEMBER_FIELD_NUMBER: _ClassVar[int]
    SECRET_FIELD_NUMBER: _ClassVar[int]
    member: str
    secret: bytes
    def __init__(self, member: _Optional[str] = ..., secret: _Optional[bytes] = ...) -> None: ...

class EdgeEntry(_message.Message):
    __slots__ = ("dealer", "holder", "entry")
    DEALER_FIELD_NUMBER: _ClassVar[int]
    HOLDER_FIELD_NUMBER: _ClassVar[int]
    ENTRY_FIELD_NUMBER: _ClassVar[int]
    dealer: str
    holder: str
    entry: SealedShare
    def __init__(self, dealer: _Optional[str] = ..., holder: _Optional[str] = ..., entry: _Optional[_Union[SealedShare, _Mapping]] = ...) -> None: ...

class SumTranscript(_message.Message):
    __slots__ = ("ctx", "h3", "messages", "uploads", "self_seeds", "mask_secrets", "edges", "words", "sum_digests", "signature")
    CTX_FIELD_NUMBER: _ClassVar[int]
    H3_FIELD_NUMBER: _ClassVar[int]
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    UPLOADS_FIELD_NUMBER: _ClassVar[int]
    SELF_SEEDS_FIELD_NUMBER: _ClassVar[int]
    MASK_SECRETS_FIELD_NUMBER: _ClassVar[int]
    EDGES_FIELD_NUMBER: _ClassVar[int]
    WORDS_FIELD_NUMBER: _ClassVar[int]
    SUM_DIGESTS_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    ctx: bytes
    h3: bytes
    messages: bytes
    uploads: _containers.RepeatedCompositeFieldContainer[MaskedHeader]
    self_seeds: _containers.RepeatedCompositeFieldContainer[RecoveredSecret]
    mask_secrets: _containers.RepeatedCompositeFieldContainer[RecoveredSecret]
    edges: _containers.RepeatedCompositeFieldContainer[EdgeEntry]
    words: int
    sum_digests: _containers.RepeatedScalarFieldContainer[bytes]
    signature: bytes
    def __init__(self, ctx: _Optional[bytes] = ..., h3: _Optional[bytes] = ..., messages: _Optional[bytes] = ..., uploads: _Optional[_Iterable[_Union[MaskedHeader, _Mapping]]] = ..., self_seeds: _Optional[_Iterable[_Union[RecoveredSecret, _Mapping]]] = ..., mask_secrets: _Optional[_Iterable[_Union[RecoveredSecret, _Mapping]]] = ..., edges: _Optional[_Iterable[_Union[EdgeEntry, _Mapping]]] = ..., words: _Optional[int] = ..., sum_digests: _Optional[_Iterable[bytes]] = ..., signature: _Optional[bytes] = ...) -> None: ...
