"""Speaks to a server's realtime socket as many clients would, and measures when words and finals come.

Each speaker sends phrases in real time, silence between them. A phrase begins and ends with speech, so that the moment
at which its speech is over is known without asking the server; the pause that a server waits for is part of its delay.
"""

from __future__ import annotations

import asyncio
import base64
import json
import time
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import numpy as np
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus, WebSocketException

from parakeet_stt.measure.api import Target
from parakeet_stt.measure.clips import Phrase, resample
from parakeet_stt.measure.load import compare_text, percentiles_ms

RATE = 24_000  # the only one that OpenAI's own service takes
FRAME_SECONDS = 0.04
GAP_SECONDS = 1.52  # silence after a phrase: a whole number of frames, longer than any server's pause
STAGGER_SECONDS = 2.0  # within which all speakers begin
LAST_SECONDS = 30.0  # to wait for the last finals
ANSWER_SECONDS = 10.0  # to wait for the session
EVENT = "conversation.item.input_audio_transcription."


@dataclass(frozen=True)
class Spoken:
    """A phrase as messages. frames: of `FRAME_SECONDS`, the silence after it included. speech: seconds."""

    frames: tuple[str, ...]
    speech: float


@dataclass
class Utterance:
    """What one speaker gets for one phrase. Times by the monotonic clock, of the speech as it was due to be sent."""

    phrase: int
    began: float
    ended: float
    first_words: float | None = None
    final: float | None = None
    texts: list[str] = field(default_factory=list)
    failure: str = ""

    @property
    def text(self) -> str:
        return " ".join(text.strip() for text in self.texts if text.strip())


@dataclass(frozen=True)
class LiveLoaded:
    """What so many speakers find. Delays in ms, NaN where there is none.

    words: from the beginning of a phrase's speech to the first words of it. final: from the end of its speech to the
    last final of it. drift: how much later the finals are in the last third than in the first, in the median: a server
    that falls behind has a large one. changed, mixed_up: as of files, against the answers to one speaker. late: the
    99th percentile of how late this client sends; if it is large, the client is the bottleneck.
    """

    speakers: int
    phrases: int
    words_p50: float
    words_p95: float
    final_p50: float
    final_p95: float
    final_p99: float
    drift: float
    changed: int
    mixed_up: int
    late: float
    errors: dict[str, int]
    texts: tuple[str, ...]  # of each phrase, as it was answered first

    @property
    def failed(self) -> int:
        return sum(self.errors.values())


def prepare(phrases: Sequence[Phrase]) -> list[Spoken]:
    """The messages that say each phrase."""
    size = round(FRAME_SECONDS * RATE)
    gap = np.zeros(round(GAP_SECONDS * RATE), np.int16)
    spoken = []
    for phrase in phrases:
        samples = np.concatenate([resample(phrase.samples, RATE), gap])
        blocks = samples[: len(samples) // size * size].astype("<i2").reshape(-1, size)
        frames = tuple(
            json.dumps({"type": "input_audio_buffer.append", "audio": base64.b64encode(block.tobytes()).decode()})
            for block in blocks
        )
        spoken.append(Spoken(frames, phrase.seconds))
    return spoken


@asynccontextmanager
async def _open_session(target: Target) -> AsyncIterator[ClientConnection]:
    """A session that transcribes. Raises OSError, WebSocketException, TimeoutError, or ValueError with what it says."""
    address = f"{target.url.replace('http', 'ws', 1)}/realtime?intent=transcription&model={target.model}"
    audio = {
        "format": {"type": "audio/pcm", "rate": RATE},
        "transcription": {"model": target.model},
        "turn_detection": {"type": "server_vad"},
    }
    update = {"type": "session.update", "session": {"type": "transcription", "audio": {"input": audio}}}
    async with connect(address, additional_headers=target.headers, proxy=None, compression=None) as socket:
        await socket.send(json.dumps(update))
        async with asyncio.timeout(ANSWER_SECONDS):
            async for message in socket:
                event = json.loads(message)
                if event.get("type") == "error":
                    raise ValueError(f"session.update is refused: {event['error'].get('message')}")
                if event.get("type") in ("session.updated", "transcription_session.updated"):
                    break
        yield socket


async def has_realtime(target: Target) -> str:
    """Empty if the server has a realtime socket that transcribes; or why not."""
    try:
        async with _open_session(target):
            return ""
    except (OSError, WebSocketException, TimeoutError, ValueError) as error:
        return _describe(error)


class Speaker:
    """One client that says phrases in real time."""

    def __init__(self, target: Target, spoken: Sequence[Spoken], first: int) -> None:
        """first: the phrase to begin with."""
        self._target, self._spoken, self._first = target, spoken, first
        self.utterances: list[Utterance] = []
        self.late: list[float] = []  # seconds, of each frame
        self.errors: list[str] = []
        self._began = 0.0
        self._items: dict[str, Utterance] = {}
        self._open: set[str] = set()  # items that have begun and have no final
        self._is_said = False

    async def speak(self, count: int) -> None:
        """Say `count` phrases, and wait for their finals."""
        try:
            async with _open_session(self._target) as socket:
                reading = asyncio.create_task(self._read(socket))
                try:
                    await self._send(socket, count)
                    if not self._is_answered():  # else no further message has to come
                        await asyncio.wait({reading}, timeout=LAST_SECONDS)
                finally:
                    reading.cancel()
                    await asyncio.wait({reading})
                if not reading.cancelled() and (failed := reading.exception()):
                    raise failed
        except (OSError, WebSocketException, TimeoutError, ValueError) as error:
            self.errors.append(_describe(error))

    def _is_answered(self) -> bool:
        """All phrases are said, each has a final or a failure, and no item is open."""
        return self._is_said and not self._open and all(one.final or one.failure for one in self.utterances)

    async def _send(self, socket: ClientConnection, count: int) -> None:
        due = time.monotonic()
        for number in range(count):
            phrase = (self._first + number) % len(self._spoken)
            spoken = self._spoken[phrase]
            self.begin(phrase, at=due)
            for frame in spoken.frames:
                due += FRAME_SECONDS  # a microphone gives a frame when it is over
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                self.late.append(max(0.0, time.monotonic() - due))
                await socket.send(frame)
            self._is_said = number == count - 1

    def begin(self, phrase: int, *, at: float) -> Utterance:
        """A phrase begins."""
        self._began = self._began or at
        self.utterances.append(Utterance(phrase, at, at + self._spoken[phrase].speech))
        return self.utterances[-1]

    async def _read(self, socket: ClientConnection) -> None:
        async for message in socket:
            self.receive(json.loads(message), time.monotonic())
            if self._is_answered():
                return

    def receive(self, event: dict[str, object], now: float) -> None:
        """An event of the server. now: when it came."""
        kind, item = str(event.get("type")), str(event.get("item_id"))
        if kind == "error":
            self.errors.append(f"error: {event.get('error')}"[:200])
        elif kind == "input_audio_buffer.speech_started":
            self._find(item, self._began + float(str(event.get("audio_start_ms", 0))) / 1000 + GAP_SECONDS / 2)
        elif kind == EVENT + "delta":
            utterance = self._find(item, now)
            if str(event.get("delta") or "").strip() and utterance.first_words is None:
                utterance.first_words = now
        elif kind == EVENT + "completed":
            utterance = self._find(item, now)
            utterance.final = now
            utterance.texts.append(str(event.get("transcript") or ""))
        elif kind == EVENT + "failed":
            self._find(item, now).failure = f"failed: {event.get('error')}"[:200]
        if kind in (EVENT + "completed", EVENT + "failed"):
            self._open.discard(item)
        elif kind in ("input_audio_buffer.speech_started", EVENT + "delta"):
            self._open.add(item)

    def _find(self, item: str, at: float) -> Utterance:
        """The utterance that an item is part of: the one that had last begun when the item's speech did.

        at: that moment, with half a gap to spare, since servers put their beginning before the speech; or the moment of
        the item's first event, from servers that do not say when speech began.
        """
        begins = [one.began for one in self.utterances]
        return self._items.setdefault(item, self.utterances[max(0, bisect_right(begins, at) - 1)])


async def measure_speakers(
    target: Target, spoken: Sequence[Spoken], count: int, seconds: float, *, unloaded: Sequence[str] = ()
) -> LiveLoaded:
    """`count` speakers for about so many seconds, at least two phrases each. unloaded: the answers to one speaker."""
    mean = sum(len(one.frames) for one in spoken) * FRAME_SECONDS / len(spoken)
    phrases = max(2, round(seconds / mean), len(spoken) if not unloaded else 0)
    speakers = [Speaker(target, spoken, number * len(spoken) // count) for number in range(count)]

    async def run_speaker(number: int, speaker: Speaker) -> None:
        await asyncio.sleep(STAGGER_SECONDS * number / count)
        await speaker.speak(phrases)

    await asyncio.gather(*(run_speaker(number, speaker) for number, speaker in enumerate(speakers)))
    return _sum_up(speakers, len(spoken), unloaded)


def _sum_up(speakers: Sequence[Speaker], phrases: int, unloaded: Sequence[str]) -> LiveLoaded:
    utterances = sorted((one for speaker in speakers for one in speaker.utterances), key=lambda one: one.ended)
    answered = [one for one in utterances if one.final is not None]
    texts: dict[int, str] = defaultdict(str)
    for one in reversed(answered):  # the first stays
        texts[one.phrase] = one.text
    differences = [compare_text(one.text, one.phrase, unloaded) for one in answered]
    errors = Counter(error for speaker in speakers for error in speaker.errors)
    errors.update(one.failure or "no final came" for one in utterances if one.final is None)
    finals = [one.final - one.ended for one in answered if one.final is not None]
    words = [one.first_words - one.began for one in utterances if one.first_words is not None]
    third = len(finals) // 3
    words_p50, words_p95 = percentiles_ms(words, 50, 95)
    final_p50, final_p95, final_p99 = percentiles_ms(finals, 50, 95, 99)
    (early,), (later,) = (percentiles_ms(part, 50) for part in (finals[:third], finals[len(finals) - third :]))
    (late,) = percentiles_ms([late for speaker in speakers for late in speaker.late], 99)
    return LiveLoaded(
        speakers=len(speakers),
        phrases=len(utterances),
        words_p50=words_p50,
        words_p95=words_p95,
        final_p50=final_p50,
        final_p95=final_p95,
        final_p99=final_p99,
        drift=later - early,
        changed=sum(one.is_changed for one in differences),
        mixed_up=sum(one.is_mixed_up for one in differences),
        late=late,
        errors=dict(errors),
        texts=tuple(texts[phrase] for phrase in range(phrases)),
    )


def _describe(error: Exception) -> str:
    if isinstance(error, InvalidStatus):
        return f"the socket is refused with {error.response.status_code}"
    return str(error) or type(error).__name__
