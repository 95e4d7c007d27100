"""What can be chosen from."""

from __future__ import annotations

from enum import Enum


class ModelDType(Enum):
    """The number format of weights that are not quantised."""

    Auto = "auto"
    """What the device computes fastest."""
    BF16 = "bf16"
    """16 bits, 8 of exponent."""
    F16 = "f16"
    """16 bits, 5 of exponent."""
    F32 = "f32"
    """32 bits."""


class IsqOrganization(Enum):
    """Which matrices ``in_situ_quant`` is for."""

    Default = "default"
    """All of the language model."""
    MoQE = "moqe"
    """Routed experts; everything else stays as it is."""


class PagedCacheType(Enum):
    """The number format of keys and values."""

    Auto = "auto"
    """The one that the model computes with."""
    F8E4M3 = "q8"
    """8 bits. They are kept as whole numbers with scales, which err less than floats of 8 bits."""


class ToolChoice(Enum):
    """Whether the model calls functions. A request also takes ``"required"``, and a dictionary that names one."""

    NoTools = "none"
    """It is not told of any."""
    Auto = "auto"
    """As it likes."""
    Required = "required"
    """It calls at least one."""


class _Architecture(Enum):
    """A loader's name, whose value has the names of the families that go by it."""

    @property
    def families(self) -> list[str]:
        """The families, as ``mistralrs families`` and the folders of the engine call them."""
        return str(self.value).split()


class MultimodalArchitecture(_Architecture):
    """A family of multimodal models. It may be left out: what a checkpoint is, its config.json says.

    A checkpoint of another family is refused, and so is a family that this package does not have.
    """

    Phi3V = "phi3v"
    Idefics2 = "idefics2"
    LLaVANext = "llava_next"
    LLaVA = "llava"
    Lfm2Vl = "lfm2_vl"
    VLlama = "mllama"
    Qwen2VL = "qwen2_vl"
    Idefics3 = "idefics3 smolvlm"
    MiniCpmO = "minicpmo"
    Phi4MM = "phi4mm"
    Qwen2_5VL = "qwen2_5_vl"
    Gemma3 = "gemma3"
    Mistral3 = "mistral3"
    Llama4 = "llama4"
    Gemma3n = "gemma3n"
    Qwen3VL = "qwen3_vl"
    Qwen3VLMoE = "qwen3_vl_moe"
    Qwen3_5 = "qwen3_5"
    Qwen3_5Moe = "qwen3_5_moe"
    Qwen3_5MoE = Qwen3_5Moe
    Voxtral = "voxtral"
    Gemma4 = "gemma4"
    MuseGlimmer = "muse_glimmer"
    DiffusionGemma = "diffusion_gemma"


class Architecture(_Architecture):
    """A family of language models. It may be left out: what a checkpoint is, its config.json says."""

    Gemma = "gemma"
    Gemma2 = "gemma2"
    Gemma3 = "gemma3_text"
    Llama = "llama"
    Llama4 = "llama4_text"
    Mistral = "mistral"
    Phi3 = "phi3"
    Qwen2 = "qwen2"
    Qwen3 = "qwen3"
    Qwen3Moe = "qwen3_moe"
    Qwen3_5 = "qwen3_5_text"
    Qwen3_5Moe = "qwen3_5_moe_text"
