"""Asks the same of many pictures, in the form of a pydantic model: many_pictures.py [MODEL]."""

import sys

import numpy
from pydantic import BaseModel

from mistralrs import ChatCompletionRequest, Runner, Which


class Picture(BaseModel):
    colour: str


def request(shade: int) -> ChatCompletionRequest:
    pixels = numpy.full((64, 64, 3), (shade, 0, 255 - shade), "uint8")
    return ChatCompletionRequest(
        messages=[
            {
                "role": "user",
                "content": [
                    {"type": "image_url", "image_url": {"url": pixels}},
                    {"type": "text", "text": "Which colour is this?"},
                ],
            }
        ],
        response_format=Picture,
        max_tokens=32,
    )


runner = Runner(which=Which.MultimodalPlain(model_id=[*sys.argv, None][1]))
# A generator: pictures are made when there is room for them.
answers = runner.send_chat_completion_requests((request(shade) for shade in range(0, 256, 32)), return_errors=True)
for answer in answers:
    print(answer.choices[0].message.parsed or answer.choices[0].message.content)
