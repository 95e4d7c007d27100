"""Waiting for the native module: for an operation, or for the pieces of an answer, with and without ``await``."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from . import _native

T = TypeVar("T")


async def outcome(pending: _native.Pending) -> Any:
    """What an operation comes to. Cancelling the task that waits ends it."""
    loop = asyncio.get_running_loop()
    ended = loop.create_future()

    def settle() -> None:
        if not ended.done():
            ended.set_result(None)

    def tell() -> None:
        try:
            loop.call_soon_threadsafe(settle)
        except RuntimeError:
            # The loop was closed, so that nobody waits.
            pass

    pending.then(tell)
    try:
        await ended
    except asyncio.CancelledError:
        pending.cancel()
        raise
    return pending.wait()


class Stream(Generic[T]):
    """An answer as it comes: an iterator of chunks, for ``for`` and for ``async for``.

    Leaving it, closing it or forgetting it ends the generation, and so does Ctrl-C.
    """

    def __init__(self, answers: _native.Answers, read: Callable[[dict[str, Any]], T]) -> None:
        self._answers = answers
        self._read = read

    def __iter__(self) -> Stream[T]:
        return self

    def __next__(self) -> T:
        try:
            chunk = self._answers.next().wait()
        except BaseException:
            self.close()
            raise
        if chunk is None:
            raise StopIteration
        return self._read(json.loads(chunk))

    def __aiter__(self) -> Stream[T]:
        return self

    async def __anext__(self) -> T:
        try:
            chunk = await outcome(self._answers.next())
        except BaseException:
            self.close()
            raise
        if chunk is None:
            raise StopAsyncIteration
        return self._read(json.loads(chunk))

    def close(self) -> None:
        """Ends the generation. Nothing more comes."""
        self._answers.close()

    def __enter__(self) -> Stream[T]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Stream[T]:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()
