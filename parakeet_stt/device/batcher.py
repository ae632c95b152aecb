"""The batcher: takes queued work to the recognizer in batches, and answers it. No thread, no socket.

The order is the scheduler's (scheduler.py), the size of a batch the budget's (batch_budget.py). Detection of speech
goes before each batch, for all streams that wait for it together: it is short, and what is decoded next depends on it.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from parakeet_stt.audio import SAMPLE_RATE, Audio
from parakeet_stt.device.batch_budget import BatchBudget
from parakeet_stt.device.reports import BatchReport, DeviceEvent, DiarizeReport, OnReport, WaitReport
from parakeet_stt.device.scheduler import Scheduler
from parakeet_stt.errors import DeviceLost, OutOfMemory, RecognitionError
from parakeet_stt.protocols import (
    Chunk,
    DetectorStates,
    Diarizer,
    Done,
    Pending,
    Priority,
    Recognizer,
    SpeakerChunk,
    SpeakerResult,
    SpeechDetector,
)
from parakeet_stt.text.phrases import Phrases
from parakeet_stt.vad import Windows

RECOGNIZE, DIARIZE = 0, 1  # kinds of work; a batch is of one kind
MAX_DETECTED = 1 << 15  # windows that go through the detector at once: 17 minutes
Answer = Callable[[Any], None]


@dataclass(slots=True, eq=False)
class Work:
    """One utterance of a recording, one chunk of live speech, or a part of a recording whose speakers are to be told.

    All work of priority LIVE is chunks, and no other.

    load: reads the audio, when its batch begins. length: of the audio in samples, context included. owner: equal for
    work that is scheduled as one flow. phrases: to prefer. answer: called with the Hypothesis or ChunkResult, or the
    RecognitionError. on_start: called before its batch is decoded, where the work is `again`: it was lost before, with
    a device process that ended, maybe because of it; it is decoded alone.
    """

    load: Callable[[], Audio | Chunk | SpeakerChunk]
    length: int
    priority: Priority
    owner: Hashable
    phrases: Phrases
    answer: Answer
    on_start: Callable[[], None] | None = None
    kind: int = RECOGNIZE
    is_cancelled: bool = False
    since: float = field(default_factory=time.perf_counter)


@dataclass(slots=True, eq=False)
class DetectWork:
    """Windows of several streams.

    load: reads them, as `SpeechDetector.detect` takes them. count: of all windows. answer: called with the
    probabilities of each stream and the next states, or with the RecognitionError. on_start: see `Work`.
    """

    load: Callable[[], list[Windows]]
    count: int
    states: DetectorStates
    answer: Answer
    on_start: Callable[[], None] | None = None
    is_cancelled: bool = False


@dataclass(frozen=True, slots=True)
class _Launched:
    """A batch that the device has, all of one kind. began: by the clock, when its audio was read."""

    batch: list[Work]
    pending: Pending[Any]
    began: float


class Batcher:
    """The queue of one device, and what works on it. One thread calls.

    budget: how large a batch may be; only this batcher uses it.
    """

    def __init__(
        self,
        recognizer: Recognizer,
        detector: SpeechDetector | None,
        budget: BatchBudget,
        *,
        on_report: OnReport,
        diarizer: Diarizer | None = None,
    ) -> None:
        self.budget = budget
        self._recognizer = recognizer
        self._detector = detector
        self._diarizer = diarizer
        self._report = on_report
        self._scheduler: Scheduler[Work] = Scheduler()
        self._detections: deque[DetectWork] = deque()
        self._launched: _Launched | None = None
        self._collected_at = 0.0
        self._runs_ahead = recognizer.device.startswith("cuda")

    @property
    def has_work(self) -> bool:
        """Whether anything is queued, or launched."""
        return bool(self._detections) or len(self._scheduler) > 0 or self._launched is not None

    def submit(self, work: Work) -> None:
        """Queue work."""
        seconds = work.length / SAMPLE_RATE
        self._scheduler.add(work, seconds=seconds, priority=work.priority, owner=work.owner, kind=work.kind)

    def detect(self, work: DetectWork) -> None:
        """Queue windows for the detector."""
        self._detections.append(work)

    def step(self) -> None:
        """Detect what waits for that, launch one batch, and collect the one that was launched before.

        On a GPU the next batch is prepared and queued while one runs; on a CPU each batch is collected at once. Raises
        DeviceLost: only a new process can go on.
        """
        self._detect()
        self._scheduler.discard(lambda work: work.is_cancelled)
        batch = self._scheduler.take(self.budget.limits)
        if batch:
            now = time.perf_counter()
            self._report(WaitReport(tuple(now - work.since for work in batch)))
        launched = self._launch([work for work in batch if work.on_start is None])
        self._collect()
        self._launched = launched
        if not self._runs_ahead:
            self._collect()
        for work in batch:
            if work.on_start is not None:
                self._collect()
                work.on_start()
                self._launched = self._launch([work])
                self._collect()

    def _detect(self) -> None:
        """Take what waits through the detector, as much as goes at once; the rest follows after the next batch."""
        taken: list[DetectWork] = []
        count = 0
        while self._detections and (not taken or count + self._detections[0].count <= MAX_DETECTED):
            detection = self._detections.popleft()
            if not detection.is_cancelled:
                taken.append(detection)
                count += detection.count
        self._detect_together([one for one in taken if one.on_start is None])
        for detection in taken:
            if detection.on_start is not None:
                detection.on_start()
                self._detect_together([detection])

    def _detect_together(self, taken: list[DetectWork]) -> None:
        if not taken:
            return
        if self._detector is None:
            for detection in taken:
                detection.answer(RecognitionError("this device has no detector"))
            return
        try:
            windows = [detection.load() for detection in taken]
            states = taken[0].states if len(taken) == 1 else np.concatenate([one.states for one in taken])
            found, states = self._detector.detect([one for own in windows for one in own], states)
        except DeviceLost:
            raise
        except Exception as exc:
            for detection in taken:
                detection.answer(RecognitionError(f"the detector failed: {exc}"))
            return
        first = 0
        for detection, own in zip(taken, windows, strict=True):
            last = first + len(own)
            detection.answer((found[first:last], states[first:last]))
            first = last

    def _launch(self, batch: list[Work]) -> _Launched | None:
        """Queue a batch on the device; None if there is nothing, or if it failed, and then it is answered."""
        if not batch:
            return None
        began = time.perf_counter()
        failure = RecognitionError("")
        try:
            contents = [work.load() for work in batch]
            if batch[0].kind == DIARIZE:
                return _Launched(batch, Done(self._diarize(contents)), began)
            phrases = [work.phrases for work in batch]
            chunks = [one for one in contents if isinstance(one, Chunk)]
            audio = [one for one in contents if isinstance(one, Audio)]
            if chunks:
                return _Launched(batch, self._recognizer.launch_chunks(chunks, phrases), began)
            return _Launched(batch, self._recognizer.launch(audio, phrases), began)
        except DeviceLost:
            raise
        except Exception as exc:
            failure = self._to_error(exc, batch)
        self._collect()  # the batch before is the older one
        self._fail(batch, failure)
        return None

    def _diarize(self, contents: Sequence[object]) -> list[SpeakerResult]:
        if self._diarizer is None:
            raise RecognitionError("this device has no diarizer")
        return self._diarizer.diarize([one for one in contents if isinstance(one, SpeakerChunk)])

    def _collect(self) -> None:
        """Wait for the batch that was launched, if there is one, and answer it."""
        launched, self._launched = self._launched, None
        if launched is None:
            return
        batch = launched.batch
        failure = RecognitionError("")
        try:
            answers = list(zip(batch, launched.pending.result(), strict=True))
        except DeviceLost:
            raise
        except Exception as exc:
            failure = self._to_error(exc, batch)
        else:
            now = time.perf_counter()
            seconds, self._collected_at = now - max(launched.began, self._collected_at), now
            lengths, padded = _lengths(batch)
            if batch[0].kind == DIARIZE:
                self._report(DiarizeReport(sum(lengths), seconds))
            else:
                self.budget.learn(padded, seconds)
                self._report(BatchReport(items=len(batch), audio=sum(lengths), padded=padded, seconds=seconds))
            for work, answer in answers:
                work.answer(answer)
            return
        self._fail(batch, failure)

    def _to_error(self, exc: Exception, batch: list[Work]) -> RecognitionError:
        """What went wrong, without what the exception refers to: the memory of the failed batch is to be freed."""
        if isinstance(exc, OutOfMemory):
            self._report(DeviceEvent.OUT_OF_MEMORY)
            self.budget.shrink(_lengths(batch)[1])
            return OutOfMemory(exc.message)
        return RecognitionError(f"the model failed: {exc}")  # whatever it raises belongs to the callers

    def _fail(self, batch: list[Work], failure: RecognitionError) -> None:
        """Either one item is to blame, or all together were too much: decode the halves apart."""
        if len(batch) == 1:
            self._report(DeviceEvent.RECOGNITION_ERROR)
            batch[0].answer(failure)
            return
        for half in (batch[: len(batch) // 2], batch[len(batch) // 2 :]):
            self._launched = self._launch(half)
            self._collect()


def _lengths(batch: list[Work]) -> tuple[list[float], float]:
    """Seconds of each item, and padded seconds of all."""
    lengths = [work.length / SAMPLE_RATE for work in batch]
    return lengths, max(lengths) * len(batch)
