"""What answers look like. Plain data: fields are read, and ``to_dict()`` gives JSON's types."""

from __future__ import annotations

import types
import typing
from dataclasses import asdict, dataclass, field, fields
from functools import cache
from typing import Any, TypeVar

T = TypeVar("T", bound="_Record")


class _Record:
    """Data with names, made of JSON. Fields that JSON lacks are left at their defaults; what it has besides is not looked at."""

    @classmethod
    def from_dict(cls: type[T], data: dict[str, Any]) -> T:
        """Reads JSON's types."""
        kinds = _kinds(typing.cast(Any, cls))
        return cls(**{name: _read(kinds[name], value) for name, value in data.items() if name in kinds})

    def to_dict(self) -> dict[str, Any]:
        """JSON's types; fields that are None are left out."""
        return typing.cast("dict[str, Any]", _plain(asdict(self)))  # type: ignore[call-overload]


@cache
def _kinds(cls: Any) -> dict[str, Any]:
    hints = typing.get_type_hints(cls)
    return {each.name: hints[each.name] for each in fields(cls)}


def _read(kind: Any, value: Any) -> Any:
    if value is None:
        return None
    arguments = typing.get_args(kind)
    if typing.get_origin(kind) is list:
        return [_read(arguments[0], item) for item in value]
    if isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union:
        return _read(arguments[0], value)
    return kind.from_dict(value) if isinstance(kind, type) and issubclass(kind, _Record) else value


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items() if item is not None}
    return [_plain(item) for item in value] if isinstance(value, list) else value


@dataclass
class PromptTokensDetails(_Record):
    """What tokens of a prompt were."""

    cached_tokens: int = 0
    """Found in the cache: they were not computed again."""
    image_tokens: int = 0
    audio_tokens: int = 0
    video_tokens: int = 0


@dataclass
class CompletionTokensDetails(_Record):
    """What tokens of an answer were."""

    reasoning_tokens: int = 0


@dataclass
class Usage(_Record):
    """What a request took. Tokens of all choices are counted; times are in seconds and end with the last choice."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
    avg_tok_per_sec: float = 0.0
    """Of prompt and answer together."""
    avg_prompt_tok_per_sec: float = 0.0
    """Those of the prompt that had to be computed."""
    avg_compl_tok_per_sec: float = 0.0
    total_time_sec: float = 0.0
    """From the request to the end of the answer: fetching and decoding media, waiting, computing."""
    total_prompt_time_sec: float = 0.0
    """Until the first token was there."""
    total_completion_time_sec: float = 0.0
    """From the first token to the last."""
    prompt_tokens_details: PromptTokensDetails | None = None
    completion_tokens_details: CompletionTokensDetails | None = None


@dataclass
class TopLogprob(_Record):
    """A token that could have been drawn."""

    token: str
    """Its text, by itself."""
    logprob: float
    """Natural logarithm of its probability, before temperature and truncation."""
    bytes: list[int] | None = None
    """The text in UTF-8."""


@dataclass
class ResponseLogprob(TopLogprob):
    """A token that was drawn, and the most probable ones in its place."""

    top_logprobs: list[TopLogprob] = field(default_factory=list)


@dataclass
class Logprobs(_Record):
    """Probabilities of an answer's tokens."""

    content: list[ResponseLogprob] | None = None


@dataclass
class CalledFunction(_Record):
    """A function that the model calls."""

    name: str | None = None
    """In a stream, only in the first chunk of a call."""
    arguments: str = ""
    """JSON; in a stream, more of it."""


@dataclass
class ToolCallResponse(_Record):
    """A call of a function. Its result goes back in a message with the role ``tool`` and this id as ``tool_call_id``."""

    function: CalledFunction
    id: str | None = None
    """In a stream, only in the first chunk of a call."""
    type: str = "function"
    index: int = 0
    """Which of the answer's calls."""

    @property
    def tp(self) -> str:
        """The same as ``type``."""
        return self.type


@dataclass
class ResponseMessage(_Record):
    """What was said. It can be appended to ``messages`` as it is."""

    content: str | None = None
    """None where there are only calls."""
    role: str = "assistant"
    tool_calls: list[ToolCallResponse] | None = None
    reasoning_content: str | None = None
    """What was thought first, where the model keeps that apart."""
    parsed: Any = field(default=None, repr=False)
    """An instance of the pydantic model that was the request's ``response_format``."""

    def to_dict(self) -> dict[str, Any]:
        """A message as requests take it."""
        message = super().to_dict()
        message.pop("parsed", None)
        return {"content": None, **message}


@dataclass
class Choice(_Record):
    """One answer."""

    message: ResponseMessage
    finish_reason: str = "stop"
    """``stop``, ``length`` (it has as many tokens as were asked for) or ``tool_calls``."""
    index: int = 0
    logprobs: Logprobs | None = None
    token_ids: list[int] | None = None
    """With the end token, when ``return_token_ids`` was asked for."""


@dataclass
class MediaReceived(_Record):
    """What became of a picture, sound or clip."""

    param: str
    """Its place in the request."""
    type: str
    """``image``, ``audio`` or ``video``."""
    bytes: int
    """Before decoding."""
    tokens: int
    """That stand for it in the prompt."""
    cached: bool = False
    """An earlier request had brought it; nothing was spent on it."""
    size: list[int] | None = None
    """Of a picture: width and height in pixels."""
    views: list[list[int]] | None = None
    """Of a picture: width and height of what the model looks at, the whole or its parts."""
    seconds: float | None = None
    """Of a sound."""
    frames: int | None = None
    """Of a clip: those that were looked at."""
    timestamps: list[float] | None = None
    """Of a clip: when they are shown, in seconds."""
    frame_size: list[int] | None = None
    """Of a clip: width and height of what the model looks at."""
    decode_ms: float = 0.0
    process_ms: float = 0.0


@dataclass
class AgenticToolCall(_Record):
    """A call of a function that ran here on the way to the answer."""

    round: int
    name: str
    arguments: str
    """JSON."""
    result_content: str
    """What the model was told."""
    result_images_base64: list[str] = field(default_factory=list)
    """What it was shown."""


@dataclass
class ChatCompletionResponse(_Record):
    """The answer to a :class:`ChatCompletionRequest`."""

    id: str
    choices: list[Choice]
    created: int
    """Seconds since 1970."""
    model: str
    usage: Usage
    object: str = "chat.completion"
    system_fingerprint: str = "local"
    media: list[MediaReceived] | None = None
    """When ``return_media`` was asked for."""
    prompt_token_ids: list[int] | None = None
    """When ``return_token_ids`` was asked for."""
    agentic_tool_calls: list[AgenticToolCall] | None = None
    """Calls of functions that ran here."""


@dataclass
class Delta(_Record):
    """More of an answer."""

    content: str = ""
    role: str = "assistant"
    tool_calls: list[ToolCallResponse] | None = None
    reasoning_content: str | None = None


@dataclass
class ChunkChoice(_Record):
    """More of one choice."""

    delta: Delta
    finish_reason: str | None = None
    """In its last chunk."""
    index: int = 0
    logprobs: Logprobs | None = None
    token_ids: list[int] | None = None


@dataclass
class ChatCompletionChunkResponse(_Record):
    """A piece of an answer on its way."""

    id: str
    choices: list[ChunkChoice]
    created: int
    model: str
    object: str = "chat.completion.chunk"
    system_fingerprint: str = "local"
    usage: Usage | None = None
    """In the last chunk."""
    media: list[MediaReceived] | None = None
    """In the last chunk, when ``return_media`` was asked for."""
    prompt_token_ids: list[int] | None = None


@dataclass
class CompletionLogprobs(_Record):
    """Probabilities of tokens, token by token."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]
    text_offset: list[int]


@dataclass
class CompletionChoice(_Record):
    """One continuation."""

    text: str
    finish_reason: str | None = None
    index: int = 0
    logprobs: CompletionLogprobs | None = None


@dataclass
class CompletionResponse(_Record):
    """The answer to a :class:`CompletionRequest`, or a piece of it."""

    id: str
    choices: list[CompletionChoice]
    created: int
    model: str
    object: str = "text_completion"
    system_fingerprint: str = "local"
    usage: Usage | None = None
    """In a stream, in the last piece."""


@dataclass
class PromptTokens(_Record):
    """What a request would take."""

    input_tokens: int
    """Of the prompt, those that stand for media included."""
    max_model_len: int
    """Tokens that a prompt and its answer may have together."""
    fits: bool
    """Whether there is room for an answer."""
    media: list[MediaReceived] = field(default_factory=list)


@dataclass
class ModelInfo(_Record):
    """A loaded model."""

    id: str
    family: str
    """Short name of its family."""
    title: str
    """What people call the family."""
    modalities: list[str]
    """What it takes: ``text``, ``image``, ``audio``, ``video``."""
    max_sequence_length: int
    """Tokens that a prompt and its answer may have together."""
    kv_cache_tokens: int
    """Tokens for which there is room at once."""
    kv_cache_bytes: int
    chat_template: str
    """Where its chat template came from."""
    warnings: list[str] = field(default_factory=list)
    """What is odd about how it was loaded."""
