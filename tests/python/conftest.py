"""Models that the tests ask, and what they ask with."""

import subprocess
from pathlib import Path

import pytest

from mistralrs import ChatCompletionRequest, Runner, Which

ROOT = Path(__file__).resolve().parents[2]
PICTURES = ROOT / "fixtures/demo"
RED_CIRCLE = PICTURES / "red_circle.png"
QUESTION = "What is in this picture?"


def folder_of(fixture):
    """A fixture's checkpoint, unpacked."""
    program = ROOT / "target/debug/mistralrs-fixtures"
    return subprocess.run([program, fixture], check=True, capture_output=True, text=True).stdout.strip()


def picture(url, question=QUESTION):
    """Messages that ask about a picture."""
    return [
        {
            "role": "user",
            "content": [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": question}],
        }
    ]


def ask(runner, messages, **options):
    """What a runner answers."""
    return runner.send_chat_completion_request(ChatCompletionRequest(messages=messages, **options))


def said(runner, messages, **options):
    """The words of its answer."""
    return ask(runner, messages, **options).choices[0].message.content


@pytest.fixture(scope="session")
def demo():
    """The built-in model."""
    with Runner(which=Which.MultimodalPlain(model_id=None), tool_dialect="hermes") as runner:
        yield runner
