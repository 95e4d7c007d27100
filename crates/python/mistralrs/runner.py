"""Loaded models that answer: :class:`Runner`."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Union, cast

from . import _native
from ._pending import Stream, outcome
from .enums import PagedCacheType
from .errors import InvalidRequestError, MistralRsError, ModelLoadError, ModelNotFoundError, UnsupportedError
from .media import media_part
from .requests import ChatCompletionRequest, CompletionRequest
from .responses import (
    ChatCompletionChunkResponse,
    ChatCompletionResponse,
    CompletionResponse,
    ModelInfo,
    PromptTokens,
)
from .which import AnyModel, PathLike, Which

if TYPE_CHECKING:
    import numpy

DEFAULT = "default"

ChatAnswer = Union[ChatCompletionResponse, Stream[ChatCompletionChunkResponse]]
CompletionAnswer = Union[CompletionResponse, Stream[CompletionResponse]]
Progress = Callable[[str, int, int], None]


@dataclass
class _Slot:
    """A model of a runner, and how it is loaded again."""

    options: dict[str, Any]
    model: _native.Model | None = None


class Runner:
    """Loads a model and answers. Threads may share it: what they ask runs together.

    Args:
        which: the model, as in ``Which.MultimodalPlain(model_id="Qwen/Qwen3-VL-4B-Instruct")``.
        max_seqs: requests that are answered at the same time; others wait.
        in_situ_quant: quantises while loading: a level (``"2"``, ``"3"``, ``"4"``, ``"5"``, ``"6"``, ``"8"``) or a format (``"q4k"``,
            ``"q8_0"``, ...).
        token_source: where the token for the Hugging Face hub is: ``"cache"`` (HF_TOKEN, or the file that the hub's own programs
            write), ``"literal:TOKEN"``, ``"env:VARIABLE"``, ``"path:FILE"`` or ``"none"``.
        chat_template: a chat template (``.jinja``, or ``.json`` with the key ``chat_template``) to use instead of the model's.
        jinja_explicit: a chat template (``.jinja``) that goes before all others.
        num_device_layers: layers on each accelerator, as in ``["0:10", "1:20"]``; there are none yet, and what is not there is refused.
        pa_gpu_mem: memory for keys and values, in MiB; otherwise half of what is free, or less where less is of use.
        pa_cache_type: the number format of keys and values.
        seed: that of requests which have none.
        tool_callbacks: functions by their names, which run here when a model calls them: ``callback(name, arguments)`` is given a
            dictionary and returns a text for the model, which goes on then. A request describes those that may be called in its
            ``tool_schemas``. What one raises the model is told.
        tool_dialect: how the model writes calls of functions, where its chat template does not show it: ``"hermes"``, ``"xml"``,
            ``"quoted"``, ``"bracketed"``, ``"listed"``, ``"pythonic"``, ``"python_tag"`` or ``"json"``.
        max_seq_len: tokens of a conversation at most, answer included; what the model was trained for when left out.
        memory_mb: memory that may be taken in all, in MiB; what is free when the model is loaded, when left out.
        progress: called while models load, with what is being done (``"load"``, ``"calibrate"`` or a file's name), how much of
            it is done and how much there is (bytes, or tokens of a calibration).
        paged_attn: the cache is always paged, so that this asks for nothing; ``no_paged_attn`` is refused.
        prefix_cache_n: what was read once is found again as long as there is room, however many it is; 0 is refused.
        no_kv_cache, mtp_model, mtp_n_predict, anymoe_config, pa_gpu_mem_usage, pa_ctxt_len, pa_blk_size, code_execution_config,
            shell_config, enable_search, search_embedding_model, search_callback, mcp_client_config: refused.

    Raises:
        ModelLoadError: naming the file and what is wrong with it, or the option that does not fit.
        UnsupportedError: for what is refused.

    Example:
        >>> runner = Runner(which=Which.MultimodalPlain(model_id=None))  # the built-in demo model
        >>> request = ChatCompletionRequest(messages=[{"role": "user", "content": "Hello!"}], max_tokens=64)
        >>> print(runner.send_chat_completion_request(request).choices[0].message.content)
    """

    def __init__(
        self,
        which: AnyModel,
        max_seqs: int = 16,
        no_kv_cache: bool = False,
        prefix_cache_n: int = 16,
        token_source: str = "cache",
        mtp_model: str | None = None,
        mtp_n_predict: int | None = None,
        chat_template: PathLike | None = None,
        jinja_explicit: PathLike | None = None,
        num_device_layers: Sequence[str] | None = None,
        in_situ_quant: str | None = None,
        anymoe_config: Any = None,
        pa_gpu_mem: int | None = None,
        pa_gpu_mem_usage: float | None = None,
        pa_ctxt_len: int | None = None,
        pa_blk_size: int | None = None,
        pa_cache_type: PagedCacheType | None = None,
        no_paged_attn: bool = False,
        paged_attn: bool = False,
        seed: int | None = None,
        enable_search: bool = False,
        search_embedding_model: Any = None,
        search_callback: Callable[[str], Any] | None = None,
        tool_callbacks: Mapping[str, Callable[[str, dict[str, Any]], str]] | None = None,
        mcp_client_config: Any = None,
        code_execution_config: Any = None,
        shell_config: Any = None,
        *,
        tool_dialect: str | None = None,
        max_seq_len: int | None = None,
        memory_mb: int | None = None,
        progress: Progress | None = None,
    ) -> None:
        refused = {
            "no_kv_cache": (no_kv_cache, "answers are never computed without a cache of keys and values"),
            "no_paged_attn": (no_paged_attn, "the cache is always paged"),
            "prefix_cache_n": (prefix_cache_n == 0, "requests that shall share nothing have different values of cache_salt"),
            "mtp_model": (mtp_model or mtp_n_predict, "tokens are not predicted ahead"),
            "anymoe_config": (anymoe_config, "experts are not made of models"),
            "pa_gpu_mem_usage": (pa_gpu_mem_usage, "give pa_gpu_mem, in MiB"),
            "pa_ctxt_len": (pa_ctxt_len, "give pa_gpu_mem, in MiB, or max_seq_len, in tokens"),
            "pa_blk_size": (pa_blk_size, "the size of blocks is not chosen"),
            "enable_search": (enable_search or search_embedding_model or search_callback, "the web is not searched"),
            "mcp_client_config": (mcp_client_config, "servers of tools are not asked"),
            "code_execution_config": (code_execution_config, "there is no sandbox that code could run in"),
            "shell_config": (shell_config, "there is no sandbox that commands could run in"),
        }
        for name, (asked, reason) in refused.items():
            if asked:
                raise UnsupportedError(f"{name}: {reason}")
        self._options: dict[str, Any] = {
            "max_seqs": max_seqs,
            "token": _token(token_source),
            "chat_template": None if chat_template is None else os.fspath(chat_template),
            "jinja_explicit": None if jinja_explicit is None else os.fspath(jinja_explicit),
            "device_layers": None if num_device_layers is None else ";".join(num_device_layers),
            "kv_cache_mb": pa_gpu_mem,
            "kv_cache_type": (pa_cache_type or PagedCacheType.Auto).value,
            "tool_dialect": tool_dialect,
            "max_seq_len": max_seq_len,
            "memory_mb": memory_mb,
        }
        self._seed = seed
        self._max_seqs = max_seqs
        self._tool_callbacks = dict(tool_callbacks or {})
        self._progress = progress
        self._lock = threading.RLock()
        self._slots: dict[str, _Slot] = {}
        self._default = self.add_model(which, in_situ_quant=in_situ_quant)

    # Answers.

    def send_chat_completion_request(self, request: ChatCompletionRequest, model_id: str | None = None) -> ChatAnswer:
        """Answers a conversation.

        Args:
            request: the conversation.
            model_id: the model that answers; ``request.model`` when left out.

        Returns:
            A :class:`ChatCompletionResponse`; with ``request.stream`` an iterator of :class:`ChatCompletionChunkResponse`, which
            comes as soon as the prompt is read and its media are decoded.

        Raises:
            InvalidRequestError: naming what is wrong with the request.
            OverloadedError: too many requests wait.
            GenerationError: the answer failed on its way.
            KeyboardInterrupt: on Ctrl-C, which ends the generation.
        """
        pending, read = self._chat(request, model_id)
        return read(pending.wait())

    async def send_chat_completion_request_async(
        self, request: ChatCompletionRequest, model_id: str | None = None
    ) -> ChatAnswer:
        """The same without blocking. With ``request.stream``: ``async for chunk in await runner.send_chat_completion_request_async(request)``.

        Cancelling the task ends the generation.
        """
        pending, read = self._chat(request, model_id)
        return read(await outcome(pending))

    def send_chat_completion_request_to_model(self, request: ChatCompletionRequest, model_id: str) -> ChatAnswer:
        """:meth:`send_chat_completion_request` with the model's id."""
        return self.send_chat_completion_request(request, model_id)

    def send_chat_completion_requests(
        self,
        requests: Iterable[ChatCompletionRequest],
        model_id: str | None = None,
        *,
        at_once: int | None = None,
        progress: bool = True,
        return_errors: bool = False,
    ) -> list[Any]:
        """Answers many conversations, as many at once as keep the model busy.

        Args:
            requests: the conversations; a generator is asked for the next one when there is room for it.
            model_id: the model that answers; that of each request when left out.
            at_once: requests that are on their way at once; ``max_seqs`` and half as many again, whose media are read meanwhile, when
                left out.
            progress: whether a bar shows how far it is, where the package tqdm is installed.
            return_errors: whether an error takes the place of the answer that failed, instead of ending all.

        Returns:
            A list of :class:`ChatCompletionResponse` in the order of the requests.
        """
        at_once = at_once or self._max_seqs + (self._max_seqs + 1) // 2
        source = enumerate(requests)
        ended: SimpleQueue[int] = SimpleQueue()
        running: dict[int, tuple[_native.Pending, Callable[[Any], Any]]] = {}
        answers: dict[int, Any] = {}
        total = len(requests) if isinstance(requests, Sized) else None
        with _bar(total, progress) as tick:
            while True:
                while len(running) < at_once and (item := next(source, None)):
                    i, request = item
                    try:
                        running[i] = self._chat(request, model_id, stream=False)
                        running[i][0].then(partial(ended.put, i))
                    except MistralRsError as e:
                        answers[i] = _returned(e, return_errors)
                        tick()
                if not running:
                    return [answers[i] for i in sorted(answers)]
                i = ended.get()
                pending, read = running.pop(i)
                try:
                    answers[i] = read(pending.wait())
                except MistralRsError as e:
                    answers[i] = _returned(e, return_errors)
                tick()

    def send_completion_request(self, request: CompletionRequest, model_id: str | None = None) -> CompletionAnswer:
        """Continues a prompt, without a chat template.

        Returns:
            A :class:`CompletionResponse`; with ``request.stream`` an iterator of them.

        Raises:
            InvalidRequestError, OverloadedError, GenerationError: as :meth:`send_chat_completion_request`.
        """
        pending, read = self._completion(request, model_id)
        return read(pending.wait())

    async def send_completion_request_async(
        self, request: CompletionRequest, model_id: str | None = None
    ) -> CompletionAnswer:
        """The same without blocking."""
        pending, read = self._completion(request, model_id)
        return read(await outcome(pending))

    def send_completion_request_to_model(self, request: CompletionRequest, model_id: str) -> CompletionAnswer:
        """:meth:`send_completion_request` with the model's id."""
        return self.send_completion_request(request, model_id)

    # Tokens.

    def tokenize_text(
        self, text: str, add_special_tokens: bool = True, enable_thinking: bool | None = None, model_id: str | None = None
    ) -> list[int]:
        """Ids of the tokens of a text.

        Args:
            text: the text. Control tokens that it spells out are taken for some.
            add_special_tokens: whether the begin-of-sequence token stands first, where the model has one and the text does not.
            enable_thinking: of no meaning for a text, and only there for older programs.
            model_id: the model whose tokens they are.
        """
        del enable_thinking
        return cast("list[int]", self._model(model_id).tokenize(text, add_special_tokens).wait())

    def detokenize_text(self, tokens: Sequence[int], skip_special_tokens: bool = False, model_id: str | None = None) -> str:
        """The text of ids of tokens, with or without control tokens.

        Raises:
            InvalidRequestError: one of them is none of the model's.
        """
        return self._model(model_id).detokenize(list(tokens), skip_special_tokens)

    def count_tokens(self, request: ChatCompletionRequest, model_id: str | None = None) -> PromptTokens:
        """What a conversation would take, media included, without computing it.

        Raises:
            InvalidRequestError: naming what is wrong with the request.
        """
        body = self._body(request, stream=False)
        return PromptTokens.from_dict(json.loads(self._model(model_id or request.model).count(body).wait()))

    def max_sequence_length(self, model_id: str | None = None) -> int:
        """Tokens that a prompt and its answer may have together."""
        return self.model_info(model_id).max_sequence_length

    def embed_media(self, media: Sequence[Any], model_id: str | None = None) -> list[numpy.ndarray[Any, Any]]:
        """What the model makes of pictures, sounds and clips: the rows that stand for them where it reads.

        Args:
            media: parts of a message (``{"type": "audio_url", "audio_url": {"url": ...}}``, say), or what goes where the URL of a
                picture goes.
            model_id: the model; the default one when left out.

        Returns:
            An array of 32-bit floats (rows, width) for each, as many rows as tokens stand for it. They are not to be written to.

        Raises:
            InvalidRequestError: naming what is wrong with an item. Models that look at media by cross attention have no such rows.
        """
        import numpy

        content = [media_part(item, f"media[{i}]") for i, item in enumerate(media)]
        body = json.dumps({"messages": [{"role": "user", "content": content}]}, default=_to_json)
        found: list[tuple[int, bytes]] = self._model(model_id).embed(body).wait()
        return [numpy.frombuffer(rows, "float32").reshape(-1, width) for width, rows in found]

    # Models.

    def add_model(
        self, which: AnyModel, model_id: str | None = None, *, in_situ_quant: str | None = None, make_default: bool = False
    ) -> str:
        """Loads one more model.

        Args:
            which: the model.
            model_id: what requests call it; the folder's name or the hub's id when left out.
            in_situ_quant: as for the runner.
            make_default: whether requests mean it that name none.

        Returns:
            Its id.

        Raises:
            ModelLoadError: it cannot be loaded, or there is one with this id.
        """
        if not isinstance(which, (Which.Plain, Which.MultimodalPlain)):
            raise UnsupportedError(f"which must be Which.Plain(...) or Which.MultimodalPlain(...), not {which!r}")
        slot = _Slot({**self._options, **which._options(), "quant": in_situ_quant})
        model = self._load(slot.options)
        name = model_id or str(json.loads(model.about())["id"])
        with self._lock:
            if name == DEFAULT or name in self._slots:
                raise ModelLoadError(f"there is a model with the id {name!r} already; give this one another by model_id")
            slot.model = model
            self._slots[name] = slot
            if make_default:
                self._default = name
        return name

    def list_models(self) -> list[str]:
        """The ids of all models, loaded or not."""
        return list(self._slots)

    def list_unloaded_models(self) -> list[str]:
        """The ids of those that have to be loaded before they answer."""
        return [name for name, slot in list(self._slots.items()) if slot.model is None]

    def list_models_with_status(self) -> list[tuple[str, str]]:
        """The ids of all models, each with ``"loaded"`` or ``"unloaded"``."""
        return [(name, self._status(slot)) for name, slot in list(self._slots.items())]

    def get_model_status(self, model_id: str) -> str | None:
        """``"loaded"``, ``"unloaded"``, or None where there is no such model."""
        slot = self._slots.get(self._default if model_id == DEFAULT else model_id)
        return None if slot is None else self._status(slot)

    def is_model_loaded(self, model_id: str) -> bool:
        """Whether it answers."""
        return self.get_model_status(model_id) == "loaded"

    def model_info(self, model_id: str | None = None) -> ModelInfo:
        """What a loaded model is."""
        return ModelInfo.from_dict(json.loads(self._model(model_id).about()))

    def get_default_model_id(self) -> str:
        """The model that requests mean which name none, or ``"default"``."""
        return self._default

    def set_default_model_id(self, model_id: str) -> None:
        """Has requests mean another one."""
        self._slot(model_id)
        self._default = model_id

    def unload_model(self, model_id: str) -> None:
        """Gives a model's memory back as soon as its answers have ended. It can be loaded again."""
        self._slot(model_id).model = None

    def reload_model(self, model_id: str) -> None:
        """Loads a model that was unloaded, as it was loaded before. One that is loaded stays as it is."""
        slot = self._slot(model_id)
        if slot.model is None:
            slot.model = self._load(slot.options)

    def remove_model(self, model_id: str) -> None:
        """Forgets a model. The default one stays."""
        with self._lock:
            self._slot(model_id)
            if model_id in (DEFAULT, self._default):
                raise InvalidRequestError("the default model cannot be removed; choose another default first", "model_id")
            del self._slots[model_id]

    def send_re_isq(self, dtype: str, model_id: str | None = None) -> None:
        """Quantises a model anew, from its checkpoint. The old one answers until the new one is there, and stays if that fails.

        Args:
            dtype: a level or format, as ``in_situ_quant``.
            model_id: the model; the default one when left out.
        """
        slot = self._slot(model_id)
        options = {**slot.options, "quant": dtype}
        slot.model = self._load(options)
        slot.options = options

    def close(self) -> None:
        """Unloads all models."""
        for slot in list(self._slots.values()):
            slot.model = None

    def __enter__(self) -> Runner:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Runner({', '.join(self.list_models())})"

    # What all of it is made of.

    def _load(self, options: dict[str, Any]) -> _native.Model:
        return cast(_native.Model, _native.load(json.dumps(options), self._progress).wait())

    def _slot(self, model_id: str | None) -> _Slot:
        name = self._default if model_id in (None, DEFAULT) else model_id
        slot = self._slots.get(str(name))
        if slot is None:
            known = ", ".join(self._slots)
            raise ModelNotFoundError(f"there is no model {name!r}; there are {known}", "model", "model_not_found")
        return slot

    def _model(self, model_id: str | None) -> _native.Model:
        model = self._slot(model_id).model
        if model is None:
            raise ModelNotFoundError(f"the model {model_id or self._default!r} is unloaded", "model", "model_not_found")
        return model

    @staticmethod
    def _status(slot: _Slot) -> str:
        return "unloaded" if slot.model is None else "loaded"

    def _body(self, request: ChatCompletionRequest | CompletionRequest, stream: bool) -> str:
        body = request._body()
        # The model was chosen here.
        del body["model"]
        body["stream"] = stream
        body["stream_options"] = {"include_usage": True}
        body["return_timings"] = True
        if self._seed is not None:
            body.setdefault("seed", self._seed)
        return json.dumps(body, default=_to_json)

    def _chat(
        self, request: ChatCompletionRequest, model_id: str | None, stream: bool | None = None
    ) -> tuple[_native.Pending, Callable[[Any], ChatAnswer]]:
        """Starts an answer; what to make of the outcome."""
        if not isinstance(request, ChatCompletionRequest):
            raise InvalidRequestError(f"request must be a ChatCompletionRequest, not {type(request).__name__}", "request")
        stream = request.stream if stream is None else stream
        pending = self._model(model_id or request.model).chat(self._body(request, stream), self._tool_callbacks)
        if stream:
            return pending, lambda answers: Stream(answers, ChatCompletionChunkResponse.from_dict)

        def read(answer: str) -> ChatCompletionResponse:
            response = ChatCompletionResponse.from_dict(json.loads(answer))
            for choice in response.choices:
                choice.message.parsed = request._read(choice.message.content)
            return response

        return pending, read

    def _completion(
        self, request: CompletionRequest, model_id: str | None
    ) -> tuple[_native.Pending, Callable[[Any], CompletionAnswer]]:
        if not isinstance(request, CompletionRequest):
            raise InvalidRequestError(f"request must be a CompletionRequest, not {type(request).__name__}", "request")
        pending = self._model(model_id or request.model).complete(self._body(request, request.stream))
        if request.stream:
            return pending, lambda answers: Stream(answers, CompletionResponse.from_dict)
        return pending, lambda answer: CompletionResponse.from_dict(json.loads(answer))


def _token(source: str) -> str | None:
    """A token for the hub; None where it is looked for as always, an empty one for none."""
    kind, _, rest = source.partition(":")
    if source == "cache":
        return None
    if source == "none":
        return ""
    if kind == "literal":
        return rest
    if kind == "env":
        token = os.environ.get(rest)
        if token is None:
            raise ModelLoadError(f"token_source: there is no environment variable {rest}")
        return token
    if kind == "path":
        try:
            return Path(rest).read_text().strip()
        except OSError as e:
            raise ModelLoadError(f"token_source: {e}") from None
    raise ModelLoadError('token_source must be "cache", "none", "literal:TOKEN", "env:VARIABLE" or "path:FILE"')


def _returned(error: MistralRsError, wanted: bool) -> MistralRsError:
    if not wanted:
        raise error
    return error


def _to_json(value: Any) -> Any:
    """NumPy's numbers and arrays as JSON has them."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise InvalidRequestError(f"a {type(value).__name__} is nothing that a request can have")


class _bar:
    """A progress bar, if it is wanted and the package tqdm is there."""

    def __init__(self, total: int | None, wanted: bool) -> None:
        self._bar: Any = None
        if wanted:
            try:
                from tqdm.auto import tqdm
            except ImportError:
                return
            self._bar = tqdm(total=total, unit="answer")

    def __enter__(self) -> Callable[[], None]:
        return self._bar.update if self._bar is not None else lambda: None

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()
