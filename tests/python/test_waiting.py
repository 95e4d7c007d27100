"""Waiting: threads, signals, tasks, processes. Where something has to last, it waits for a server that never answers."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest import RED_CIRCLE, ask, picture, said

from mistralrs import ChatCompletionRequest, CompletionRequest

FORK = """
import os
from mistralrs import InternalError, Runner, Which
runner = Runner(which=Which.MultimodalPlain(model_id=None))
child = os.fork()
if child == 0:
    try:
        runner.tokenize_text("a")
    except InternalError as e:
        raise SystemExit(7 if "forked" in str(e) else 1)
    raise SystemExit(2)
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""

FORGOTTEN = """
from mistralrs import ChatCompletionRequest, Runner, Which
runner = Runner(which=Which.MultimodalPlain(model_id=None))
messages = [{"role": "user", "content": "Hello"}]
stream = runner.send_chat_completion_request(ChatCompletionRequest(messages=messages, stream=True, ignore_eos=True, max_tokens=1500))
print(next(stream).choices[0].delta.role)
"""


class NeverAnswers:
    """A server that is asked for a picture and does not send it. `then` is called when it is asked; `left` is set when whoever
    asked has gone."""

    def __init__(self, then):
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}/a.png"
        self.then = then
        self.left = threading.Event()
        self.thread = threading.Thread(target=self.run)

    def run(self):
        connection, _ = self.socket.accept()
        with connection:
            connection.recv(4096)
            self.then()
            while connection.recv(4096):
                pass
        self.left.set()

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.thread.join()
        self.socket.close()


@pytest.mark.parametrize("stream", [False, True])
def test_ctrl_c_ends_what_is_waited_for(demo, stream):
    with NeverAnswers(lambda: os.kill(os.getpid(), signal.SIGINT)) as server:
        with pytest.raises(KeyboardInterrupt):
            ask(demo, picture(server.url), stream=stream)
        assert server.left.wait(30)


def test_cancelling_a_task_ends_what_it_waits_for(demo):
    async def main():
        loop = asyncio.get_running_loop()
        with NeverAnswers(lambda: loop.call_soon_threadsafe(task.cancel)) as server:
            request = ChatCompletionRequest(messages=picture(server.url))
            task = asyncio.create_task(demo.send_chat_completion_request_async(request))
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await asyncio.to_thread(server.left.wait, 30)

    asyncio.run(main())


def test_async_twins_say_the_same(demo):
    async def main():
        request = ChatCompletionRequest(messages=picture(RED_CIRCLE))
        whole = await demo.send_chat_completion_request_async(request)
        request.stream = True
        words = ""
        async for chunk in await demo.send_chat_completion_request_async(request):
            words += chunk.choices[0].delta.content
        assert words == whole.choices[0].message.content
        both = await asyncio.gather(*[
            demo.send_completion_request_async(CompletionRequest(prompt="What is", max_tokens=tokens)) for tokens in (2, 3)
        ])
        assert [answer.usage.completion_tokens for answer in both] == [2, 3]

    asyncio.run(main())


def test_a_hundred_threads_share_a_runner(demo):
    pictures = ["red_circle.png", "seven.png", "arrow.png", "three_shapes.png"]
    alone = [said(demo, picture(RED_CIRCLE.parent / name)) for name in pictures]
    with ThreadPoolExecutor(100) as threads:
        together = list(threads.map(lambda i: said(demo, picture(RED_CIRCLE.parent / pictures[i % 4])), range(100)))
    assert together == alone * 25


def test_a_stream_is_left_closed_or_forgotten(demo):
    for leave in (lambda stream: stream.close(), lambda stream: stream.__exit__(), lambda _: None):
        stream = ask(demo, picture(RED_CIRCLE), stream=True, ignore_eos=True, max_tokens=1500)
        next(stream)
        leave(stream)
        del stream
    assert "red circle" in said(demo, picture(RED_CIRCLE))
    stream = ask(demo, picture(RED_CIRCLE), stream=True)
    assert len(list(stream)) > 1 and next(stream, None) is None


@pytest.mark.parametrize(("program", "code"), [(FORK, 7), (FORGOTTEN, 0)], ids=["fork", "forgotten"])
def test_processes(program, code):
    paths = os.pathsep.join(sys.path)
    done = subprocess.run([sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True)
    assert done.returncode == code, done.stderr
