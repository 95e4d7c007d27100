"""Has a model call a function, and gives it the result: functions.py [MODEL]."""

import json
import sys
from typing import Any

from mistralrs import ChatCompletionRequest, ChatCompletionResponse, Runner, ToolChoice, Which

AREA = {
    "type": "function",
    "function": {
        "name": "area",
        "description": "The area of a rectangle",
        "strict": True,
        "parameters": {
            "type": "object",
            "properties": {"width": {"enum": [2, 3]}, "height": {"enum": [4, 5]}},
            "required": ["width", "height"],
            "additionalProperties": False,
        },
    },
}

model = [*sys.argv, None][1]
runner = Runner(which=Which.MultimodalPlain(model_id=model), tool_dialect=None if model else "hermes")
messages: list[Any] = [{"role": "user", "content": "How large is a table of 2 by 5?"}]


def answer(choice: ToolChoice) -> ChatCompletionResponse:
    request = ChatCompletionRequest(messages=messages, tool_schemas=[AREA], tool_choice=choice, max_tokens=128)
    response = runner.send_chat_completion_request(request)
    assert isinstance(response, ChatCompletionResponse)
    return response


message = answer(ToolChoice.Required).choices[0].message
messages.append(message)
for call in message.tool_calls or []:
    sides = json.loads(call.function.arguments)
    print("the model calls", call.function.name, sides)
    messages.append({"role": "tool", "tool_call_id": call.id, "content": str(sides["width"] * sides["height"])})
print(answer(ToolChoice.NoTools).choices[0].message.content)
