"""Ask a model about pictures, sounds and clips, in this process.

    from mistralrs import ChatCompletionRequest, MultimodalArchitecture, Runner, Which

    runner = Runner(
        which=Which.MultimodalPlain(model_id="Qwen/Qwen3-VL-4B-Instruct", arch=MultimodalArchitecture.Qwen3VL),
        in_situ_quant="4",
    )
    response = runner.send_chat_completion_request(
        ChatCompletionRequest(
            model="default",
            messages=[{"role": "user", "content": [
                {"type": "image_url", "image_url": {"url": "photo.jpg"}},
                {"type": "text", "text": "What is in this picture?"},
            ]}],
            max_tokens=256,
        )
    )
    print(response.choices[0].message.content)

Begin with :class:`Runner`, :class:`Which` and :class:`ChatCompletionRequest`.
"""

from ._pending import Stream
from .enums import Architecture, IsqOrganization, ModelDType, MultimodalArchitecture, PagedCacheType, ToolChoice
from .errors import (
    ForbiddenError,
    GenerationError,
    InternalError,
    InvalidRequestError,
    MistralRsError,
    ModelLoadError,
    ModelNotFoundError,
    OverloadedError,
    UnsupportedError,
)
from .requests import ChatCompletionRequest, CompletionRequest
from .responses import (
    AgenticToolCall,
    CalledFunction,
    ChatCompletionChunkResponse,
    ChatCompletionResponse,
    Choice,
    ChunkChoice,
    CompletionChoice,
    CompletionLogprobs,
    CompletionResponse,
    CompletionTokensDetails,
    Delta,
    Logprobs,
    MediaReceived,
    ModelInfo,
    PromptTokens,
    PromptTokensDetails,
    ResponseLogprob,
    ResponseMessage,
    ToolCallResponse,
    TopLogprob,
    Usage,
)
from .runner import Runner
from .which import MultimodalAutoMapParams, TextAutoMapParams, Which

__all__ = [
    "AgenticToolCall",
    "Architecture",
    "CalledFunction",
    "ChatCompletionChunkResponse",
    "ChatCompletionRequest",
    "ChatCompletionResponse",
    "Choice",
    "ChunkChoice",
    "CompletionChoice",
    "CompletionLogprobs",
    "CompletionRequest",
    "CompletionResponse",
    "CompletionTokensDetails",
    "Delta",
    "ForbiddenError",
    "GenerationError",
    "InternalError",
    "InvalidRequestError",
    "IsqOrganization",
    "Logprobs",
    "MediaReceived",
    "MistralRsError",
    "ModelDType",
    "ModelInfo",
    "ModelLoadError",
    "ModelNotFoundError",
    "MultimodalArchitecture",
    "MultimodalAutoMapParams",
    "OverloadedError",
    "PagedCacheType",
    "PromptTokens",
    "PromptTokensDetails",
    "ResponseLogprob",
    "ResponseMessage",
    "Runner",
    "Stream",
    "TextAutoMapParams",
    "ToolCallResponse",
    "ToolChoice",
    "TopLogprob",
    "UnsupportedError",
    "Usage",
    "Which",
]
