"""The JSON of requests and answers, from which the description of the API (OpenAPI) is made."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt

from ..images.suffixes import UPLOAD_SUFFIXES

_KEY = r"^[A-Za-z0-9_-]{16,64}$"
_ID = r"^[0-9a-f]{32}$"
Key = Annotated[str, Field(pattern=_KEY, description="chosen by the client; the same again gives the same answer")]
Id = Annotated[str, Field(pattern=_ID)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", description="SHA-256, hexadecimal")]


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid")


class NewUpload(_Request):
    """An image that is to be sent."""

    key: Key
    kind: Annotated[str, Field(max_length=16, json_schema_extra={"enum": list(UPLOAD_SUFFIXES)})]
    size: Annotated[StrictInt, Field(ge=1, le=1 << 50, description="bytes")]
    sha256: Digest


class NewJob(_Request):
    """A segmentation that is wanted."""

    key: Key
    images: Annotated[list[Id], Field(min_length=1, max_length=100, description="uploads, one per channel")]
    models: Annotated[list[Annotated[str, Field(max_length=200)]], Field(min_length=1, max_length=20)]
    options: Annotated[dict[str, Any], Field(description="fields of ClassScaleSegLib.Options", max_length=50)] = {}
    confidence: StrictBool = False
    statistics: StrictBool = False
    keep_images: StrictBool = False


class UploadFacts(BaseModel):
    """How much of an image has arrived."""

    id: Id
    offset: int
    size: int
    complete: bool


class FileFacts(BaseModel):
    """A file of a result."""

    size: int
    sha256: Digest


class ResultFacts(BaseModel):
    """What came out of a job; numbers are null if the server was killed when it was finished."""

    structures: int | None
    seconds: Annotated[float | None, Field(allow_inf_nan=False)]
    changes: Annotated[list[dict[str, Any]] | None, Field(description="what cleaning up changed of each class")] = None
    files: dict[str, FileFacts]


class JobFacts(BaseModel):
    """How far a job is."""

    id: Id
    key: Key
    state: Literal["waiting", "running", "finished", "failed", "cancelled"]
    place: Annotated[int | None, Field(description="jobs that come before it; null unless it waits")]
    stage: str | None
    done: float | None
    total: float | None
    remaining: Annotated[float | None, Field(description="seconds")]
    part: int | None
    parts: int | None
    message: str | None
    error: str | None
    exit_code: int | None
    result: ResultFacts | None


class DeviceFacts(BaseModel):
    """Where one job can run at a time."""

    name: str
    about: str
    memory: Annotated[int | None, Field(description="bytes that a job may use; null if unknown, or without a token")]


class QueueFacts(BaseModel):
    """How many jobs there are."""

    waiting: int
    running: int


class Health(BaseModel):
    """What the server is, and how busy."""

    service: Literal["ClassScaleSeg"]
    api: int
    version: str
    instance: Annotated[str, Field(description="another one after each start")]
    token: Literal["accepted", "missing", "wrong", "not needed"]
    devices: list[DeviceFacts]
    queue: QueueFacts


class ModelFacts(BaseModel):
    """A model that the server offers."""

    id: str
    name: str
    parts: Annotated[list[dict[str, Any]], Field(description="classes, channels, grid; empty if brief")]
    licence: str | None
    notice: str | None
    sha256: list[str]


class Models(BaseModel):
    """The models that the server offers."""

    models: list[ModelFacts]


class _Error(BaseModel):
    model_config = ConfigDict(extra="allow")
    code: str
    message: str


class Error(BaseModel):
    """Why a request was not met: a code for programs, a sentence for people."""

    error: _Error
