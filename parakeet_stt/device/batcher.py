"""Knows how waiting audio reaches the one thread that owns the device, and how each result returns to its asker.

Does not know what the model is, nor HTTP. The order is decided in schedule.py, the size of a batch in pace.py.
"""

from __future__ import annotations

import asyncio
import logging
import math
import queue
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from parakeet_stt.audio import SAMPLE_RATE, Audio
from parakeet_stt.device.batch_budget import Pace
from parakeet_stt.device.scheduler import Schedule
from parakeet_stt.errors import DeviceLost, OutOfMemory, Overloaded, RecognitionError
from parakeet_stt.protocols import LiveRecognizer, Priority, Step, Stepped
from parakeet_stt.server.metrics import Metrics
from parakeet_stt.text.phrases import NONE, Phrases
from parakeet_stt.text.transcript import Hypothesis

logger = logging.getLogger(__name__)
# What may wait unless the operator sets it: so many seconds of work, and so much audio on any device.
QUEUE_TIME, QUEUE_AUDIO = 60.0, 1800.0
# Foreground-background scheduling: what has been served least goes first, so that nobody need know how long a recording
# is when it begins (Kleinrock, Queueing Systems II, 1976).
FIRST_SECONDS = 60.0
MOST_ATTEMPTS = 2  # at an item during which the thread itself ended
AHEAD = 2  # full batches of one recording that wait at once, so that the next is there when one is done


@dataclass(slots=True, eq=False)
class _Item:
    work: Audio | Step  # all live items are steps, and no others
    priority: Priority
    owner: object  # equal for the utterances of one recording
    phrases: Phrases
    since: float = field(default_factory=time.perf_counter)
    result: Future[Any] = field(default_factory=Future)
    attempts: int = 0

    @property
    def audio(self) -> Audio:
        return self.work.audio if isinstance(self.work, Step) else self.work


class Runner:
    """One recognizer behind one thread, for any number of askers.

    pace: how large a batch may be; nobody else may use it. device: the thread that loaded the recognizer; it runs it
    until `close`. torch keeps a team of threads for every thread that uses it, and once all teams together are more
    than the cores, they stop spinning for each other: a second team makes everything several times as slow
    (docs/benchmarks.md). max_waiting: seconds of audio that may wait before further askers are refused; None for what
    the device does in a minute at its present speed, or half an hour if that is more. on_lost: called once, by the
    device's thread.
    """

    def __init__(
        self,
        recognizer: LiveRecognizer,
        pace: Pace,
        *,
        device: ThreadPoolExecutor,
        max_waiting: float | None,
        metrics: Metrics,
        on_lost: Callable[[DeviceLost], None],
    ) -> None:
        self._recognizer = recognizer
        self._pace = pace
        self._max_waiting = max_waiting
        self._metrics = metrics
        self._on_lost = on_lost
        self._closed = False
        self._lost: DeviceLost | None = None
        self._schedule: Schedule[_Item] = Schedule()
        self._arrived: queue.SimpleQueue[_Item | None] = queue.SimpleQueue()
        self._waiting = dict.fromkeys(Priority, 0)  # samples of audio without an answer
        self._waiting_lock = threading.Lock()
        self._device = device
        self._at_work: list[_Item] = []
        self._running = device.submit(self._run)

    @property
    def is_alive(self) -> bool:
        """Whether anything that is asked now will be answered."""
        return not self._running.done() and not self._closed and self._lost is None

    def waiting(self, priority: Priority = Priority.LONG) -> float:
        """Seconds of audio of this priority and above that have no answer yet."""
        return sum(samples for one, samples in self._waiting.items() if one <= priority) / SAMPLE_RATE

    def admit(self, priority: Priority) -> None:
        """Let a new asker in, or raise Overloaded if too much of this priority and above waits already.

        The part of a long recording that waits is bounded (see `recognize`), so its length does not matter here.
        """
        waiting = self.waiting(priority)
        most = self._max_waiting or max(QUEUE_TIME * self._pace.speed, QUEUE_AUDIO)
        if waiting >= most:
            self._metrics.refused.inc()
            retry_after = max(1, math.ceil(waiting / self._pace.speed))
            raise Overloaded(
                f"The server is busy: {waiting:.0f} s of audio are waiting, and it takes on no more than "
                f"{most:.0f} s. Please retry after {retry_after} s.",
                retry_after=retry_after,
            )

    async def recognize(
        self, utterances: AsyncIterator[Audio], *, phrases: Phrases = NONE, again: bool = False
    ) -> AsyncGenerator[Hypothesis, None]:
        """Decode the utterances of one asker; yields their hypotheses in order, each as soon as it is there.

        phrases: what to listen for in all of them. again: whether their asker has been let in before.

        No more of them wait than fill a few batches; the next is asked for while others are decoded. Closing the
        generator takes those that wait out of the queue.
        Raises Overloaded before the first, RecognitionError when the model fails on one; no other asker sees that.
        """
        if not again:
            self.admit(Priority.SHORT)
        owner, asked, pending, ahead = object(), 0.0, deque[tuple[float, asyncio.Future[Hypothesis]]](), 0.0
        following: asyncio.Future[Audio | None] | None = _next(utterances)
        try:
            while following or pending:
                wanted: set[asyncio.Future[Any]] = {pending[0][1]} if pending else set()
                if following and ahead < AHEAD * self._pace.limits.seconds:
                    wanted.add(following)
                done, _ = await asyncio.wait(wanted, return_when=asyncio.FIRST_COMPLETED)
                if following in done:
                    audio = following.result()
                    if audio is not None:
                        asked += audio.duration
                        later = Priority.SHORT if asked <= FIRST_SECONDS else Priority.LONG
                        item = _Item(audio, later, owner, phrases)
                        pending.append((audio.duration, self._submit(item)))
                        ahead += audio.duration
                    following = _next(utterances) if audio is not None else None
                while pending and pending[0][1].done():
                    duration, result = pending.popleft()
                    ahead -= duration
                    yield result.result()
        finally:
            if following:
                following.cancel()
                await asyncio.wait({following})
            for _, result in pending:
                if not result.cancel() and not result.cancelled():
                    result.exception()  # looked at, or asyncio complains that nobody did

    async def step(self, step: Step, *, owner: object, phrases: Phrases = NONE) -> Stepped:
        """Decode a part of what somebody is speaking; steps of different owners are decoded together.

        Raises RecognitionError when the model fails on it. Cancelling takes it out of the queue.
        """
        found: Stepped = await self._submit(_Item(step, Priority.LIVE, owner, phrases))
        return found

    def close(self) -> None:
        """Finish what waits and end the thread: a thread inside torch at interpreter exit aborts the process."""
        self._closed = True
        self._arrived.put(None)
        self._device.shutdown()

    def _submit(self, item: _Item) -> asyncio.Future[Any]:
        if not self.is_alive:
            raise self._lost or RecognitionError("the model's thread has ended")
        priority, samples = item.priority, len(item.audio.samples)
        self._count(priority, samples)
        # The callback does not hold the item, whose audio only the garbage collector would let go then.
        item.result.add_done_callback(lambda _: self._count(priority, -samples))
        self._arrived.put(item)
        return asyncio.wrap_future(item.result)

    def _count(self, priority: Priority, samples: int) -> None:
        with self._waiting_lock:
            self._waiting[priority] += samples

    # What follows runs in the device's thread.

    def _run(self) -> None:
        try:
            self._serve()
        except BaseException as exc:  # whatever the model raises is caught where it is called
            logger.critical("the device's thread was ended by %r, and begins again", exc)
            self._metrics.device_restarts.inc()
            for item in self._at_work:
                self._again(item)
            self._running = self._device.submit(self._run)

    def _again(self, item: _Item) -> None:
        """Have an item decoded once more, unless it has an answer, or has been at work at the end too often."""
        if item.result.done():
            return
        item.attempts += 1
        if item.attempts == MOST_ATTEMPTS:
            item.result.set_exception(RecognitionError("the model's thread ended more than once at this"))
        else:
            self._arrived.put(item)

    def _serve(self) -> None:
        ending = False
        while True:
            ending = self._receive(wait=not ending and not len(self._schedule)) or ending
            self._schedule.discard(lambda item: item.result.cancelled())
            taken = self._schedule.take(self._pace.limits)
            items = [item for item in taken if item.attempts or item.result.set_running_or_notify_cancel()]
            self._at_work = items
            now = time.perf_counter()
            for item in items:
                self._metrics.queue_seconds.observe(now - item.since)
            self._decode(items)
            if ending and not len(self._schedule):
                return

    def _receive(self, *, wait: bool) -> bool:
        """Move what has arrived into the schedule; wait: for something to arrive. True once the end has come."""
        try:
            while (item := self._arrived.get(block=wait)) is not None:
                wait = False
                self._schedule.add(item, seconds=item.audio.duration, priority=item.priority, owner=item.owner)
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
        failure = self._tried(items)
        if failure is None:
            return
        if isinstance(failure, DeviceLost):
            self._lost = failure
            self._on_lost(failure)
        if self._lost or len(items) == 1:
            self._metrics.recognition_errors.inc()
            for item in items:
                item.result.set_exception(failure)
            return
        # One of them may be to blame, or all together were too much: the halves are tried apart, after what the failed
        # batch held has been let go.
        self._decode(items[: len(items) // 2])
        self._decode(items[len(items) // 2 :])

    def _tried(self, items: list[_Item]) -> RecognitionError | None:
        """Recognize the items and answer their askers; what went wrong, if anything did."""
        lengths = [item.audio.duration for item in items]
        padded = max(lengths) * len(items)
        began = time.perf_counter()
        try:
            phrases = [item.phrases for item in items]
            steps = [item.work for item in items if isinstance(item.work, Step)]
            found = (
                self._recognizer.step(steps, phrases)
                if steps
                else self._recognizer.recognize([item.audio for item in items], phrases)
            )
            answers = list(zip(items, found, strict=True))
        except OutOfMemory as exc:
            self._metrics.out_of_memory.inc()
            self._pace.too_much(padded)
            return OutOfMemory(exc.message)
        except DeviceLost as exc:
            return DeviceLost(exc.message)
        except Exception as exc:  # whatever the model raises belongs to the askers, never to this thread
            return RecognitionError(f"the model failed: {exc}")
        seconds = time.perf_counter() - began
        self._pace.done(padded, seconds)
        self._metrics.batch(items=len(items), real=sum(lengths), padded=padded, seconds=seconds)
        for item, answer in answers:
            item.result.set_result(answer)
        return None


def _next(utterances: AsyncIterator[Audio]) -> asyncio.Future[Audio | None]:
    return asyncio.ensure_future(anext(utterances, None))
