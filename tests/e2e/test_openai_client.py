"""OpenAI's own client talks to `mistralrs serve` with the built-in model."""

import base64
import json
import unittest
import urllib.request

from server import PICTURE, QUESTION, Server

try:
    import openai
except ImportError:
    print("SKIPPED tests/e2e: the package openai is missing")
    raise unittest.SkipTest("the package openai is missing")

SHAPE = {"type": "object", "properties": {"shape": {"enum": ["circle"]}}, "required": ["shape"], "additionalProperties": False}


class Client(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server("--tool-dialect", "hermes", "--access-log-format", "json")
        cls.client = openai.OpenAI(base_url=f"{cls.server.address}/v1", api_key="EMPTY", max_retries=0)

    @classmethod
    def tearDownClass(cls):
        cls.client.close()
        cls.server.stop()
        access = [json.loads(line) for line in cls.server.log if line.startswith("{")]
        assert {200, 400, 404, 499} <= {entry["status"] for entry in access}, access

    def ask(self, question=QUESTION, url=PICTURE.as_uri(), **options):
        content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": question}]
        return self.client.chat.completions.create(model="default", messages=[{"role": "user", "content": content}], **options)

    def test_file_and_data_urls_answer_alike(self):
        data = "data:image/png;base64," + base64.b64encode(PICTURE.read_bytes()).decode()
        by_file, by_data = self.ask(), self.ask(url=data)
        self.assertIn("red circle", by_file.choices[0].message.content)
        self.assertEqual(by_file.choices[0].message.content, by_data.choices[0].message.content)
        self.assertEqual(by_file.choices[0].finish_reason, "stop")
        self.assertEqual(by_file.usage.total_tokens, by_file.usage.prompt_tokens + by_file.usage.completion_tokens)

    def test_stream_says_the_same(self):
        whole = self.ask()
        chunks = list(self.ask(stream=True, stream_options={"include_usage": True}))
        said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        self.assertEqual(said, whole.choices[0].message.content)
        self.assertEqual(chunks[-1].usage, whole.usage)

    def test_logprobs_and_token_ids(self):
        answer = self.ask(logprobs=True, top_logprobs=3, extra_body={"return_token_ids": True})
        entries = answer.choices[0].logprobs.content
        self.assertEqual("".join(entry.token for entry in entries), answer.choices[0].message.content)
        self.assertTrue(all(len(entry.top_logprobs) == 3 and entry.logprob <= 0 for entry in entries))
        self.assertEqual(len(answer.choices[0].token_ids), answer.usage.completion_tokens)
        self.assertEqual(len(answer.prompt_token_ids), answer.usage.prompt_tokens)

    def test_seed_stop_and_length(self):
        warm = [self.ask(seed=3, temperature=2.0, max_tokens=12).choices[0].message.content for _ in range(2)]
        self.assertEqual(*warm)
        self.assertEqual(self.ask(stop=" red").choices[0].message.content.split()[-1], "a")
        self.assertEqual(self.ask(max_tokens=2).choices[0].finish_reason, "length")

    def test_models(self):
        self.assertEqual([model.id for model in self.client.models.list()], ["default", "demo"])

    def test_mistakes_are_the_callers(self):
        cases = [
            (openai.BadRequestError, "invalid_image", "messages[0].content[0]", {"url": "data:image/png;base64,aGVsbG8="}),
            (openai.BadRequestError, "invalid_value", "temperature", {"temperature": -1}),
            (openai.BadRequestError, "context_length_exceeded", "messages", {"max_tokens": 100_000}),
        ]
        for kind, code, param, options in cases:
            with self.subTest(code=code), self.assertRaises(kind) as caught:
                self.ask(**options)
            self.assertEqual((caught.exception.code, caught.exception.param), (code, param))
            self.assertTrue(caught.exception.body["message"])
        with self.assertRaises(openai.NotFoundError) as caught:
            self.client.chat.completions.create(model="nobody", messages=[{"role": "user", "content": "Hello"}])
        self.assertEqual(caught.exception.code, "model_not_found")

    def test_a_client_that_leaves_is_forgotten(self):
        for _ in range(5):
            stream = self.ask("Describe this picture.", stream=True, temperature=2.0, max_tokens=1500)
            next(iter(stream))
            stream.close()
        self.assertIn("red circle", self.ask().choices[0].message.content)

    def picture(self):
        data = "data:image/png;base64," + base64.b64encode(PICTURE.read_bytes()).decode()
        return [{"role": "user", "content": [{"type": "input_image", "image_url": data, "detail": "auto"}, {"type": "input_text", "text": QUESTION}]}]

    def test_completions(self):
        whole = self.client.completions.create(model="default", prompt="What is in", max_tokens=6, logprobs=2)
        self.assertEqual((whole.choices[0].finish_reason, len(whole.choices[0].logprobs.tokens)), ("length", 6))
        chunks = self.client.completions.create(model="default", prompt="What is in", max_tokens=6, stream=True)
        self.assertEqual("".join(chunk.choices[0].text for chunk in chunks), whole.choices[0].text)

    def test_responses(self):
        whole = self.client.responses.create(model="default", input=self.picture(), instructions="Be brief.")
        self.assertIn("red circle", whole.output_text)
        with self.client.responses.stream(model="default", input=self.picture(), instructions="Be brief.") as stream:
            said = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
            last = stream.get_final_response()
        self.assertEqual((said, last.output_text, last.status), (whole.output_text, whole.output_text, "completed"))
        more = self.client.responses.create(model="default", previous_response_id=last.id, input="And?", max_output_tokens=2)
        self.assertEqual((more.status, more.previous_response_id), ("incomplete", last.id))
        self.assertGreater(more.usage.input_tokens, 20)
        self.assertEqual(self.client.responses.retrieve(last.id).output_text, whole.output_text)
        self.client.responses.delete(last.id)
        with self.assertRaises(openai.NotFoundError):
            self.client.responses.retrieve(last.id)
        counted = self.client.responses.input_tokens.count(model="default", input=self.picture(), instructions="Be brief.")
        self.assertEqual(counted.input_tokens, whole.usage.input_tokens)

    def test_responses_call_tools(self):
        tool = {"type": "function", "name": "paint", "parameters": SHAPE, "strict": True}
        options = {"model": "default", "input": "Paint!", "tools": [tool], "tool_choice": "required", "parallel_tool_calls": False}
        whole = self.client.responses.create(**options)
        with self.client.responses.stream(**options) as stream:
            last = stream.get_final_response()
        for call in [whole.output[0], last.output[0]]:
            self.assertEqual((call.type, call.name, json.loads(call.arguments)), ("function_call", "paint", {"shape": "circle"}))
        result = {"type": "function_call_output", "call_id": call.call_id, "output": "done"}
        more = self.client.responses.create(model="default", previous_response_id=last.id, input=[result], max_output_tokens=2)
        self.assertEqual(more.object, "response")

    def test_what_was_uploaded_is_named_by_its_id(self):
        request = urllib.request.Request(f"{self.server.address}/v1/media", PICTURE.read_bytes(), {"Content-Type": "image/png"})
        with urllib.request.urlopen(request) as response:
            url = json.load(response)["url"]
        self.assertIn("red circle", self.ask(url=url).choices[0].message.content)


if __name__ == "__main__":
    unittest.main()
