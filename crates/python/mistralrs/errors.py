"""What can go wrong. Every error is a :class:`MistralRsError`, which is also a ``ValueError``; its text is one line for a person."""

from __future__ import annotations


class MistralRsError(ValueError):
    """The base of all errors of this package."""


class ModelLoadError(MistralRsError):
    """A model cannot be loaded: its files are missing or not what they should be, or an option does not fit it."""


class InvalidRequestError(MistralRsError):
    """A request is at fault.

    Attributes:
        param: what of it, as in ``messages[0].content[1]`` or ``temperature``; None where that cannot be said.
        code: what programs know the fault by, as in ``invalid_value``, ``invalid_image``, ``context_length_exceeded``.
    """

    def __init__(self, message: str, param: str | None = None, code: str | None = "invalid_value") -> None:
        super().__init__(message)
        self.param = param
        self.code = code


class ModelNotFoundError(InvalidRequestError):
    """A request names a model that the runner does not have, or that is unloaded."""


class ForbiddenError(InvalidRequestError):
    """A request points at something that it may not read."""


class UnsupportedError(MistralRsError):
    """Something is asked for that this package knows of and does not do. Nothing is ignored in silence."""


class OverloadedError(MistralRsError):
    """Too many requests wait. Trying again later helps."""


class GenerationError(MistralRsError):
    """An answer failed on its way."""


class InternalError(MistralRsError):
    """A mistake of this package: something in it panicked. The request is lost, the model goes on."""


def _from_native(kind: str, message: str, param: str | None, code: str | None) -> MistralRsError:
    """The error for what the native module reports."""
    if kind in ("invalid", "forbidden"):
        return (InvalidRequestError if kind == "invalid" else ForbiddenError)(message, param, code)
    others = {
        "load": ModelLoadError,
        "overloaded": OverloadedError,
        "generation": GenerationError,
    }
    return others.get(kind, InternalError)(message)
