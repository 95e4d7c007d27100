"""Which model is loaded, and how: :class:`Which`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, Union

from .enums import Architecture, IsqOrganization, ModelDType, MultimodalArchitecture
from .errors import UnsupportedError

PathLike = Union[str, "os.PathLike[str]"]


@dataclass
class TextAutoMapParams:
    """What a device map is made for. There are no accelerators yet that layers could be mapped to, so it asks for nothing."""

    max_seq_len: int = 4096
    max_batch_size: int = 1


@dataclass
class MultimodalAutoMapParams:
    """The same where there are pictures: so many, with sides of so many pixels."""

    max_seq_len: int = 4096
    max_batch_size: int = 1
    max_num_images: int = 1
    max_image_length: int = 1024


@dataclass
class _Checkpoint:
    """A checkpoint of safetensors in the layout of a Hugging Face repository."""

    model_id: PathLike | None
    arch: Architecture | MultimodalArchitecture | None = None
    _: KW_ONLY
    tokenizer_json: PathLike | None = None
    topology: PathLike | None = None
    write_uqff: PathLike | None = None
    from_uqff: str | Sequence[str] | None = None
    dtype: ModelDType = ModelDType.Auto
    calibration_file: PathLike | None = None
    imatrix: PathLike | None = None
    hf_cache_path: PathLike | None = None
    matformer_config_path: PathLike | None = None
    matformer_slice_name: str | None = None
    organization: IsqOrganization | None = None

    def _options(self) -> dict[str, Any]:
        """What the native module is told; what is left out is as the model says."""
        for name in ("write_uqff", "from_uqff"):
            if getattr(self, name) is not None:
                raise UnsupportedError(f"{name}: UQFF files are neither read nor written; checkpoints are quantised while they load")
        paths = ("tokenizer_json", "topology", "calibration_file", "imatrix", "hf_cache_path", "matformer_config_path")
        options: dict[str, Any] = {name: os.fspath(path) for name in paths if (path := getattr(self, name)) is not None}
        options["model_id"] = None if self.model_id is None else os.fspath(self.model_id)
        options["dtype"] = ModelDType(self.dtype).value
        options["organization"] = (self.organization or IsqOrganization.Default).value
        options["matformer_slice_name"] = self.matformer_slice_name
        options["families"] = [] if self.arch is None else self.arch.families
        return options


class _NotHere:
    """A kind of model that this package does not load."""

    def __init__(self, *args: Any, **options: Any) -> None:
        doc = (type(self).__doc__ or "").splitlines()[0]
        raise UnsupportedError(f"Which.{type(self).__name__} cannot be loaded: {doc}")


class Which:
    """A model and how it is loaded: ``Which.MultimodalPlain(...)`` or ``Which.Plain(...)``.

    Both take a checkpoint of safetensors in the layout of a Hugging Face repository, and these arguments:

    ``model_id``
        A folder, or a Hugging Face id (``organisation/name``), which is downloaded into the usual cache; None for the tiny
        built-in demo model, which knows drawn shapes, their colours, numbers and places.
    ``arch``
        The family that it has to be of. What it is, its config.json says.
    ``tokenizer_json``
        A tokenizer.json or tekken.json to use instead of the model's.
    ``topology``
        A file (YAML) with the formats of some layers or matrices, which come before ``in_situ_quant``.
    ``dtype``
        The number format of weights that are not quantised.
    ``organization``
        Which matrices ``in_situ_quant`` is for.
    ``imatrix``, ``calibration_file``
        What ``in_situ_quant`` goes by: an importance matrix of llama.cpp (``.gguf`` or ``.dat``), or a text that the model reads first.
    ``hf_cache_path``
        The folder of downloaded models.
    ``matformer_slice_name``, ``matformer_config_path``
        The part of a nested model (MatFormer) that is loaded, and a table of such parts (``.csv`` or ``.json``) instead of the
        published ones. What is left out never takes memory.
    ``auto_map_params``
        Read, and of no effect: there are no accelerators yet that layers could be mapped to.
    ``write_uqff``, ``from_uqff``
        Refused: checkpoints are quantised while they load.

    The other kinds (``Which.GGUF``, ``Which.Lora``, ...) raise :class:`UnsupportedError`.
    """

    @dataclass
    class Plain(_Checkpoint):
        """A language model. See :class:`Which` for the arguments."""

        _: KW_ONLY
        auto_map_params: TextAutoMapParams | None = None

    @dataclass
    class MultimodalPlain(_Checkpoint):
        """A model that takes pictures, sounds or clips. See :class:`Which` for the arguments.

        ``max_edge`` shows it pictures with no side of more pixels, where requests do not say how large.
        """

        _: KW_ONLY
        max_edge: int | None = None
        auto_map_params: MultimodalAutoMapParams | None = None

        def _options(self) -> dict[str, Any]:
            return {**super()._options(), "max_edge": self.max_edge}

    class GGUF(_NotHere):
        """GGUF files are not read; load the checkpoint of safetensors and quantise it with in_situ_quant."""

    class GGML(_NotHere):
        """GGML files are not read; load the checkpoint of safetensors and quantise it with in_situ_quant."""

    class Lora(_NotHere):
        """Adapters of one's own are not loaded."""

    class XLora(_NotHere):
        """Mixtures of adapters are not loaded."""

    class LoraGGUF(_NotHere):
        """GGUF files are not read, nor adapters of one's own."""

    class XLoraGGUF(_NotHere):
        """GGUF files are not read, nor mixtures of adapters."""

    class LoraGGML(_NotHere):
        """GGML files are not read, nor adapters of one's own."""

    class XLoraGGML(_NotHere):
        """GGML files are not read, nor mixtures of adapters."""

    class Embedding(_NotHere):
        """Models that embed text are not loaded."""

    class DiffusionPlain(_NotHere):
        """Models that draw are not loaded."""

    class Speech(_NotHere):
        """Models that speak are not loaded."""


AnyModel = Union[Which.Plain, Which.MultimodalPlain]
