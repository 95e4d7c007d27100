"""Somebody talks to the built-in model in a terminal."""

import os
import pty
import re
import select
import signal
import tempfile
import unittest
from pathlib import Path

from server import PICTURE, PROGRAM

# Ends a test that waits for what does not come.
PATIENCE = 60


class Terminal:
    """`mistralrs run` in a terminal of its own."""

    def __init__(self, home, *flags):
        self.pid, self.terminal = pty.fork()
        if self.pid == 0:
            environment = {**os.environ, "HOME": home, "XDG_STATE_HOME": home, "TERM": "xterm"}
            os.execve(PROGRAM, [str(PROGRAM), "run", *flags], environment)
        self.seen = ""

    def wait_for(self, pattern):
        """What comes up to a pattern, which it takes away."""
        while not (found := re.search(pattern, self.seen)):
            ready, _, _ = select.select([self.terminal], [], [], PATIENCE)
            if not ready:
                raise AssertionError(f"{pattern!r} did not come, but {self.seen!r}")
            self.seen += os.read(self.terminal, 4096).decode(errors="replace")
        before, self.seen = self.seen[: found.end()], self.seen[found.end() :]
        return before

    def type(self, text):
        os.write(self.terminal, text.encode())

    def end(self):
        """Reads the rest, and returns the exit code."""
        try:
            while os.read(self.terminal, 4096):
                pass
        except OSError:
            pass
        _, status = os.waitpid(self.pid, 0)
        os.close(self.terminal)
        return os.waitstatus_to_exitcode(status)


class Conversation(unittest.TestCase):
    def test_lines_are_edited_answers_broken_off_and_questions_remembered(self):
        with tempfile.TemporaryDirectory() as home:
            terminal = Terminal(home)
            terminal.wait_for("> ")
            # Typed, and corrected with the key for going back.
            terminal.type(f"What is in this picturx\x7fe? '{PICTURE}'\r")
            terminal.wait_for("image: ")
            terminal.wait_for("red circle")
            terminal.wait_for("tokens at")
            terminal.wait_for("> ")
            terminal.type("/set max_tokens 100000\r")
            terminal.wait_for("error|> ")
            terminal.type("/set max_tokens 1000\r")
            terminal.wait_for("> ")
            terminal.type("never sent\x03")
            terminal.wait_for("> ")
            terminal.type("/help\r")
            terminal.wait_for("/system TEXT")
            terminal.wait_for("> ")
            terminal.type("\x04")
            self.assertEqual(terminal.end(), 0)
            history = Path(home, "mistralrs/history").read_text()
            self.assertIn("What is in this picture?", history)

            # The line from last time is there, and Ctrl-C ends an answer and not the program.
            terminal = Terminal(home, "--min-tokens", "400")
            terminal.wait_for("> ")
            terminal.type("\x1b[A\x1b[A\x1b[A\x1b[A\r")
            terminal.wait_for("image: ")
            terminal.wait_for("red")
            os.kill(terminal.pid, signal.SIGINT)
            terminal.wait_for("> ")
            terminal.type("/exit\r")
            self.assertEqual(terminal.end(), 0)


if __name__ == "__main__":
    unittest.main()
