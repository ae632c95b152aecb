"""The batcher: takes queued work to the recognizer in batches, and answers it. No thread, no socket.

The order is the scheduler's (scheduler.py), the size of a batch the budget's (batch_budget.py). Detection of speech
goes before each batch, for all streams that wait for it together: it is short, and what is decoded next depends on it.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from parakeet_stt.audio import SAMPLE_RATE, Audio
from parakeet_stt.device.batch_budget import BatchBudget
from parakeet_stt.device.reports import BatchReport, DeviceEvent, OnReport, WaitReport
from parakeet_stt.device.scheduler import Scheduler
from parakeet_stt.errors import DeviceLost, OutOfMemory, RecognitionError
from parakeet_stt.protocols import Chunk, DetectorStates, Priority, Recognizer, SpeechDetector
from parakeet_stt.text.phrases import Phrases
from parakeet_stt.vad import Windows

MAX_DETECTED = 1 << 15  # windows that go through the detector at once: 17 minutes
Answer = Callable[[Any], None]


@dataclass(slots=True, eq=False)
class Work:
    """One utterance of a recording, or one chunk of live speech. All work of priority LIVE is chunks, and no other.

    load: reads the audio, when its batch begins. length: of the audio in samples, context included. owner: equal for
    work that is scheduled as one flow. phrases: to prefer. answer: called with the Hypothesis or ChunkResult, or the
    RecognitionError. on_start: called before its batch is decoded, where the work is `again`: it was lost before, with
    a device process that ended, maybe because of it; it is decoded alone.
    """

    load: Callable[[], Audio | Chunk]
    length: int
    priority: Priority
    owner: Hashable
    phrases: Phrases
    answer: Answer
    on_start: Callable[[], None] | None = None
    is_cancelled: bool = False
    since: float = field(default_factory=time.perf_counter)


@dataclass(slots=True, eq=False)
class DetectWork:
    """Windows of several streams.

    load: reads them, as `SpeechDetector.detect` takes them. count: of all windows. answer: called with the
    probabilities of each stream and the next states, or with the RecognitionError.
    """

    load: Callable[[], list[Windows]]
    count: int
    states: DetectorStates
    answer: Answer
    is_cancelled: bool = False


class Batcher:
    """The queue of one device, and what works on it. One thread calls.

    budget: how large a batch may be; only this batcher uses it.
    """

    def __init__(
        self, recognizer: Recognizer, detector: SpeechDetector | None, budget: BatchBudget, *, on_report: OnReport
    ) -> None:
        self.budget = budget
        self._recognizer = recognizer
        self._detector = detector
        self._report = on_report
        self._scheduler: Scheduler[Work] = Scheduler()
        self._detections: deque[DetectWork] = deque()

    @property
    def has_work(self) -> bool:
        """Whether anything is queued."""
        return bool(self._detections) or len(self._scheduler) > 0

    def submit(self, work: Work) -> None:
        """Queue work."""
        seconds = work.length / SAMPLE_RATE
        self._scheduler.add(work, seconds=seconds, priority=work.priority, owner=work.owner)

    def detect(self, work: DetectWork) -> None:
        """Queue windows for the detector."""
        self._detections.append(work)

    def step(self) -> None:
        """Detect what waits for that, and decode one batch. Raises DeviceLost: only a new process can go on."""
        self._detect()
        self._scheduler.discard(lambda work: work.is_cancelled)
        batch = self._scheduler.take(self.budget.limits)
        if not batch:
            return
        now = time.perf_counter()
        self._report(WaitReport(tuple(now - work.since for work in batch)))
        self._decode([work for work in batch if work.on_start is None])
        for work in batch:
            if work.on_start is not None:
                work.on_start()
                self._decode([work])

    def _detect(self) -> None:
        """Take what waits through the detector, as much as goes at once; the rest follows after the next batch."""
        taken: list[DetectWork] = []
        count = 0
        while self._detections and (not taken or count + self._detections[0].count <= MAX_DETECTED):
            detection = self._detections.popleft()
            if not detection.is_cancelled:
                taken.append(detection)
                count += detection.count
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

    def _decode(self, batch: list[Work]) -> None:
        if not batch:
            return
        failure = self._decode_or_error(batch)
        if failure is None:
            return
        if len(batch) == 1:
            self._report(DeviceEvent.RECOGNITION_ERROR)
            batch[0].answer(failure)
            return
        # Either one item is to blame, or all together were too much: decode the halves apart, after the memory of the
        # failed batch is freed.
        self._decode(batch[: len(batch) // 2])
        self._decode(batch[len(batch) // 2 :])

    def _decode_or_error(self, batch: list[Work]) -> RecognitionError | None:
        """Decode one batch and answer it; return what went wrong, if anything. Raises DeviceLost."""
        lengths = [work.length / SAMPLE_RATE for work in batch]
        padded = max(lengths) * len(batch)
        began = time.perf_counter()
        try:
            phrases = [work.phrases for work in batch]
            contents = [work.load() for work in batch]
            chunks = [one for one in contents if isinstance(one, Chunk)]
            audio = [one for one in contents if isinstance(one, Audio)]
            results = (
                self._recognizer.decode_chunks(chunks, phrases)
                if chunks
                else self._recognizer.recognize(audio, phrases)
            )
            answers = list(zip(batch, results, strict=True))
        except OutOfMemory as exc:
            self._report(DeviceEvent.OUT_OF_MEMORY)
            self.budget.shrink(padded)
            return OutOfMemory(exc.message)
        except DeviceLost:
            raise
        except Exception as exc:  # whatever the model raises belongs to the callers
            return RecognitionError(f"the model failed: {exc}")
        seconds = time.perf_counter() - began
        self.budget.learn(padded, seconds)
        self._report(BatchReport(items=len(batch), audio=sum(lengths), padded=padded, seconds=seconds))
        for work, answer in answers:
            work.answer(answer)
        return None
