"""What is asked: :class:`ChatCompletionRequest` and :class:`CompletionRequest`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar, Literal, Union

from .enums import ToolChoice
from .errors import InvalidRequestError, UnsupportedError
from .media import plain_messages

GrammarType = Literal["regex", "lark", "json_schema", "llguidance", "choice"]
Effort = Literal["none", "off", "minimal", "low", "medium", "high", "xhigh"]

_RENAMED = {"n_choices": "n", "stop_seqs": "stop", "tool_schemas": "tools"}
_NOT_HERE = {
    "truncate_sequence": "what does not fit is refused; nothing is left out in silence",
    "adapter": "adapters of one's own are not loaded",
    "best_of": "ask for n_choices",
    "suffix": "text is continued, not filled in",
    "enable_code_execution": "there is no sandbox that code could run in",
    "enable_shell": "there is no sandbox that commands could run in",
    "session_id": "messages hold the whole conversation",
    "web_search_options": "the web is not searched from Python",
    "tool_dispatch_url": "give the Runner tool_callbacks, or answer the calls yourself",
}


@dataclass
class _Request:
    """Fields that chats and completions share."""

    # Fields that are not sent as they are.
    _handled: ClassVar[frozenset[str]] = frozenset()

    def _body(self) -> dict[str, Any]:
        """The request in OpenAI's JSON. What has its usual value is left out."""
        body: dict[str, Any] = {}
        for name, value in vars(self).items():
            if value is None or value is False or name in self._handled:
                continue
            if name in _NOT_HERE:
                raise UnsupportedError(f"{name}: {_NOT_HERE[name]}")
            body[_RENAMED.get(name, name)] = value
        if (bias := body.get("logit_bias")) is not None:
            body["logit_bias"] = {str(token): value for token, value in bias.items()}
        return body

    def _form(self, grammar: Any, kind: str | None) -> dict[str, Any]:
        if (grammar is None) != (kind is None):
            raise InvalidRequestError("grammar and grammar_type belong together", "grammar")
        if grammar is None:
            return {}
        if kind == "json_schema" and isinstance(grammar, str):
            grammar = _parsed(grammar, "grammar")
        return {"grammar": {"type": kind, "value": grammar}}


@dataclass
class ChatCompletionRequest(_Request):
    """A conversation that calls for an answer.

    Args:
        messages: OpenAI's messages: ``{"role": "user", "content": "..."}``, where ``content`` is a text or a list of parts such as
            ``{"type": "text", "text": "..."}``, ``{"type": "image_url", "image_url": {"url": ...}}``, ``audio_url`` and ``video_url``.
            Wherever a URL goes, there may be a ``https:``, ``http:``, ``data:`` or ``file:`` URL, a path, bytes, an open file, a PIL
            image or a NumPy array of whole numbers of 8 bits: (height, width), (height, width, 1 to 4) or, for a clip, a list of
            those or (frames, height, width, 3). A sound may be an array of floats from -1 to 1 or of whole numbers of 16 bits,
            (samples,) or (samples, channels), with ``"sample_rate"`` in Hz beside it. Beside the URL of a picture go ``detail``
            (``"low"``, ``"high"`` or ``"auto"``), ``min_pixels``, ``max_pixels``, ``max_tokens`` and ``max_edge``, beside that of a clip
            ``fps``, ``max_frames``, ``start`` and ``end`` (seconds), beside that of a sound ``start`` and ``end``. A text instead of
            a list is a prompt that is continued without the chat template.
        model: ``"default"``, or the id of one of the runner's models.
        logprobs: whether the logarithms of the probabilities of tokens are wanted, and of how many others (``top_logprobs``).
        n_choices: answers that are wanted.
        logit_bias: what is added to the logits of tokens, by their ids.
        max_tokens: tokens of the answer at most; what the context has room for when left out.
        stop_seqs: texts at which the answer ends; they are not part of it.
        temperature: 0 takes the most probable token always; higher is more varied.
        top_p, top_k, min_p: which tokens are drawn from.
        presence_penalty, frequency_penalty, repetition_penalty, dry_multiplier, dry_base, dry_allowed_length, dry_sequence_breakers:
            what keeps the answer from repeating itself.
        stream: whether the answer is wanted as it comes.
        grammar, grammar_type: the form that the answer has to have: a text (or dictionary) in ``"regex"``, ``"lark"``,
            ``"json_schema"`` or ``"llguidance"``, or a list of texts for ``"choice"``.
        tool_schemas: functions that the model may call, in OpenAI's shape, as JSON texts or dictionaries.
        tool_choice: whether it has to: a :class:`ToolChoice`, ``"required"``, or ``{"type": "function", "function": {"name": ...}}``.
        enable_thinking: whether the model thinks first, if it can; as it likes when left out.
        reasoning_effort: how much.
        ignore_eos: go on behind the model's own end tokens.
        response_format: a pydantic model (the answer's ``message.parsed`` is an instance of it then, unless it was cut off), or OpenAI's
            ``{"type": "json_object"}`` or ``{"type": "json_schema", "json_schema": {"schema": ...}}``.
        seed: makes what is drawn repeatable.
        min_tokens: tokens before the answer may end by itself.
        stop_token_ids: tokens at which it ends.
        parallel_tool_calls: False allows one call.
        chat_template_kwargs: further variables of the chat template.
        cache_salt: what was computed for this request serves only later ones with the same salt.
        return_token_ids, return_media: adds ids of tokens, and what became of pictures, sounds and clips.
        max_tool_rounds: how often the model may call functions that run here (``tool_callbacks`` of :class:`Runner`); 16 when left out.
        truncate_sequence, web_search_options, adapter, session_id, tool_dispatch_url, enable_code_execution, enable_shell: refused.

    Raises:
        InvalidRequestError: when it is sent, naming the field that is out of range.
        UnsupportedError: when it is sent, for what is refused.
    """

    messages: Union[Sequence[Any], str]
    model: str = "default"
    logprobs: bool = False
    n_choices: int = 1
    logit_bias: Mapping[int, float] | None = None
    top_logprobs: int | None = None
    max_tokens: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    stop_seqs: Sequence[str] | str | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stream: bool = False
    grammar: Any = None
    grammar_type: GrammarType | None = None
    min_p: float | None = None
    tool_schemas: Sequence[str | dict[str, Any]] | None = None
    tool_choice: ToolChoice | str | dict[str, Any] | None = None
    dry_multiplier: float | None = None
    dry_base: float | None = None
    dry_allowed_length: int | None = None
    dry_sequence_breakers: Sequence[str] | None = None
    web_search_options: Any = None
    enable_thinking: bool | None = None
    truncate_sequence: bool = False
    reasoning_effort: Effort | None = None
    max_tool_rounds: int | None = None
    tool_dispatch_url: str | None = None
    enable_code_execution: bool = False
    enable_shell: bool = False
    session_id: str | None = None
    ignore_eos: bool = False
    _: KW_ONLY
    adapter: str | None = None
    response_format: Any = None
    seed: int | None = None
    min_tokens: int | None = None
    stop_token_ids: Sequence[int] | None = None
    parallel_tool_calls: bool = True
    chat_template_kwargs: dict[str, Any] | None = None
    cache_salt: str | None = None
    return_token_ids: bool = False
    return_media: bool = False

    _handled = frozenset(
        "messages grammar grammar_type tool_schemas tool_choice response_format enable_thinking parallel_tool_calls".split()
    )

    def _body(self) -> dict[str, Any]:
        body = super()._body()
        body["messages"] = plain_messages(self.messages)
        body.update(self._form(self.grammar, self.grammar_type))
        if self.enable_thinking is not None:
            body["enable_thinking"] = self.enable_thinking
        if not self.parallel_tool_calls:
            body["parallel_tool_calls"] = False
        if self.tool_schemas is not None:
            schemas = enumerate(self.tool_schemas)
            body["tools"] = [_parsed(tool, f"tool_schemas[{i}]") if isinstance(tool, str) else tool for i, tool in schemas]
        if self.tool_choice is not None:
            body["tool_choice"] = self.tool_choice.value if isinstance(self.tool_choice, ToolChoice) else self.tool_choice
        if self.response_format is not None:
            body["response_format"] = _response_format(self.response_format)
        return body

    def _read(self, content: str | None) -> Any:
        """The answer's words as an instance of the pydantic model that they were asked to be of."""
        if content is None or not hasattr(self.response_format, "model_validate_json"):
            return None
        try:
            return self.response_format.model_validate_json(content)
        except ValueError:
            # An answer that was cut off is no instance.
            return None


@dataclass
class CompletionRequest(_Request):
    """A prompt that is continued, without a chat template.

    Args:
        prompt: a text, a list of token ids, or a list of either.
        echo_prompt: whether the answer begins with the prompt.
        logprobs: of how many other tokens the probabilities are wanted, beside those that are drawn; none when left out.
        max_tokens: 16 when left out.
        best_of, suffix, truncate_sequence, adapter: refused.

    The other arguments are those of :class:`ChatCompletionRequest`.
    """

    prompt: Union[str, Sequence[int], Sequence[str], Sequence[Sequence[int]]]
    model: str = "default"
    best_of: int | None = None
    echo_prompt: bool = False
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    logit_bias: Mapping[int, float] | None = None
    max_tokens: int | None = None
    n_choices: int = 1
    stop_seqs: Sequence[str] | str | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    suffix: str | None = None
    grammar: Any = None
    grammar_type: GrammarType | None = None
    min_p: float | None = None
    dry_multiplier: float | None = None
    dry_base: float | None = None
    dry_allowed_length: int | None = None
    dry_sequence_breakers: Sequence[str] | None = None
    truncate_sequence: bool = False
    ignore_eos: bool = False
    _: KW_ONLY
    stream: bool = False
    adapter: str | None = None
    logprobs: int | None = None
    response_format: Any = None
    seed: int | None = None
    min_tokens: int | None = None
    stop_token_ids: Sequence[int] | None = None
    cache_salt: str | None = None

    _handled = frozenset({"echo_prompt", "grammar", "grammar_type", "response_format", "prompt"})

    def _body(self) -> dict[str, Any]:
        body = super()._body()
        body["prompt"] = self.prompt
        body.update(self._form(self.grammar, self.grammar_type))
        if self.echo_prompt:
            body["echo"] = True
        if self.response_format is not None:
            body["response_format"] = _response_format(self.response_format)
        return body


def _parsed(text: str, param: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as e:
        raise InvalidRequestError(f"{param} is not JSON: {e}", param) from None


def _response_format(form: Any) -> Any:
    """OpenAI's form of a pydantic model."""
    if not hasattr(form, "model_json_schema"):
        return form
    return {"type": "json_schema", "json_schema": {"name": form.__name__, "schema": _closed(form.model_json_schema())}}


def _closed(schema: Any) -> Any:
    """A schema whose objects have no fields but their own: pydantic would pass over others."""
    if isinstance(schema, dict):
        schema = {name: _closed(value) for name, value in schema.items()}
        return {"additionalProperties": False, **schema} if "properties" in schema else schema
    return [_closed(item) for item in schema] if isinstance(schema, list) else schema
