"""Pictures, sounds and clips as Python has them → the URLs of OpenAI's messages."""

from __future__ import annotations

import base64
import dataclasses
import io
import struct
import zlib
from pathlib import Path
from typing import Any, Literal

from .errors import InvalidRequestError

Kind = Literal["image", "audio", "video"]

# What PNG calls the layout of pictures with so many numbers per pixel.
_PNG_COLOURS = {1: 0, 2: 4, 3: 2, 4: 6}
# Files are sniffed by their bytes, so that nobody looks at the type.
_DATA = "data:;base64,"


def plain_messages(messages: Any) -> Any:
    """Messages as JSON has them. Whatever JSON does not have is a picture, sound or clip."""
    if isinstance(messages, str):
        return messages
    return [_message(message, f"messages[{i}]") for i, message in enumerate(messages)]


def media_part(item: Any, at: str) -> Any:
    """A part of a message, or what goes where a picture's URL goes."""
    return _part(item if isinstance(item, dict) else {"type": "image_url", "image_url": {"url": item}}, at)


def _message(message: Any, at: str) -> Any:
    if hasattr(message, "to_dict"):
        message = message.to_dict()
    if hasattr(message, "model_dump"):
        message = message.model_dump(exclude_none=True)
    if not isinstance(message, dict):
        raise InvalidRequestError(f"{at} must be a dictionary with role and content", at)
    content = message.get("content")
    if not isinstance(content, (list, tuple)):
        return message
    return {**message, "content": [_part(part, f"{at}.content[{i}]") for i, part in enumerate(content)]}


def _part(part: Any, at: str) -> Any:
    if hasattr(part, "model_dump"):
        part = part.model_dump(exclude_none=True)
    name = str(part.get("type", "")) if isinstance(part, dict) else ""
    kind: Kind = "audio" if "audio" in name else "video" if "video" in name else "image"
    return _plain(part, _Place(at, kind))


@dataclasses.dataclass(frozen=True)
class _Place:
    """Where something stands in a request, and what is expected there."""

    at: str
    kind: Kind
    sample_rate: Any = None

    def within(self, name: str) -> _Place:
        return dataclasses.replace(self, at=f"{self.at}{name}")

    def refuse(self, reason: str) -> InvalidRequestError:
        return InvalidRequestError(f"{self.at}: {reason}", self.at, f"invalid_{self.kind}")


def _plain(value: Any, place: _Place) -> Any:
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    if isinstance(value, dict):
        place = dataclasses.replace(place, sample_rate=value.get("sample_rate"))
        inner = {name: _plain(item, place.within(f".{name}")) for name, item in value.items() if name != "sample_rate"}
        if not isinstance(value.get("data"), (str, type(None))):
            # Where OpenAI has base64 without a URL around it.
            inner["data"] = inner["data"].removeprefix(_DATA)
        return inner
    if isinstance(value, (list, tuple)):
        return [_plain(item, place.within(f"[{i}]")) for i, item in enumerate(value)]
    return _url(value, place)


def _url(value: Any, place: _Place) -> Any:
    """A URL, or a list of them for an array of frames."""
    if isinstance(value, Path):
        return value.absolute().as_uri()
    if hasattr(value, "save") and hasattr(value, "getbands"):
        return _data_url(_png_of_pil(value))
    if hasattr(value, "read"):
        value = value.read()
    if isinstance(value, (bytes, bytearray)) or isinstance(value, memoryview) and value.ndim == 1 and value.itemsize == 1:
        return _data_url(bytes(value))
    if hasattr(value, "__array__") or isinstance(value, memoryview):
        return _url_of_array(value, place)
    if hasattr(value, "__fspath__"):
        return Path(value).absolute().as_uri()
    kinds = "a URL, a path, bytes, an open file, a PIL image or an array"
    raise place.refuse(f"a {type(value).__name__} is none of {kinds}")


def _data_url(data: bytes) -> str:
    return _DATA + base64.b64encode(data).decode("ascii")


def _url_of_array(value: Any, place: _Place) -> Any:
    try:
        import numpy
    except ImportError:
        raise place.refuse("arrays need the package numpy") from None
    array = numpy.asarray(value)
    if place.kind == "audio":
        return _data_url(_wav(array, place))
    if place.kind == "video" and array.ndim == 4:
        return [_data_url(_png(frame, place)) for frame in array]
    return _data_url(_png(array, place))


def _png_of_pil(image: Any) -> bytes:
    """PNG of a PIL image, turned as its EXIF says."""
    from PIL import ImageOps

    image = ImageOps.exif_transpose(image)
    if image.mode not in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"):
        image = image.convert("RGB")
    out = io.BytesIO()
    image.save(out, "PNG", compress_level=1)
    return out.getvalue()


def _png(array: Any, place: _Place) -> bytes:
    """PNG of an array (height, width) or (height, width, 1 to 4) of whole numbers of 8 bits."""
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or array.shape[2] not in _PNG_COLOURS or 0 in array.shape or array.dtype != "uint8":
        shapes = "(height, width) or (height, width, 1 to 4) of uint8"
        raise place.refuse(f"an array of shape {array.shape} and type {array.dtype} is no picture; pictures are {shapes}")
    height, width, channels = array.shape
    rows = bytearray()
    for row in array:
        rows += b"\0" + row.tobytes()
    header = struct.pack(">IIBBBBB", width, height, 8, _PNG_COLOURS[channels], 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(rows), 1)), (b"IEND", b"")]

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(name, data) for name, data in chunks)


def _wav(array: Any, place: _Place) -> bytes:
    """WAV of an array (samples,) or (samples, channels) of floats or of whole numbers of 16 bits."""
    rate = place.sample_rate
    if not isinstance(rate, int) or isinstance(rate, bool) or not 0 < rate < 2**31:
        raise place.refuse('an array of samples needs "sample_rate" beside it, in Hz')
    if array.dtype.kind == "f":
        array, form = array.astype("<f4"), 3
    elif array.dtype == "int16":
        array, form = array.astype("<i2"), 1
    else:
        raise place.refuse(f"samples are floats from -1 to 1 or whole numbers of 16 bits, not {array.dtype}")
    if array.ndim not in (1, 2) or 0 in array.shape:
        raise place.refuse(f"an array of shape {array.shape} is no sound; sounds are (samples,) or (samples, channels)")
    channels = 1 if array.ndim == 1 else array.shape[1]
    if channels > 8:
        raise place.refuse(f"a sound of {channels} channels: they are its second dimension, and at most 8")
    width = array.dtype.itemsize
    header = struct.pack("<HHIIHH", form, channels, rate, rate * channels * width, channels * width, width * 8)
    data: bytes = array.tobytes()
    body = b"WAVEfmt " + struct.pack("<I", len(header)) + header + b"data" + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", len(body)) + body
