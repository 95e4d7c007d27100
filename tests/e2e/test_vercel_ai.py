"""Vercel's AI SDK calls two functions of its own by `mistralrs serve` with the built-in model."""

import json
import re
import subprocess
import unittest
from pathlib import Path

from server import Server

FOLDER = Path(__file__).with_name("node")

if not (FOLDER / "node_modules").is_dir():
    print("NOT RUN tests/e2e: the packages of tests/e2e/node are missing (npm install)")
    raise unittest.SkipTest("the packages of tests/e2e/node are missing")


class VercelAi(unittest.TestCase):
    def test_two_functions_are_called(self):
        server = Server("--tool-dialect", "hermes", "--disable-access-log")
        try:
            command = ["node", FOLDER / "agent.mjs", f"{server.address}/v1"]
            ran = subprocess.run(command, capture_output=True, text=True, timeout=120)
        finally:
            server.stop()
        self.assertEqual(ran.returncode, 0, ran.stderr)
        told = json.loads(ran.stdout)
        for way in ["whole", "streamed"]:
            (weather, rains), (note, noted) = told[way]
            self.assertEqual((weather, note), ("weather", "note"))
            self.assertTrue(re.fullmatch(r"It rains in (Berlin|Paris)\.", rains) and noted.startswith("noted: "), told)
        self.assertEqual(told["text"], "string")


if __name__ == "__main__":
    unittest.main()
