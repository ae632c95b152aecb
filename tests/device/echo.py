"""A recognizer that answers with the length of what it gets, and callers who ask it through a batcher."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing

import numpy as np

from parakeet_stt.audio import SAMPLE_RATE, Audio
from parakeet_stt.device.batcher import Batcher
from parakeet_stt.device.link import DeviceClient
from parakeet_stt.errors import DeviceLost, OutOfMemory
from parakeet_stt.protocols import Chunk, ChunkResult
from parakeet_stt.text.phrases import Phrases
from parakeet_stt.text.transcript import Hypothesis, Token
from tests.parts import FakeRecognizer


class Echo(FakeRecognizer):
    """Answers each utterance with its number of samples. `poison` raises; nothing runs until `go` is set.

    room: padded samples above which a batch is out of memory. lost: nothing works any more.
    """

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.poison: set[int] = set()
        self.room = float("inf")
        self.lost = False
        self.go = threading.Event()
        self.go.set()
        self.started = threading.Event()
        self.threads: set[int] = set()

    def recognize(self, batch: Sequence[Audio], phrases: Sequence[Phrases] = ()) -> list[Hypothesis]:
        lengths = [len(audio.samples) for audio in batch]
        self.threads.add(threading.get_ident())
        self.started.set()
        assert self.go.wait(10)
        if self.lost:
            raise DeviceLost("gone")
        if max(lengths) * len(lengths) > self.room:
            raise OutOfMemory("too much")
        self.batches.append(lengths)
        if self.poison & set(lengths):
            raise ValueError("poisoned")
        return [Hypothesis((Token(length, "x", 0, 0, 0),)) for length in lengths]

    def decode_chunks(self, batch: Sequence[Chunk], phrases: Sequence[Phrases] = ()) -> list[ChunkResult]:
        return [ChunkResult(found.tokens, (), None) for found in self.recognize([chunk.audio for chunk in batch])]

    @property
    def decoded(self) -> list[int]:
        return [length for batch in self.batches for length in batch]


def audio(length: int) -> Audio:
    return Audio(np.zeros(length, np.float32))


def seconds(number: float) -> Audio:
    return audio(int(number * SAMPLE_RATE))


async def arriving(utterances: Iterable[Audio]) -> AsyncGenerator[Audio, None]:
    for utterance in utterances:
        yield utterance


class Asking:
    """An utterance that is recognized."""

    def __init__(self, sound: Audio) -> None:
        self.audio = sound


async def recognize(device: Batcher, utterances: AsyncGenerator[Audio, None]) -> AsyncGenerator[int, None]:
    """The answers to one recording's utterances."""

    async def items() -> AsyncGenerator[Asking, None]:
        async for utterance in utterances:
            yield Asking(utterance)

    with DeviceClient(device).recording() as queue:
        async with aclosing(queue.recognize(items())) as results:
            async for asked, hypothesis in results:
                assert len(asked.audio.samples) == hypothesis.tokens[0].id
                yield hypothesis.tokens[0].id


async def ask(device: Batcher, *utterances: Audio) -> list[int]:
    async with aclosing(recognize(device, arriving(utterances))) as results:
        return [answer async for answer in results]


async def speak(device: Batcher, part: Audio) -> list[int]:
    client = DeviceClient(device)
    result = await client.decode_chunk(Chunk(part, 0, 0, None), owner=client.new_owner())
    return [token.id for token in result.stable]


async def busy(echo: Echo, device: Batcher) -> asyncio.Task[list[int]]:
    """Let the device begin with one item and stay there until `echo.go` is set."""
    echo.go.clear()
    echo.started.clear()
    first = asyncio.create_task(ask(device, audio(1)))
    await asyncio.to_thread(echo.started.wait)
    return first
