"""A server with the built-in model, for the clients that talk to it."""

import subprocess
import threading
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "target/debug/mistralrs"
PICTURE = ROOT / "fixtures/demo/red_circle.png"
QUESTION = "What is in this picture?"


class Server:
    """`mistralrs serve` at a free port."""

    def __init__(self, *flags):
        command = [PROGRAM, "serve", "-p", "0", *flags]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        self.address = next(line.split()[-1] for line in self.process.stderr if line.startswith("listening on "))
        self.log = []
        self.reader = threading.Thread(target=lambda: self.log.extend(self.process.stderr))
        self.reader.start()

    def stop(self):
        """Ends it as an operator does; its log is complete then."""
        self.process.terminate()
        code = self.process.wait(timeout=30)
        self.reader.join()
        self.process.stderr.close()
        if code != 0:
            raise AssertionError(f"the server did not end in order: {code}")
