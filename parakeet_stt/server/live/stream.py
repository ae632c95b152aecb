"""A running live stream: bytes → detector → session → device → events."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace

from parakeet_stt.audio import SAMPLE_RATE
from parakeet_stt.device.client import SessionQueue
from parakeet_stt.errors import RecognitionError
from parakeet_stt.media.filters import Filters
from parakeet_stt.protocols import FRAME_SAMPLES, ChunkResult
from parakeet_stt.server.live.live_vad import MAX_BYTES, Feed, LiveVad, StreamInput
from parakeet_stt.server.live.pcm import Encoding
from parakeet_stt.server.monitoring.metrics import Metrics
from parakeet_stt.streaming.chunk_decoder import ChunkRules, Failed, Final
from parakeet_stt.streaming.endpointer import EndpointRules
from parakeet_stt.streaming.session import Session
from parakeet_stt.streaming.turns import Event, SpeechStopped
from parakeet_stt.text.coverage import MISSED_SECONDS, LoggedSpans
from parakeet_stt.text.phrases import NO_PHRASES, Phrases
from parakeet_stt.vad import Probabilities

logger = logging.getLogger(__name__)
HURRY_SECONDS = 2.0  # backlog from which chunks grow
# Backlog, besides an open utterance, from which no more audio is read: the client sends faster than it is decoded.
MAX_BACKLOG_SECONDS = 30.0
MAX_PENDING_BYTES = 4 * MAX_BYTES  # that wait for the detector, before no more are read


@dataclass(frozen=True, slots=True)
class LiveOptions:
    """What a client may ask of a session. rate: in Hz. phrases: to prefer."""

    encoding: Encoding = "pcm_s16le"
    rate: int = SAMPLE_RATE
    endpoint_rules: EndpointRules = field(default_factory=EndpointRules)
    chunk_rules: ChunkRules = field(default_factory=ChunkRules)
    phrases: Phrases = NO_PHRASES


class LiveStream:
    """One session that runs. One task calls its methods, and another reads `events`."""

    def __init__(
        self,
        options: LiveOptions,
        *,
        queue: SessionQueue,
        live_vad: LiveVad,
        filters: Filters,
        metrics: Metrics,
        context_seconds: float,
    ) -> None:
        """queue: of the admitted session, which outlives this. context_seconds: before each chunk's own part."""
        self._phrases = options.phrases
        self._live_vad = live_vad
        self._filters = filters
        self._queue = queue
        self._metrics = metrics
        self._left_context = math.ceil(context_seconds * SAMPLE_RATE / FRAME_SAMPLES)
        self._session = Session(options.endpoint_rules, self._chunk_rules(options), queue.source.audio)
        self._format = options.encoding, options.rate
        self._feed: Feed | None = None  # once there is audio
        self._failure: Exception | None = None  # of the detector
        self._events: asyncio.Queue[Event | None] = asyncio.Queue()
        self._has_room = asyncio.Event()  # set when less may be waiting than before
        self._stopped_at: dict[int, float] = {}  # when the end of an utterance was noticed
        self._decoding: asyncio.Future[ChunkResult] | None = None  # the chunk that is with the device
        self._progress_at = time.monotonic()  # last answer of detector or recognizer
        self._is_over = False  # nothing more is decoded
        self.missed = LoggedSpans()  # speech without words

    @property
    def received_seconds(self) -> float:
        """Audio received so far."""
        return self._session.received / SAMPLE_RATE

    @property
    def open_seconds(self) -> float:
        """Length of the open turn; 0 if none is open."""
        return self._session.open_samples / SAMPLE_RATE

    @property
    def buffered_seconds(self) -> float:
        """Audio since the last turn ended, or was cleared."""
        return self._session.buffered / SAMPLE_RATE

    @property
    def stalled_seconds(self) -> float:
        """For how long the device process has been there without an answer; 0 while it is started again."""
        return min(self._queue.link.alive_seconds, time.monotonic() - self._progress_at)

    def _chunk_rules(self, options: LiveOptions) -> ChunkRules:
        return replace(options.chunk_rules, left_context=self._left_context)

    def configure(self, options: LiveOptions) -> None:
        """Change the options for what follows; the format may change only before any audio has come."""
        self._phrases = options.phrases
        self._emit(self._session.configure(options.endpoint_rules, self._chunk_rules(options)))
        if not self._session.received and self._format != (options.encoding, options.rate):
            self._format = options.encoding, options.rate
            self._close_feed()

    async def receive_audio(self, data: bytes) -> None:
        """More of the stream, of any length. Returns once there is room for what follows."""
        feed = await self._open_feed()
        self._live_vad.push(feed, data)
        while self._is_behind(feed) and not self._is_over:
            self._has_room.clear()
            await self._has_room.wait()
        self._raise_failure()

    async def flush(self) -> None:
        """Return once all audio received so far has gone through the detector; other messages wait for that."""
        if self._feed:
            await self._live_vad.flush(self._feed)
        self._raise_failure()

    async def commit(self) -> None:
        """End the open turn after the audio received so far."""
        await self.flush()
        self._emit(self._session.commit())

    async def clear(self) -> None:
        """Forget the open turn."""
        await self.flush()
        self._session.clear()

    async def finish(self) -> None:
        """The stream is over: `events` ends after the last final."""
        self._live_vad.push(await self._open_feed(), b"", is_last=True)
        await self.flush()
        self._emit(self._session.finish())

    async def events(self) -> AsyncIterator[Event]:
        """The session's events, in order, up to the last final."""
        while (event := await self._events.get()) is not None:
            yield event

    def close(self) -> None:
        """Cancel what is not decoded yet."""
        self._close_feed()
        self._end()
        if self._decoding:
            self._decoding.cancel()
        if self._failure:
            logger.error("a live session failed", exc_info=self._failure)
        self._metrics.audio_seconds.inc(self.received_seconds)

    async def _open_feed(self) -> Feed:
        if self._feed is None:
            encoding, rate = self._format
            made = await self._filters.find(rate)
            source = StreamInput(encoding, made, self._queue.link, self._queue.source)
            self._feed = Feed(source, self._receive_samples, self._fail)
        return self._feed

    def _close_feed(self) -> None:
        if self._feed:
            self._live_vad.discard(self._feed)
            self._feed = None

    def _receive_samples(self, count: int, probabilities: Probabilities) -> None:
        self._emit(self._session.receive_audio(count, probabilities.tolist()))

    def _fail(self, failure: Exception) -> None:
        self._failure = self._failure or failure
        self._end()

    def _end(self) -> None:
        """No event follows."""
        if not self._is_over:
            self._is_over = True
            self._events.put_nowait(None)
        self._has_room.set()

    def _raise_failure(self) -> None:
        if self._failure:
            raise self._failure

    def _is_behind(self, feed: Feed) -> bool:
        return feed.pending_bytes > MAX_PENDING_BYTES or self._backlog_seconds() > MAX_BACKLOG_SECONDS

    def _backlog_seconds(self) -> float:
        backlog = self._session.backlog
        if self._session.chunk_rules.length is None:  # an open utterance waits for its end, not for the recognizer
            backlog -= min(backlog, self._session.endpoint_rules.longest_ms * SAMPLE_RATE // 1000)
        return backlog / SAMPLE_RATE

    def _emit(self, events: Sequence[Event]) -> None:
        self._progress_at = time.monotonic()
        for event in events:
            if isinstance(event, SpeechStopped):
                self._stopped_at[event.item] = time.perf_counter()
            elif isinstance(event, Final | Failed):
                self._metrics.final_seconds.observe(time.perf_counter() - self._stopped_at.pop(event.item))
            if isinstance(event, Final):
                self._report(event)
            self._events.put_nowait(event)
        self._has_room.set()
        self._advance()

    def _report(self, final: Final) -> None:
        """Count a turn's speech. Of what has no words, note for the log what a file would be decoded again for."""
        assert final.speech
        self._metrics.count_speech(final.speech)
        uncovered = final.speech.uncovered
        self.missed.add([one for one in uncovered if not final.words or one.end - one.start >= MISSED_SECONDS])

    def _advance(self) -> None:
        """Have the next chunk decoded, if one is due and none is with the device."""
        if self._decoding is not None or self._is_over:
            return
        chunk = self._session.next_chunk(hurry=self._backlog_seconds() > HURRY_SECONDS)
        if chunk is not None:
            self._decoding = self._queue.decode_chunk(chunk, phrases=self._phrases)
            self._decoding.add_done_callback(self._receive_answer)
        elif self._session.is_over:
            self._end()

    def _receive_answer(self, answer: asyncio.Future[ChunkResult]) -> None:
        self._decoding = None
        if answer.cancelled():
            return
        try:
            if isinstance(answer.exception(), RecognitionError):
                self._emit(self._session.receive_failure())
            else:
                self._emit(self._session.receive_result(answer.result()))
        except Exception as exc:  # the event loop would only log it, and the session would wait for ever
            self._fail(exc)
