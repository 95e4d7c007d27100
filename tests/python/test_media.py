"""Pictures, sounds and clips in every shape that Python has them in."""

import base64
import io
from pathlib import Path

import numpy
import pytest
from conftest import QUESTION, RED_CIRCLE, ROOT, ask, folder_of, picture, said
from PIL import Image

from mistralrs import ChatCompletionRequest, InvalidRequestError, Runner, Which

BYTES = RED_CIRCLE.read_bytes()
PIXELS = numpy.asarray(Image.open(RED_CIRCLE).convert("RGB"))
SOUND = ROOT / "fixtures/media/speech_short_16k.wav"
SAMPLES = numpy.frombuffer(SOUND.read_bytes()[44:], "<i2")


@pytest.mark.parametrize(
    "url",
    [
        RED_CIRCLE.as_uri(),
        RED_CIRCLE,
        BYTES,
        bytearray(BYTES),
        memoryview(BYTES),
        io.BytesIO(BYTES),
        "data:image/png;base64," + base64.b64encode(BYTES).decode(),
        Image.open(RED_CIRCLE),
        Image.open(RED_CIRCLE).convert("RGBA"),
        PIXELS,
        PIXELS[:, ::-1][:, ::-1],
        numpy.dstack([PIXELS, numpy.full(PIXELS.shape[:2], 255, "uint8")]),
    ],
    ids=lambda url: type(url).__name__,
)
def test_a_picture_is_the_same_in_every_shape(demo, url):
    assert said(demo, picture(url)) == said(demo, picture(str(RED_CIRCLE)))


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": BYTES},
        {"type": "image", "image": PIXELS},
        {"type": "input_image", "image_url": Path(RED_CIRCLE)},
        {"type": "file", "file": {"filename": "a.png", "file_data": BYTES}},
    ],
    ids=lambda part: part["type"],
)
def test_it_stands_in_every_spelling(demo, part):
    messages = [{"role": "user", "content": (part, {"type": "text", "text": QUESTION})}]
    assert "red circle" in said(demo, messages)


def test_a_turned_picture_is_turned(demo):
    photo = ROOT / "fixtures/media/exif6_160x100.jpg"
    tokens = [demo.count_tokens(ChatCompletionRequest(messages=picture(url))).input_tokens for url in (photo, Image.open(photo))]
    assert tokens[0] == tokens[1]
    assert said(demo, picture(numpy.asarray(Image.open(RED_CIRCLE).convert("L")))) != ""


@pytest.mark.parametrize(
    ("url", "word"),
    [
        (PIXELS.astype("float32"), "float32"),
        (PIXELS[:, :, :2][:, :, None], "shape"),
        (numpy.zeros((0, 4, 3), "uint8"), "shape"),
        (b"hello", "not an image"),
        (object(), "object"),
    ],
    ids=["floats", "shape", "empty", "bytes", "object"],
)
def test_what_is_no_picture_is_refused(demo, url, word):
    with pytest.raises(InvalidRequestError) as caught:
        ask(demo, picture(url))
    assert caught.value.param.startswith("messages[0].content[0]")
    assert word in str(caught.value)


@pytest.fixture(scope="module")
def clips():
    with Runner(which=Which.MultimodalPlain(model_id=folder_of("qwen3_vl"))) as runner:
        yield runner


@pytest.mark.parametrize("kind", ["list", "array", "frames"])
def test_a_clip_is_a_list_or_an_array_of_frames(clips, kind):
    frames = numpy.stack([numpy.full((64, 64, 3), shade, "uint8") for shade in range(0, 160, 40)])
    url = {"list": list(frames), "array": frames, "frames": [Image.fromarray(frame) for frame in frames]}[kind]
    part = {"type": "video_url", "video_url": {"url": url, "fps": 2.0}}
    counted = clips.count_tokens(ChatCompletionRequest(messages=[{"role": "user", "content": [part]}]))
    assert [item.type for item in counted.media] == ["video"]
    assert (counted.media[0].tokens, counted.media[0].frames, counted.media[0].timestamps) == (8, 4, [0.0, 0.5, 1.0, 1.5])


def test_what_is_wanted_of_a_clip(clips):
    def frames(**controls):
        url = ROOT / "fixtures/media/motion_64x64_5fps.gif"
        part = {"type": "video_url", "video_url": {"url": url, **controls}}
        return clips.count_tokens(ChatCompletionRequest(messages=[{"role": "user", "content": [part]}])).media[0].frames

    assert frames(max_frames=2) == 2 < frames(max_frames=6)
    with pytest.raises(InvalidRequestError) as caught:
        frames(fps=-1)
    assert caught.value.param == "messages[0].content[0].video_url.fps"


def test_what_is_wanted_of_a_picture(clips):
    def tokens(**controls):
        part = {"type": "image_url", "image_url": {"url": ROOT / "fixtures/media/photo_200x150.jpg", **controls}}
        return clips.count_tokens(ChatCompletionRequest(messages=[{"role": "user", "content": [part]}])).media[0].tokens

    assert tokens(max_tokens=2) <= 2 < tokens()
    assert tokens(max_edge=64) < tokens()
    with Runner(which=Which.MultimodalPlain(model_id=folder_of("qwen3_vl"), max_edge=64)) as small:
        part = {"type": "image_url", "image_url": {"url": ROOT / "fixtures/media/photo_200x150.jpg"}}
        request = ChatCompletionRequest(messages=[{"role": "user", "content": [part]}])
        assert small.count_tokens(request).media[0].tokens == tokens(max_edge=64)
    with pytest.raises(InvalidRequestError, match="detail"):
        tokens(detail="some")


@pytest.fixture(scope="module")
def sounds():
    with Runner(which=Which.MultimodalPlain(model_id=folder_of("voxtral"))) as runner:
        yield runner


@pytest.mark.parametrize(
    "body",
    [
        {"url": SOUND},
        {"url": SAMPLES, "sample_rate": 16000},
        {"url": (SAMPLES / 32768).astype("float32"), "sample_rate": 16000},
        {"url": numpy.stack([SAMPLES, SAMPLES], 1), "sample_rate": 16000},
    ],
    ids=["path", "int16", "float32", "stereo"],
)
def test_a_sound_is_the_same_in_every_shape(sounds, body):
    def ids(part):
        messages = [{"role": "user", "content": [part]}]
        return ask(sounds, messages, return_token_ids=True, max_tokens=4).choices[0].token_ids

    whole = ids({"type": "audio_url", "audio_url": {"url": str(SOUND)}})
    assert ids({"type": "audio_url", "audio_url": body}) == whole
    data = {"data": SOUND.read_bytes(), "format": "wav"}
    assert ids({"type": "input_audio", "input_audio": data}) == whole


def test_samples_need_a_rate(sounds):
    part = {"type": "audio_url", "audio_url": {"url": SAMPLES}}
    with pytest.raises(InvalidRequestError, match="sample_rate"):
        ask(sounds, [{"role": "user", "content": [part]}])


def test_media_have_rows(clips):
    frames = numpy.stack([PIXELS[:64, :64]] * 4)
    clip = {"type": "video_url", "video_url": {"url": frames, "fps": 2.0}}
    picture_rows, clip_rows, again = clips.embed_media([PIXELS, clip, RED_CIRCLE])
    assert picture_rows.dtype == "float32" and picture_rows.ndim == 2 and numpy.isfinite(picture_rows).all()
    assert clip_rows.shape[1] == picture_rows.shape[1] and (again == picture_rows).all()
    parts = [{"type": "image_url", "image_url": {"url": RED_CIRCLE}}]
    counted = clips.count_tokens(ChatCompletionRequest(messages=[{"role": "user", "content": parts}]))
    assert counted.media[0].tokens == len(picture_rows)
    with pytest.raises(InvalidRequestError):
        clips.embed_media([b"hello"])
