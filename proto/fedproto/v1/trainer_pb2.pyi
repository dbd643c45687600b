from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class TrainerRequest(_message.Message):
    __slots__ = ("prepare", "train", "personalise")
    PREPARE_FIELD_NUMBER: _ClassVar[int]
    TRAIN_FIELD_NUMBER: _ClassVar[int]
    PERSONALISE_FIELD_NUMBER: _ClassVar[int]
    prepare: PrepareRequest
    train: TrainRequest
    personalise: PersonaliseRequest
    def __init__(self, prepare: _Optional[_Union[PrepareRequest, _Mapping]] = ..., train: _Optional[_Union[TrainRequest, _Mapping]] = ..., personalise: _Optional[_Union[PersonaliseRequest, _Mapping]] = ...) -> None: ...

class PrepareRequest(_message.Message):
    __slots__ = ("plan", "base_dir")
    PLAN_FIELD_NUMBER: _ClassVar[int]
    BASE_DIR_FIELD_NUMBER: _ClassVar[int]
    plan: bytes
    base_dir: str
    def __init__(self, plan: _Optional[bytes] = ..., base_dir: _Optional[str] = ...) -> None: ...

class TrainRequest(_message.Message):
    __slots__ = ("round", "adapter")
    ROUND_FIELD_NUMBER: _ClassVar[int]
    ADAPTER_FIELD_NUMBER: _ClassVar[int]
    round: int
    adapter: bytes
    def __init__(self, round: _Optional[int] = ..., adapter: _Optional[bytes] = ...) -> None: ...

class PersonaliseRequest(_message.Message):
    __slots__ = ("adapter",)
    ADAPTER_FIELD_NUMBER: _ClassVar[int]
    adapter: bytes
    def __init__(self, adapter: _Optional[bytes] = ...) -> None: ...

class TrainerReply(_message.Message):
    __slots__ = ("prepared", "progress", "delta", "personalised", "fault")
    PREPARED_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    DELTA_FIELD_NUMBER: _ClassVar[int]
    PERSONALISED_FIELD_NUMBER: _ClassVar[int]
    FAULT_FIELD_NUMBER: _ClassVar[int]
    prepared: Prepared
    progress: Progress
    delta: LocalDelta
    personalised: Personalised
    fault: TrainerFault
    def __init__(self, prepared: _Optional[_Union[Prepared, _Mapping]] = ..., progress: _Optional[_Union[Progress, _Mapping]] = ..., delta: _Optional[_Union[LocalDelta, _Mapping]] = ..., personalised: _Optional[_Union[Personalised, _Mapping]] = ..., fault: _Optional[_Union[TrainerFault, _Mapping]] = ...) -> None: ...

class Prepared(_message.Message):
    __slots__ = ("layout", "dataset", "initial_adapter")
    LAYOUT_FIELD_NUMBER: _ClassVar[int]
    DATASET_FIELD_NUMBER: _ClassVar[int]
    INITIAL_ADAPTER_FIELD_NUMBER: _ClassVar[int]
    layout: bytes
    dataset: str
    initial_adapter: bytes
    def __init__(self, layout: _Optional[bytes] = ..., dataset: _Optional[str] = ..., initial_adapter: _Optional[bytes] = ...) -> None: ...

class Progress(_message.Message):
    __slots__ = ("step", "steps", "loss", "eta_s")
    STEP_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    LOSS_FIELD_NUMBER: _ClassVar[int]
    ETA_S_FIELD_NUMBER: _ClassVar[int]
    step: int
    steps: int
    loss: float
    eta_s: float
    def __init__(self, step: _Optional[int] = ..., steps: _Optional[int] = ..., loss: _Optional[float] = ..., eta_s: _Optional[float] = ...) -> None: ...

class LocalDelta(_message.Message):
    __slots__ = ("delta", "weight")
    DELTA_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    delta: bytes
    weight: float
    def __init__(self, delta: _Optional[bytes] = ..., weight: _Optional[float] = ...) -> None: ...

class Personalised(_message.Message):
    __slots__ = ("path",)
    PATH_FIELD_NUMBER: _ClassVar[int]
    path: str
    def __init__(self, path: _Optional[str] = ...) -> None: ...

class TrainerFault(_message.Message):
    __slots__ = ("code", "what", "why", "mend")
    CODE_FIELD_NUMBER: _ClassVar[int]
    WHAT_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    MEND_FIELD_NUMBER: _ClassVar[int]
    code: str
    what: str
    why: str
    mend: str
    def __init__(self, code: _Optional[str] = ..., what: _Optional[str] = ..., why: _Optional[str] = ..., mend: _Optional[str] = ...) -> None: ...
