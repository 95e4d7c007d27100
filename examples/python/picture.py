"""Asks about a picture: picture.py [MODEL] [PICTURE]. Without a model the tiny built-in one answers, which knows drawn shapes."""

import sys
from pathlib import Path

from mistralrs import ChatCompletionRequest, ChatCompletionResponse, Runner, Which

model, picture = [*sys.argv[1:], None, None][:2]
url = picture or Path(__file__).parents[2] / "fixtures/demo/two_shapes.png"

runner = Runner(which=Which.MultimodalPlain(model_id=model))
request = ChatCompletionRequest(
    messages=[
        {
            "role": "user",
            "content": [
                {"type": "image_url", "image_url": {"url": url}},
                {"type": "text", "text": "What is in this picture?"},
            ],
        }
    ],
    max_tokens=256,
)
response = runner.send_chat_completion_request(request)
assert isinstance(response, ChatCompletionResponse)
print(response.choices[0].message.content)
print(f"{response.usage.avg_compl_tok_per_sec:.1f} tokens per second", file=sys.stderr)
