"""Writes an answer as it comes, in a program that does other things meanwhile: stream.py [MODEL]."""

import asyncio
import sys

from mistralrs import ChatCompletionRequest, Runner, Stream, Which


async def write(runner: Runner, question: str) -> None:
    request = ChatCompletionRequest(messages=[{"role": "user", "content": question}], max_tokens=64, stream=True)
    stream = await runner.send_chat_completion_request_async(request)
    assert isinstance(stream, Stream)
    async with stream:
        async for chunk in stream:
            print(chunk.choices[0].delta.content, end="", flush=True)
    print()


async def main() -> None:
    runner = Runner(which=Which.MultimodalPlain(model_id=[*sys.argv, None][1]))
    # Both are answered at the same time.
    await asyncio.gather(write(runner, "What can you do?"), write(runner, "Name a colour."))


asyncio.run(main())
