"""Knows how a live session runs: bytes → ear → session → runner → events. Does not know any protocol, nor sockets."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

from parakeet_stt.audio import SAMPLE_RATE
from parakeet_stt.device.batcher import Runner
from parakeet_stt.errors import RecognitionError
from parakeet_stt.server.live.live_vad import Ear, Encoding, Hearing
from parakeet_stt.server.metrics import Metrics
from parakeet_stt.streaming.session import Event, Failed, Final, Session, State, StepRules, Stopped, TurnRules
from parakeet_stt.text.phrases import NONE, Phrases

logger = logging.getLogger(__name__)
HURRY_SECONDS = 2.0  # waiting sound from which more of it is recognized at once
# Waiting sound, besides an open utterance, above which no more is taken: who sends faster than it is recognized waits.
MOST_WAITING_SECONDS = 30.0
MOST_BYTES = 1 << 15  # of sound that are heard at once: a second at 16 kHz


@dataclass(frozen=True, slots=True)
class LiveOptions:
    """What a client may ask of a session. rate: in Hz. phrases: what to listen for."""

    encoding: Encoding = "pcm_s16le"
    rate: int = SAMPLE_RATE
    turns: TurnRules = field(default_factory=TurnRules)
    steps: StepRules = field(default_factory=StepRules)
    phrases: Phrases = NONE


class Live:
    """One session that runs. Its methods are called by one task, and `events` is read by another."""

    def __init__(self, options: LiveOptions, *, hearing: Hearing, runner: Runner, metrics: Metrics) -> None:
        self.phrases = options.phrases
        self._hearing = hearing
        self._runner = runner
        self._metrics = metrics
        self._session = Session(options.turns, options.steps)
        self._form = options.encoding, options.rate
        self._ear = Ear(*self._form)
        self._events: asyncio.Queue[Event | None] = asyncio.Queue()
        self._more, self._room = asyncio.Event(), asyncio.Event()
        self._ends: dict[int, float] = {}  # when the end of an utterance was noticed
        self._recognizing = asyncio.create_task(self._recognize())

    @property
    def heard_seconds(self) -> float:
        """How much sound has come."""
        return self._session.heard / SAMPLE_RATE

    @property
    def open_seconds(self) -> float:
        """Length of the utterance that is open; 0 if none is."""
        return self._session.open_samples / SAMPLE_RATE

    def change(self, options: LiveOptions) -> None:
        """Go on like this; the format may change only before any sound has come."""
        self.phrases = options.phrases
        self._session.turns, self._session.steps = options.turns, options.steps
        if not self._session.heard and self._form != (options.encoding, options.rate):
            self._form = options.encoding, options.rate
            self._ear = Ear(*self._form)

    async def hear(self, data: bytes) -> None:
        """More of the stream, of any length. Returns once there is room for what follows."""
        for at in range(0, len(data), MOST_BYTES):  # a long frame makes no other session wait for all of it
            samples, probabilities = await self._hearing.hear(self._ear, data[at : at + MOST_BYTES])
            self._take(self._session.hear(samples, probabilities.tolist()))
            while self._waiting_seconds() > MOST_WAITING_SECONDS and not self._recognizing.done():
                self._room.clear()
                await self._room.wait()

    def commit(self) -> None:
        """End the open utterance here."""
        self._take(self._session.commit())

    def clear(self) -> None:
        """Forget the open utterance."""
        self._session.clear()

    async def finish(self) -> None:
        """The stream is over: `events` ends after the last final."""
        samples, probabilities = await self._hearing.hear(self._ear, b"", is_last=True)
        self._take(self._session.hear(samples, probabilities.tolist()))
        self._take(self._session.finish())

    async def events(self) -> AsyncIterator[Event]:
        """What happens, in order, until the last final."""
        while (event := await self._events.get()) is not None:
            yield event

    async def close(self) -> None:
        """Give up whatever is not recognized yet."""
        self._recognizing.cancel()
        await asyncio.wait({self._recognizing})
        if not self._recognizing.cancelled() and (failure := self._recognizing.exception()):
            logger.error("a live session failed", exc_info=failure)
        self._metrics.audio_seconds.inc(self.heard_seconds)

    def _waiting_seconds(self) -> float:
        waiting = self._session.backlog
        if self._session.steps.part is None:  # an open utterance waits for its end, not for the recognizer
            waiting -= min(waiting, self._session.turns.longest_ms * SAMPLE_RATE // 1000)
        return waiting / SAMPLE_RATE

    def _take(self, events: Sequence[Event]) -> None:
        for event in events:
            if isinstance(event, Stopped):
                self._ends[event.item] = time.perf_counter()
            elif isinstance(event, Final | Failed):
                self._metrics.final_seconds.observe(time.perf_counter() - self._ends.pop(event.item))
            self._events.put_nowait(event)
        self._more.set()

    async def _recognize(self) -> None:
        try:
            while self._session.state is not State.ENDED:
                self._more.clear()
                step = self._session.next_step(hurry=self._waiting_seconds() > HURRY_SECONDS)
                if step is None:
                    self._room.set()
                    await self._more.wait()
                    continue
                try:
                    found = await self._runner.step(step, owner=self, phrases=self.phrases)
                except RecognitionError:
                    self._take(self._session.failed())
                else:
                    self._take(self._session.stepped(found))
                self._room.set()
        finally:
            self._room.set()
            self._events.put_nowait(None)
