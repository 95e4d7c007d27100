"""OpenAI's own client talks to `mistralrs serve` with the built-in model."""

import base64
import subprocess
import unittest
from pathlib import Path

import openai

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "target/debug/mistralrs"
PICTURE = ROOT / "fixtures/demo/red_circle.png"


class Client(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = subprocess.Popen([PROGRAM, "serve", "-p", "0"], stderr=subprocess.PIPE, text=True)
        address = next(line.split()[-1] for line in cls.server.stderr if line.startswith("listening on "))
        cls.client = openai.OpenAI(base_url=f"{address}/v1", api_key="EMPTY", max_retries=0)

    @classmethod
    def tearDownClass(cls):
        cls.client.close()
        cls.server.terminate()
        if cls.server.wait(timeout=30) != 0:
            raise AssertionError("the server did not end in order")
        cls.server.stderr.close()

    def ask(self, question="What is in this picture?", url=PICTURE.as_uri(), **options):
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


if __name__ == "__main__":
    unittest.main()
