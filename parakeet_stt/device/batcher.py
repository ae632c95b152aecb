"""The batcher: one thread that owns the device, batches what is queued, and answers each future.

The order is the scheduler's (scheduler.py), the size of a batch the budget's (batch_budget.py).
"""

from __future__ import annotations

import logging
import math
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from parakeet_stt.audio import SAMPLE_RATE, Audio
from parakeet_stt.device.batch_budget import BatchBudget
from parakeet_stt.device.link import Work
from parakeet_stt.device.reports import BatchReport, DeviceEvent, OnReport, WaitReport
from parakeet_stt.device.scheduler import Scheduler
from parakeet_stt.errors import DeviceLost, OutOfMemory, Overloaded, RecognitionError
from parakeet_stt.protocols import Chunk, Priority, Recognizer

logger = logging.getLogger(__name__)
# Longest queue unless the operator sets one: seconds of work for the device, and at least so many seconds of audio.
QUEUE_WORK_SECONDS, QUEUE_AUDIO_SECONDS = 60.0, 1800.0
UNREAD_SECONDS = 5.0  # what an admitted recording counts as while its audio is not known: a short clip
MAX_ATTEMPTS = 2  # at work during which the thread itself died


@dataclass(slots=True, eq=False)
class _Item:
    work: Work
    since: float = field(default_factory=time.perf_counter)
    result: Future[Any] = field(default_factory=Future)
    attempts: int = 0

    @property
    def audio(self) -> Audio:
        return self.work.audio


class Batcher:
    """A device in this process; see `link.Device`.

    budget: how large a batch may be; only this batcher uses it. thread: the thread that loaded the recognizer; it runs
    the recognizer until `close`. torch keeps a team of threads for each thread that uses it, and with more threads in
    all teams than cores they stop spinning for each other: a second team makes everything several times slower
    (docs/benchmarks.md). max_waiting: seconds of audio that may wait before recordings are refused; None for what the
    device does in a minute at its present speed, or half an hour if that is more. on_report, on_lost: called by the
    device's thread or the caller's; on_lost once.
    """

    def __init__(
        self,
        recognizer: Recognizer,
        budget: BatchBudget,
        *,
        thread: ThreadPoolExecutor,
        max_waiting: float | None,
        on_report: OnReport,
        on_lost: Callable[[DeviceLost], None],
    ) -> None:
        self._recognizer = recognizer
        self._budget = budget
        self._max_waiting = max_waiting
        self._report = on_report
        self._on_lost = on_lost
        self._closed = False
        self._lost: DeviceLost | None = None
        self._scheduler: Scheduler[_Item] = Scheduler()
        self._arrived: queue.SimpleQueue[_Item | None] = queue.SimpleQueue()
        self._waiting = dict.fromkeys(Priority, 0)  # samples of audio without an answer
        self._unread: set[int] = set()  # admitted recordings of which no work has been submitted
        self._lock = threading.Lock()  # of these two
        self._thread = thread
        self._decoding: list[_Item] = []
        self._running = thread.submit(self._run)

    @property
    def is_alive(self) -> bool:
        """See `link.Device`."""
        return not self._running.done() and not self._closed and self._lost is None

    @property
    def batch_seconds(self) -> float:
        """See `link.Device`."""
        return self._budget.limits.seconds

    def memory_bytes(self) -> float:
        """See `link.Device`."""
        return self._recognizer.memory_bytes()

    def waiting_seconds(self, priority: Priority = Priority.LONG) -> float:
        """Seconds of audio of this priority and above that have no answer yet."""
        return sum(samples for one, samples in self._waiting.items() if one <= priority) / SAMPLE_RATE

    def admit(self, recording: int) -> None:
        """See `link.Device`.

        The part of a long recording that is queued is bounded (`RecordingQueue`), so its length does not matter here.
        """
        most = self._max_waiting or max(QUEUE_WORK_SECONDS * self._budget.speed, QUEUE_AUDIO_SECONDS)
        with self._lock:
            waiting = self.waiting_seconds(Priority.SHORT) + UNREAD_SECONDS * len(self._unread)
            if waiting < most:
                self._unread.add(recording)
                return
        self._report(DeviceEvent.REFUSED)
        retry_after = max(1, math.ceil(waiting / self._budget.speed))
        raise Overloaded(
            f"The server is busy: {waiting:.0f} s of audio are waiting, and it takes on no more than "
            f"{most:.0f} s. Please retry after {retry_after} s.",
            retry_after=retry_after,
        )

    def release(self, recording: int) -> None:
        """See `link.Device`."""
        with self._lock:
            self._unread.discard(recording)

    def submit(self, work: Work) -> Future[Any]:
        """See `link.Device`."""
        if not self.is_alive:
            raise self._lost or RecognitionError("the model's thread has ended")
        item, priority, samples = _Item(work), work.priority, len(work.audio.samples)
        self._count(priority, samples, work.recording)
        # The callback does not hold the item: otherwise its audio would be freed by the garbage collector only.
        item.result.add_done_callback(lambda _: self._count(priority, -samples))
        self._arrived.put(item)
        return item.result

    def close(self) -> None:
        """Finish what is queued and end the thread: a thread inside torch at interpreter exit aborts the process."""
        self._closed = True
        self._arrived.put(None)
        self._thread.shutdown()

    def _count(self, priority: Priority, samples: int, recording: int | None = None) -> None:
        with self._lock:
            self._waiting[priority] += samples
            if recording is not None:
                self._unread.discard(recording)

    # The device's thread runs what follows.

    def _run(self) -> None:
        try:
            self._serve()
        except BaseException as exc:  # whatever the model raises is caught where it is called
            logger.critical("the device's thread died of %r and is started again", exc)
            self._report(DeviceEvent.RESTARTED)
            for item in self._decoding:
                self._requeue(item)
            self._running = self._thread.submit(self._run)

    def _requeue(self, item: _Item) -> None:
        """Decode an item once more, unless it has an answer, or the thread has died of it too often."""
        if item.result.done():
            return
        item.attempts += 1
        if item.attempts == MAX_ATTEMPTS:
            item.result.set_exception(RecognitionError("the model's thread died of this more than once"))
        else:
            self._arrived.put(item)

    def _serve(self) -> None:
        closing = False
        while True:
            closing = self._receive(wait=not closing and not len(self._scheduler)) or closing
            self._scheduler.discard(lambda item: item.result.cancelled())
            taken = self._scheduler.take(self._budget.limits)
            items = [item for item in taken if item.attempts or item.result.set_running_or_notify_cancel()]
            self._decoding = items
            now = time.perf_counter()
            self._report(WaitReport(tuple(now - item.since for item in items)))
            self._decode(items)
            if closing and not len(self._scheduler):
                return

    def _receive(self, *, wait: bool) -> bool:
        """Move what has arrived into the scheduler. wait: until something arrives. Returns True once closing."""
        try:
            while (item := self._arrived.get(block=wait)) is not None:
                wait = False
                work = item.work
                self._scheduler.add(item, seconds=item.audio.duration, priority=work.priority, owner=work.owner)
        except queue.Empty:
            return False
        return True

    def _decode(self, items: list[_Item]) -> None:
        if not items:
            return
        if self._lost is not None:
            for item in items:
                item.result.set_exception(self._lost)
            return
        failure = self._decode_or_error(items)
        if failure is None:
            return
        if isinstance(failure, DeviceLost):
            self._lost = failure
            self._on_lost(failure)
        if self._lost or len(items) == 1:
            self._report(DeviceEvent.RECOGNITION_ERROR)
            for item in items:
                item.result.set_exception(failure)
            return
        # Either one item is to blame, or all together were too much: decode the halves apart, after the memory of the
        # failed batch is freed.
        self._decode(items[: len(items) // 2])
        self._decode(items[len(items) // 2 :])

    def _decode_or_error(self, items: list[_Item]) -> RecognitionError | None:
        """Decode one batch and set its results; return what went wrong, if anything."""
        lengths = [item.audio.duration for item in items]
        padded = max(lengths) * len(items)
        began = time.perf_counter()
        try:
            phrases = [item.work.phrases for item in items]
            chunks = [item.work.content for item in items if isinstance(item.work.content, Chunk)]
            results = (
                self._recognizer.decode_chunks(chunks, phrases)
                if chunks
                else self._recognizer.recognize([item.audio for item in items], phrases)
            )
            answers = list(zip(items, results, strict=True))
        except OutOfMemory as exc:
            self._report(DeviceEvent.OUT_OF_MEMORY)
            self._budget.shrink(padded)
            return OutOfMemory(exc.message)
        except DeviceLost as exc:
            return DeviceLost(exc.message)
        except Exception as exc:  # whatever the model raises belongs to the callers, never to this thread
            return RecognitionError(f"the model failed: {exc}")
        seconds = time.perf_counter() - began
        self._budget.learn(padded, seconds)
        self._report(BatchReport(items=len(items), audio=sum(lengths), padded=padded, seconds=seconds))
        for item, answer in answers:
            item.result.set_result(answer)
        return None
