"""Knows how waiting work reaches the one thread that owns the device, and how each result returns to its asker.

Does not know what the model is, nor HTTP. What waits while the device is busy is decoded together next.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from concurrent.futures import Future
from dataclasses import dataclass, field

from stt.audio import Audio
from stt.errors import RecognitionError
from stt.recognizer import Recognizer
from stt.transcript import Hypothesis


@dataclass(frozen=True, slots=True)
class _Item:
    audio: Audio
    result: Future[Hypothesis] = field(default_factory=Future)


class Runner:
    """One recognizer behind one thread. `recognize` may be called by any number of tasks at once."""

    def __init__(self, recognizer: Recognizer, *, max_batch: int) -> None:
        self._recognizer = recognizer
        self._max_batch = max_batch
        self._closed = False
        self._waiting: queue.SimpleQueue[_Item | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="device", daemon=True)
        self._thread.start()

    async def recognize(self, audio: Audio) -> Hypothesis:
        """Decode one utterance. A caller that is cancelled while it waits costs the device nothing.

        Raises RecognitionError if the model fails on this utterance; no other caller sees that.
        """
        if not self.is_alive:
            raise RecognitionError("the model's thread has ended")
        item = _Item(audio)
        self._waiting.put(item)
        return await asyncio.wrap_future(item.result)

    @property
    def is_alive(self) -> bool:
        """Whether anything that is asked now will be answered."""
        return self._thread.is_alive() and not self._closed

    def close(self) -> None:
        """Finish what waits and end the thread: a thread inside torch at interpreter exit aborts the process."""
        self._closed = True
        self._waiting.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (first := self._waiting.get()) is not None:
            items, last = [first], False
            while len(items) < self._max_batch and not last:
                try:
                    item = self._waiting.get_nowait()
                except queue.Empty:
                    break
                if item is None:
                    last = True
                else:
                    items.append(item)
            self._decode([item for item in items if item.result.set_running_or_notify_cancel()])
            if last:
                return

    def _decode(self, items: list[_Item]) -> None:
        if not items:
            return
        failure = self._tried(items)
        if failure is None:
            return
        if len(items) == 1:
            items[0].result.set_exception(RecognitionError(f"the model failed: {failure}"))
            return
        # One of them may be to blame, or all together were too much: the halves are tried apart, after what the failed
        # batch held has been let go.
        self._decode(items[: len(items) // 2])
        self._decode(items[len(items) // 2 :])

    def _tried(self, items: list[_Item]) -> str | None:
        """Recognize the items and answer their askers; what went wrong, if anything did."""
        try:
            hypotheses = self._recognizer.recognize([item.audio for item in items])
            answers = list(zip(items, hypotheses, strict=True))
        except Exception as exc:  # whatever the model raises belongs to the askers, never to this thread
            return str(exc)
        for item, hypothesis in answers:
            item.result.set_result(hypothesis)
        return None
