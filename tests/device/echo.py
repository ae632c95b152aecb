"""A recognizer that answers with the length of what it gets, and callers who ask it through a device server."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from contextlib import aclosing, contextmanager

import numpy as np

from parakeet_stt.audio import SAMPLE_RATE, Audio
from parakeet_stt.errors import OutOfMemory
from parakeet_stt.ipc.shared_audio import SharedAudio, SharedClip
from parakeet_stt.protocols import Chunk, ChunkResult
from parakeet_stt.text.phrases import Phrases
from parakeet_stt.text.transcript import Hypothesis, Token, TokenArrays
from tests.parts import FakeRecognizer, RunningDevice


class Echo(FakeRecognizer):
    """Answers each utterance with its number of samples. `poison` raises; nothing runs until `go` is set.

    room: padded samples above which a batch is out of memory. deadly: lengths that end the device process.
    """

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.poison: set[int] = set()
        self.deadly: set[int] = set()
        self.room = float("inf")
        self.go = threading.Event()
        self.go.set()
        self.started = threading.Event()
        self.threads: set[int] = set()

    def recognize(self, batch: Sequence[Audio], phrases: Sequence[Phrases] = ()) -> list[Hypothesis]:
        lengths = [len(audio.samples) for audio in batch]
        self.threads.add(threading.get_ident())
        self.started.set()
        assert self.go.wait(10)
        if self.deadly & set(lengths):
            raise SystemExit
        if max(lengths) * len(lengths) > self.room:
            raise OutOfMemory("too much")
        self.batches.append(lengths)
        if self.poison & set(lengths):
            raise ValueError("poisoned")
        return [Hypothesis(tokens_of(length)) for length in lengths]

    def decode_chunks(self, batch: Sequence[Chunk], phrases: Sequence[Phrases] = ()) -> list[ChunkResult]:
        audio = [chunk.audio for chunk in batch if isinstance(chunk.audio, Audio)]
        return [ChunkResult(found.tokens, tokens_of(), None) for found in self.recognize(audio)]

    @property
    def decoded(self) -> list[int]:
        return [length for batch in self.batches for length in batch]


def tokens_of(*numbers: int) -> TokenArrays:
    """Tokens whose ids are these numbers."""
    times = np.zeros(len(numbers), np.float64)
    return TokenArrays((), np.array(numbers, np.int32), times, times, np.zeros(len(numbers), np.float32))


def numbers_of(tokens: Sequence[Token]) -> list[int]:
    """The ids of tokens."""
    assert isinstance(tokens, TokenArrays)
    return [int(number) for number in tokens.ids]


def seconds(number: float) -> int:
    """So many seconds, in samples."""
    return int(number * SAMPLE_RATE)


def open_descriptors() -> int:
    """Number of descriptors that this process has open."""
    return len(os.listdir("/proc/self/fd"))


async def arriving(lengths: Iterable[int]) -> AsyncGenerator[int, None]:
    for length in lengths:
        yield length


class Asking:
    """An utterance that is recognized."""

    def __init__(self, clip: SharedClip) -> None:
        self.audio = clip


@contextmanager
def shared_audio(length: int = 0) -> Iterator[SharedAudio]:
    """Silence in shared memory, for as long as the context lasts."""
    audio = SharedAudio()
    try:
        audio.append(np.zeros(length, np.float32))
        yield audio
    finally:
        audio.close()


async def recognize(device: RunningDevice, lengths: AsyncGenerator[int, None]) -> AsyncGenerator[int, None]:
    """The answers to one recording's utterances. lengths: of the utterances, in samples."""
    with shared_audio() as audio, device.client.recording(audio) as queue:

        async def items() -> AsyncGenerator[Asking, None]:
            async for length in lengths:
                audio.append(np.zeros(length, np.float32))
                yield Asking(audio.clip(audio.length - length, audio.length))

        async with aclosing(queue.recognize(items())) as results:
            async for asked, hypothesis in results:
                assert [asked.audio.length] == numbers_of(hypothesis.tokens)
                audio.discard_before(asked.audio.span.end)
                yield asked.audio.length


async def ask(device: RunningDevice, *lengths: int) -> list[int]:
    """The answers to one recording."""
    async with aclosing(recognize(device, arriving(lengths))) as results:
        return [answer async for answer in results]


async def speak(device: RunningDevice, length: int) -> list[int]:
    """The answer to one chunk of a live session."""
    with shared_audio(length) as audio, device.client.session(audio) as queue:
        result = await queue.decode_chunk(Chunk(audio.clip(0, length), 0, 0, None))
        return numbers_of(result.stable)


async def busy(echo: Echo, device: RunningDevice) -> asyncio.Task[list[int]]:
    """Let the device begin with one item and stay there until `echo.go` is set."""
    echo.go.clear()
    echo.started.clear()
    first = asyncio.create_task(ask(device, 1))
    await asyncio.to_thread(echo.started.wait)
    return first
