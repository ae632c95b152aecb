"""Live speech detection over a device that decodes nothing: by the front's own detector, or by the device's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import numpy as np

from parakeet_stt.audio import Samples
from parakeet_stt.device.batch_budget import BatchBudget, Cost
from parakeet_stt.device.client import DeviceClient
from parakeet_stt.ipc.shared_audio import SharedAudio
from parakeet_stt.media.filters import Filters
from parakeet_stt.protocols import SpeechDetector
from parakeet_stt.server.live.live_vad import Feed, LiveVad, LocalDetector, RemoteDetector, StreamInput
from parakeet_stt.server.live.pcm import Encoding
from parakeet_stt.vad import Probabilities
from tests.parts import FakeRecognizer, RunningDevice


@dataclass
class Heard:
    """What one session has got: its samples, and their probabilities by part. failure: why it ended."""

    samples: Samples
    parts: list[Probabilities] = field(default_factory=list)
    counted: int = 0
    failure: Exception | None = None

    @property
    def probabilities(self) -> Probabilities:
        return np.concatenate([np.zeros(0, np.float32), *self.parts])

    def deliver(self, count: int, found: Probabilities) -> None:
        self.counted += count
        self.parts.append(found)

    def fail(self, failure: Exception) -> None:
        self.failure = failure


class Hearing:
    """A front's live detection, and the device it belongs to. on_device: whether the device detects."""

    def __init__(self, detector: SpeechDetector, *, on_device: bool) -> None:
        budget = BatchBudget(Cost(0.1, 100), seconds=24, items=64)
        self.device = RunningDevice(FakeRecognizer, budget, detector=detector if on_device else None)
        self._detector = detector
        self._is_on_device = on_device

    @asynccontextmanager
    async def running(self) -> AsyncIterator[tuple[LiveVad, DeviceClient]]:
        live_vad = LiveVad(RemoteDetector() if self._is_on_device else LocalDetector(self._detector))
        try:
            async with self.device.connected() as client:
                yield live_vad, client
        finally:
            live_vad.close()

    @asynccontextmanager
    async def feed(
        self, client: DeviceClient, heard: Heard, encoding: Encoding = "pcm_s16le", rate: int = 16_000
    ) -> AsyncIterator[Feed]:
        audio = SharedAudio()
        made = await Filters(self.device.paths.filters, client.make_filter).find(rate)
        with client.session(audio) as queue:
            yield Feed(StreamInput(encoding, made, queue.link, queue.source), heard.deliver, heard.fail)
            heard.samples = audio.clip(0, audio.length).load().samples
        audio.close()

    def hear(
        self, streams: list[bytes], sizes: list[int], encoding: Encoding = "pcm_s16le", rate: int = 16_000
    ) -> list[Heard]:
        """Several sessions at once, each in frames of its own size."""

        async def one(live_vad: LiveVad, client: DeviceClient, data: bytes, size: int) -> Heard:
            heard = Heard(np.zeros(0, np.float32))
            async with self.feed(client, heard, encoding, rate) as feed:
                for at in range(0, len(data), size):
                    live_vad.push(feed, data[at : at + size])
                    await asyncio.sleep(0)
                live_vad.push(feed, b"", is_last=True)
                await live_vad.flush(feed)
            return heard

        async def main() -> list[Heard]:
            async with asyncio.timeout(120), self.running() as (live_vad, client):
                return await asyncio.gather(*(one(live_vad, client, *job) for job in zip(streams, sizes, strict=True)))

        return asyncio.run(main())
