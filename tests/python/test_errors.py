"""What is wrong with a request is said with its place."""

import pytest
from conftest import RED_CIRCLE, ask, picture

import mistralrs
from mistralrs import ChatCompletionRequest, CompletionRequest, InvalidRequestError, MistralRsError, UnsupportedError, _native

HELLO = [{"role": "user", "content": "Hello"}]


@pytest.mark.parametrize(
    ("messages", "options", "param", "code"),
    [
        ([], {}, "messages", "invalid_value"),
        (["Hello"], {}, "messages[0]", "invalid_value"),
        ([{"content": "a"}], {}, "messages[0].role", "invalid_value"),
        ([{"role": "user", "content": [{"type": "hologram"}]}], {}, "messages[0].content[0].type", "invalid_value"),
        (picture("/nowhere.png"), {}, "messages[0].content[0]", "invalid_image"),
        (HELLO, {"temperature": -1}, "temperature", "invalid_value"),
        (HELLO, {"max_tokens": 0}, "max_tokens", "invalid_value"),
        (HELLO, {"max_tokens": 100_000}, "messages", "context_length_exceeded"),
        (HELLO, {"n_choices": 1000}, "n", "invalid_value"),
        (HELLO, {"logit_bias": {10**6: 1.0}}, "logit_bias", "invalid_value"),
        (HELLO, {"top_logprobs": 2}, "top_logprobs", "invalid_value"),
        (HELLO, {"grammar": "a"}, "grammar", "invalid_value"),
        (HELLO, {"grammar": "(", "grammar_type": "regex"}, "grammar", "invalid_value"),
        (HELLO, {"grammar": "{", "grammar_type": "json_schema"}, "grammar", "invalid_value"),
        (HELLO, {"tool_schemas": ["{"]}, "tool_schemas[0]", "invalid_value"),
        (HELLO, {"tool_choice": "required"}, "tool_choice", "invalid_value"),
        (HELLO, {"enable_thinking": True, "reasoning_effort": "none"}, "reasoning_effort", "invalid_value"),
    ],
)
def test_what_is_wrong_with_a_request(demo, messages, options, param, code):
    with pytest.raises(InvalidRequestError) as caught:
        ask(demo, messages, **options)
    assert (caught.value.param, caught.value.code) == (param, code)
    assert isinstance(caught.value, ValueError) and isinstance(caught.value, MistralRsError)


@pytest.mark.parametrize(
    "options",
    [
        {"truncate_sequence": True},
        {"adapter": "mine"},
        {"session_id": "a"},
        {"enable_shell": True},
        {"enable_code_execution": True},
    ],
    ids=lambda options: next(iter(options)),
)
def test_what_is_not_done_is_not_ignored(demo, options):
    with pytest.raises(UnsupportedError, match=next(iter(options))):
        ask(demo, HELLO, **options)


def test_an_error_of_one_ends_all_or_takes_its_place(demo):
    requests = [ChatCompletionRequest(messages=HELLO, max_tokens=tokens) for tokens in (1, 0, 2, 100_000)]
    with pytest.raises(InvalidRequestError):
        demo.send_chat_completion_requests(requests, progress=False)
    answers = demo.send_chat_completion_requests(requests, progress=False, return_errors=True)
    assert [type(answer).__name__ for answer in answers] == ["ChatCompletionResponse", "InvalidRequestError"] * 2


def test_a_stream_says_what_is_wrong_before_it_begins(demo):
    with pytest.raises(InvalidRequestError):
        ask(demo, picture("/nowhere.png"), stream=True)
    with pytest.raises(InvalidRequestError, match="ChatCompletionRequest"):
        demo.send_chat_completion_request(CompletionRequest(prompt="a"))


def test_a_panic_is_an_exception(demo):
    with pytest.raises(mistralrs.InternalError, match="for a test"):
        _native._panic("for a test").wait()
    assert "red circle" in ask(demo, picture(RED_CIRCLE)).choices[0].message.content
