"""Anthropic's own client talks to `mistralrs serve` with the built-in model."""

import base64
import unittest

from server import PICTURE, QUESTION, Server

try:
    import anthropic
except ImportError:
    print("SKIPPED tests/e2e: the package anthropic is missing")
    raise unittest.SkipTest("the package anthropic is missing")

SHAPE = {"type": "object", "properties": {"shape": {"enum": ["circle"]}}, "required": ["shape"]}
PAINT = {"name": "paint", "description": "Paints", "input_schema": SHAPE}


class Client(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server("--api-key", "secret", "--tool-dialect", "hermes")
        cls.client = anthropic.Anthropic(base_url=cls.server.address, api_key="secret", max_retries=0)

    @classmethod
    def tearDownClass(cls):
        cls.client.close()
        cls.server.stop()

    def question(self):
        source = {"type": "base64", "media_type": "image/png", "data": base64.b64encode(PICTURE.read_bytes()).decode()}
        content = [{"type": "image", "source": source}, {"type": "text", "text": QUESTION}]
        return {"model": "default", "messages": [{"role": "user", "content": content}]}

    def test_whole_streamed_and_counted(self):
        whole = self.client.messages.create(max_tokens=100, **self.question())
        self.assertIn("red circle", whole.content[0].text)
        self.assertEqual(whole.stop_reason, "end_turn")
        with self.client.messages.stream(max_tokens=100, **self.question()) as stream:
            said = "".join(stream.text_stream)
            last = stream.get_final_message()
        self.assertEqual(said, whole.content[0].text)
        self.assertEqual((last.stop_reason, last.usage.output_tokens), ("end_turn", whole.usage.output_tokens))
        counted = self.client.messages.count_tokens(**self.question())
        self.assertEqual(counted.input_tokens, whole.usage.input_tokens + whole.usage.cache_read_input_tokens)

    def test_a_tool_is_called_and_its_result_read(self):
        messages = [{"role": "user", "content": "Paint!"}]
        options = {"model": "default", "max_tokens": 200, "tools": [PAINT]}
        choice = {"type": "tool", "name": "paint", "disable_parallel_tool_use": True}
        with self.client.messages.stream(messages=messages, tool_choice=choice, **options) as stream:
            message = stream.get_final_message()
        call = message.content[0]
        self.assertEqual((message.stop_reason, call.name, call.input), ("tool_use", "paint", {"shape": "circle"}))
        result = {"type": "tool_result", "tool_use_id": call.id, "content": "done"}
        messages += [{"role": "assistant", "content": message.content}, {"role": "user", "content": [result]}]
        self.assertEqual(self.client.messages.create(messages=messages, **options).role, "assistant")

    def test_mistakes_are_the_callers(self):
        with self.assertRaises(anthropic.BadRequestError) as caught:
            self.client.messages.create(model="default", max_tokens=0, messages=[{"role": "user", "content": "a"}])
        self.assertEqual(caught.exception.body["error"]["type"], "invalid_request_error")
        with self.assertRaises(anthropic.NotFoundError):
            self.client.messages.create(model="nobody", max_tokens=1, messages=[{"role": "user", "content": "a"}])
        with anthropic.Anthropic(base_url=self.server.address, api_key="wrong", max_retries=0) as stranger:
            with self.assertRaises(anthropic.AuthenticationError):
                stranger.messages.count_tokens(**self.question())


if __name__ == "__main__":
    unittest.main()
