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
        self._waiting: queue.SimpleQueue[_Item | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="device", daemon=True)
        self._thread.start()

    async def recognize(self, audio: Audio) -> Hypothesis:
        """Decode one utterance. A caller that is cancelled while it waits costs the device nothing.

        Raises RecognitionError if the model fails on this utterance; no other caller sees that.
        """
        item = _Item(audio)
        self._waiting.put(item)
        return await asyncio.wrap_future(item.result)

    def close(self) -> None:
        """Finish what waits and end the thread: a thread inside torch at interpreter exit aborts the process."""
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
        try:
            hypotheses = self._recognizer.recognize([item.audio for item in items])
        except Exception as exc:  # whatever the model raises belongs to the askers, never to this thread
            if len(items) > 1:  # one of them may be to blame: the halves are tried apart
                self._decode(items[: len(items) // 2])
                self._decode(items[len(items) // 2 :])
                return
            error = exc if isinstance(exc, RecognitionError) else RecognitionError(f"the model failed: {exc}")
            items[0].result.set_exception(error)
            return
        for item, hypothesis in zip(items, hypotheses, strict=True):
            item.result.set_result(hypothesis)
