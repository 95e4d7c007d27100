"""Conversations: whole, streamed, in a form, with functions."""

import json
from typing import Literal

import pydantic
import pytest
from conftest import QUESTION, RED_CIRCLE, ask, picture, said

from mistralrs import ChatCompletionRequest, CompletionRequest, Runner, ToolChoice, Which

PAINT = {
    "type": "function",
    "function": {
        "name": "paint",
        "strict": True,
        "parameters": {
            "type": "object",
            "properties": {"shape": {"enum": ["circle"]}},
            "required": ["shape"],
            "additionalProperties": False,
        },
    },
}


class Shape(pydantic.BaseModel):
    name: Literal["circle", "square"]
    corners: Literal[0, 4]


def test_an_answer_and_what_it_took(demo):
    response = ask(demo, picture(str(RED_CIRCLE)), return_media=True, return_token_ids=True)
    choice, usage = response.choices[0], response.usage
    assert "red circle" in choice.message.content
    assert (choice.finish_reason, choice.message.role, response.object) == ("stop", "assistant", "chat.completion")
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert len(response.prompt_token_ids) == usage.prompt_tokens
    assert len(choice.token_ids) == usage.completion_tokens
    assert usage.total_time_sec >= usage.total_prompt_time_sec > 0 and usage.avg_tok_per_sec > 0
    assert usage.prompt_tokens_details.image_tokens == response.media[0].tokens > 0
    assert (response.media[0].type, response.media[0].param) == ("image", "messages[0].content[0]")
    json.dumps(response.to_dict())


def test_a_stream_says_the_same(demo):
    options = {"logprobs": True, "top_logprobs": 2}
    whole = ask(demo, picture(str(RED_CIRCLE)), **options)
    chunks = list(ask(demo, picture(str(RED_CIRCLE)), stream=True, **options))
    assert "".join(chunk.choices[0].delta.content for chunk in chunks) == whole.choices[0].message.content
    assert [chunk.choices[0].finish_reason for chunk in chunks][-2:] == [None, "stop"]
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    tokens = [entry.token for chunk in chunks for entry in (chunk.choices[0].logprobs or whole.choices[0].logprobs).content][:3]
    entries = whole.choices[0].logprobs.content
    assert tokens and all(len(entry.top_logprobs) == 2 and entry.logprob <= 0 for entry in entries)
    assert "".join(entry.token for entry in entries) == whole.choices[0].message.content


def test_choices(demo):
    answer = ask(demo, picture(str(RED_CIRCLE)), n_choices=3, temperature=2.0, seed=1, max_tokens=8)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    again = ask(demo, picture(str(RED_CIRCLE)), n_choices=3, temperature=2.0, seed=1, max_tokens=8)
    assert again.choices == answer.choices


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"max_tokens": 2}, ("length", None)),
        ({"stop_seqs": " red"}, ("stop", None)),
        ({"grammar": "(yes|no)", "grammar_type": "regex"}, ("stop", {"yes", "no"})),
        ({"grammar": ["blue", "green"], "grammar_type": "choice"}, ("stop", {"blue", "green"})),
        ({"grammar": 'start: "hm"', "grammar_type": "lark"}, ("stop", {"hm"})),
        ({"grammar": '{"const": 7}', "grammar_type": "json_schema"}, ("stop", {"7"})),
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": {"const": 7}}}}, ("stop", {"7"})),
        ({"logit_bias": {}, "seed": 3, "temperature": 0.0}, ("stop", None)),
    ],
)
def test_options(demo, options, expected):
    choice = ask(demo, picture(str(RED_CIRCLE)), **options).choices[0]
    assert choice.finish_reason == expected[0]
    assert expected[1] is None or choice.message.content in expected[1]


def test_a_pydantic_model_is_a_form(demo):
    message = ask(demo, picture(str(RED_CIRCLE)), response_format=Shape, max_tokens=200).choices[0].message
    assert message.parsed == Shape.model_validate_json(message.content)
    cut_off = ask(demo, picture(str(RED_CIRCLE)), response_format=Shape, max_tokens=2).choices[0].message
    assert cut_off.parsed is None


@pytest.mark.parametrize("schema", [PAINT, json.dumps(PAINT)])
@pytest.mark.parametrize("choice", [ToolChoice.Required, "required", {"type": "function", "function": {"name": "paint"}}])
def test_functions_are_called(demo, schema, choice):
    messages = [{"role": "user", "content": "Paint!"}]
    options = {"tool_schemas": [schema], "parallel_tool_calls": False, "max_tokens": 200}
    answer = ask(demo, messages, tool_choice=choice, **options).choices[0]
    call = answer.message.tool_calls[0]
    assert (answer.finish_reason, call.tp, call.function.name) == ("tool_calls", "function", "paint")
    assert json.loads(call.function.arguments) == {"shape": "circle"}
    result = {"role": "tool", "tool_call_id": call.id, "content": "done"}
    assert ask(demo, [*messages, answer.message, result], **options).choices[0].message.role == "assistant"


@pytest.mark.parametrize(("result", "told"), [(lambda: "done", "done"), (lambda: 1 // 0, "ZeroDivisionError")], ids=["result", "error"])
def test_functions_run_here(result, told):
    called = []

    def paint(name, arguments):
        called.append((name, arguments))
        return result()

    callbacks = {"paint": paint, "other": paint}
    with Runner(which=Which.MultimodalPlain(model_id=None), tool_dialect="hermes", tool_callbacks=callbacks) as runner:
        options = {"tool_schemas": [PAINT], "tool_choice": "required", "parallel_tool_calls": False, "max_tool_rounds": 1}
        answer = ask(runner, [{"role": "user", "content": "Paint!"}], max_tokens=200, **options)
    assert called == [("paint", {"shape": "circle"})]
    assert [(run.name, told in run.result_content) for run in answer.agentic_tool_calls] == [("paint", True)]


def test_a_text_is_a_prompt(demo):
    ids = demo.tokenize_text("What is in", add_special_tokens=True)
    written = ask(demo, "What is in", return_token_ids=True, max_tokens=3)
    assert written.prompt_token_ids == ids
    response = demo.send_completion_request(CompletionRequest(prompt="What is in", max_tokens=6, logprobs=2, echo_prompt=False))
    assert len(response.choices[0].logprobs.tokens) == response.usage.completion_tokens == 6
    by_ids = demo.send_completion_request(CompletionRequest(prompt=ids, max_tokens=6))
    assert by_ids.choices[0].text == response.choices[0].text
    chunks = list(demo.send_completion_request(CompletionRequest(prompt="What is in", max_tokens=6, stream=True)))
    assert "".join(chunk.choices[0].text for chunk in chunks) == response.choices[0].text
    assert chunks[-1].usage.completion_tokens == 6
    both = demo.send_completion_request(CompletionRequest(prompt=["What", "Who"], max_tokens=1, echo_prompt=True))
    assert [choice.text[:3] for choice in both.choices] == ["Wha", "Who"]


def test_tokens(demo):
    text = "a red circle"
    ids = demo.tokenize_text(text, add_special_tokens=False)
    assert demo.detokenize_text(ids, skip_special_tokens=True).strip() == text
    request = ChatCompletionRequest(messages=picture(str(RED_CIRCLE)))
    counted = demo.count_tokens(request)
    assert counted.input_tokens == demo.send_chat_completion_request(request).usage.prompt_tokens
    assert counted.fits and counted.max_model_len == demo.max_sequence_length() == 2048


def test_many_are_answered_in_their_order(demo):
    pictures = ["red_circle.png", "seven.png", "arrow.png", "two_shapes.png"] * 5
    asked = (ChatCompletionRequest(messages=picture(str(RED_CIRCLE.parent / name), QUESTION)) for name in pictures)
    answers = demo.send_chat_completion_requests(asked, progress=False, at_once=7)
    words = [answer.choices[0].message.content for answer in answers]
    assert len(words) == 20 and words[:4] * 5 == words
    assert words[0] == said(demo, picture(str(RED_CIRCLE)))
