"""Decodes utterances of many recordings together: the service's engine, batches and retries, in this process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from parakeet_stt.audio import Audio
from parakeet_stt.bulk.parts import DecodedPart, Failure, Maker, Part, without_audio
from parakeet_stt.bulk.settings import BulkSettings
from parakeet_stt.device.batcher import Batcher, Work
from parakeet_stt.device.start import BatchSettings, prepare
from parakeet_stt.errors import RecognitionError
from parakeet_stt.offline.decoding import Found, complete_words
from parakeet_stt.offline.utterances import Utterance
from parakeet_stt.protocols import HasAudio, Priority, Recognizer
from parakeet_stt.server.digests import compute_digests
from parakeet_stt.text.phrases import NO_PHRASES, Phrases
from parakeet_stt.text.transcript import Hypothesis

T = TypeVar("T", bound=HasAudio)
ROOT = Path(__file__).parents[2]
OWNER = "bulk"  # all utterances are one flow: the first goes first


class PartDecoder:
    """A loaded recognizer, and its batches. One thread calls."""

    def __init__(self, recognizer: Recognizer, settings: BulkSettings, maker: Maker) -> None:
        """Warms the recognizer up and measures how large batches should be. Raises StartupError."""
        limits = BatchSettings(settings.max_batch, settings.max_utterance_seconds, settings.batch_seconds)
        budget = prepare(recognizer, limits)
        self._batcher = Batcher(recognizer, None, budget, on_report=lambda _: None)
        self._onset = settings.rules.onset
        self._maker = maker

    def decode(self, parts: Sequence[Part]) -> list[DecodedPart]:
        """Decode the utterances of all parts together, as many at a time as a batch takes; in input order.

        A part on which the model fails gets a failure. Raises DeviceLost: only a new process can go on.
        """
        return asyncio.run(self._decode(parts))

    async def _decode(self, parts: Sequence[Part]) -> list[DecodedPart]:
        began = time.perf_counter()
        tasks = [asyncio.ensure_future(self._decode_part(part)) for part in parts]
        while not all(task.done() for task in tasks):
            for _ in range(2):  # until all tasks wait for the batcher: an answer wakes one, which then asks for more
                await asyncio.sleep(0)
            if self._batcher.has_work:
                self._batcher.step()
        rtfx = sum(part.seconds for part in parts) / max(time.perf_counter() - began, 1e-6)
        decoded = []
        for part, task in zip(parts, tasks, strict=True):
            bare = replace(part, utterances=tuple(map(without_audio, part.utterances)))
            found = task.result()
            if isinstance(found, Failure):
                bare, found = replace(bare, failure=found, end=None), []
            decoded.append(DecodedPart(bare, tuple(found), rtfx, self._maker))
        return decoded

    async def _decode_part(self, part: Part) -> list[Found] | Failure:
        work = [asyncio.ensure_future(self._decode_utterance(one)) for one in part.utterances]
        done = await asyncio.gather(*work, return_exceptions=True)
        found = []
        for one in done:
            if isinstance(one, RecognitionError):
                return Failure("server_error", one.message)
            if isinstance(one, BaseException):
                raise one
            found.append(one)
        return found

    async def _decode_utterance(self, utterance: Utterance) -> Found:
        hypothesis = await self._answer(utterance, NO_PHRASES)
        return await complete_words(
            utterance,
            hypothesis,
            recognize=self._recognize,
            phrases=NO_PHRASES,
            onset=self._onset,
            on_retry=lambda _: None,
        )

    async def _recognize(
        self, items: AsyncIterator[T], *, phrases: Phrases
    ) -> AsyncGenerator[tuple[T, Hypothesis], None]:
        """Decode items with whatever else waits; see `offline.decoding.Recognize`."""
        asked = [(item, self._answer(item, phrases)) async for item in items]
        for item, answer in asked:
            yield item, await answer

    def _answer(self, item: HasAudio, phrases: Phrases) -> asyncio.Future[Hypothesis]:
        """The hypothesis of an utterance, which is queued. Raises RecognitionError."""
        audio = item.audio
        assert isinstance(audio, Audio)
        answer: asyncio.Future[Hypothesis] = asyncio.get_running_loop().create_future()

        def resolve(found: Hypothesis | RecognitionError) -> None:
            if isinstance(found, RecognitionError):
                answer.set_exception(found)
            else:
                answer.set_result(found)

        self._batcher.submit(Work(lambda: audio, audio.length, Priority.LONG, OWNER, phrases, resolve))
        return answer


def load_decoder(settings: BulkSettings) -> PartDecoder:
    """Load the engine on this process's device. Raises StartupError."""
    from parakeet_stt.engines.loading import EngineSettings, load

    source = settings.find_model()
    digests = compute_digests(ROOT, source.path, recorded=source.sha256)
    engine = load(
        source.path,
        EngineSettings(settings.device, settings.precision, settings.threads, settings.encoder),
    )
    return PartDecoder(engine.recognizer, settings, Maker(source.name, digests.named()))
