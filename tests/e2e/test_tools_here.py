"""Functions of MCP's own kit and of a search engine run on the side of `mistralrs serve`, asked by OpenAI's client. The built-in model
knows nothing of functions: who asks says which one is called first."""

import http.server
import json
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import urllib.request
from pathlib import Path

from server import Server

try:
    import mcp
    import openai
except ImportError as e:
    print(f"SKIPPED tests/e2e: the package {e.name} is missing")
    raise unittest.SkipTest(f"the package {e.name} is missing")

MCP_SERVER = Path(__file__).with_name("mcp_server.py")


class Engine(http.server.BaseHTTPRequestHandler):
    """Finds one page."""

    def do_GET(self):
        found = [{"url": "http://127.0.0.1:1/", "title": "Circles", "content": "Circles are round."}]
        body = json.dumps({"results": found}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_for(port):
    for _ in range(600):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise AssertionError("the MCP server does not listen")


class ToolsHere(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.engine = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Engine)
        threading.Thread(target=cls.engine.serve_forever, daemon=True).start()
        cls.addClassCleanup(cls.engine.server_close)
        cls.addClassCleanup(cls.engine.shutdown)
        port = free_port()
        command = [sys.executable, MCP_SERVER, str(port)]
        cls.mcp = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        cls.addClassCleanup(cls.mcp.wait, timeout=30)
        cls.addClassCleanup(cls.mcp.terminate)
        wait_for(port)
        process = {"type": "Process", "command": sys.executable, "args": [str(MCP_SERVER)]}
        over_http = {"type": "Http", "url": f"http://127.0.0.1:{port}/mcp"}
        servers = [{"name": "program", "source": process}, {"name": "web", "source": over_http}]
        cls.config = tempfile.NamedTemporaryFile("w", suffix=".json")
        json.dump({"servers": servers}, cls.config)
        cls.config.flush()
        engine = f"http://127.0.0.1:{cls.engine.server_port}"
        flags = ["--search-url", engine, "--mcp-config", cls.config.name, "--max-tool-rounds", "1"]
        cls.server = Server("--tool-dialect", "hermes", "--disable-access-log", *flags)
        cls.client = openai.OpenAI(base_url=f"{cls.server.address}/v1", api_key="EMPTY", max_retries=0)

    @classmethod
    def tearDownClass(cls):
        cls.client.close()
        cls.server.stop()
        cls.config.close()

    def ask(self, function, **options):
        choice = {"type": "function", "function": {"name": function}}
        messages = [{"role": "user", "content": "Go!"}]
        options = {"max_tokens": 200, "parallel_tool_calls": False, "tool_choice": choice, **options}
        return self.client.chat.completions.create(model="default", messages=messages, **options)

    def test_the_card_says_what_there_is(self):
        card = self.client.models.retrieve("default")
        self.assertEqual((card.tools_available, card.mcp_tools_count, card.mcp_servers_connected), (True, 4, 2))

    def test_mcp_servers_of_both_kinds(self):
        for server in ["program", "web"]:
            corners = self.ask(f"{server}_corners").agentic_tool_calls[0]
            self.assertRegex(corners["result_content"], "^a (circle has 0|square has 4)$")
            drawn = self.ask(f"{server}_draw").agentic_tool_calls[0]
            self.assertEqual(len(drawn["result_images_base64"]), 1)

    def test_streams_pass_over_what_they_do_not_know(self):
        chunks = list(self.ask("program_draw", stream=True))
        phases = [chunk.phase for chunk in chunks if getattr(chunk, "type", None) == "agentic_tool_call_progress"]
        self.assertEqual(phases[:2], ["calling", "complete"])
        self.assertTrue(any(chunk.choices and chunk.choices[0].finish_reason for chunk in chunks))

    def test_responses_search_the_web(self):
        answer = self.client.responses.create(
            model="default", input="Go!", tools=[{"type": "web_search"}], tool_choice={"type": "web_search"}, max_output_tokens=400,
            extra_body={"logit_bias": self.quotes()},
        )
        self.assertEqual(answer.output[0].type, "web_search_call")
        self.assertEqual(answer.output[0].status, "completed")

    def quotes(self):
        """Makes texts end soon: quotes are more probable than anything else in them."""
        body = json.dumps({"prompt": '"'}).encode()
        request = urllib.request.Request(f"{self.server.address}/tokenize", body, {"content-type": "application/json"})
        with urllib.request.urlopen(request) as answer:
            return {str(json.load(answer)["tokens"][-1]): 30}


if __name__ == "__main__":
    unittest.main()
