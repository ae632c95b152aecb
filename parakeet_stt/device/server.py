"""The device process's end of the link: one loop takes the requests of all fronts, does a batch, and answers.

Everything is done by one thread, which owns the recognizer. torch keeps a team of threads for each thread that uses it,
and with more threads in all teams than cores they stop spinning for each other: a second team makes everything several
times slower (docs/benchmarks.md). What fronts need while a batch is decoded is in the ledger (ledger.py).
"""

from __future__ import annotations

import os
import pickle
import selectors
import socket
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from parakeet_stt.audio import SAMPLE_RATE, Audio, Samples
from parakeet_stt.device import messages
from parakeet_stt.device.batcher import DIARIZE, Batcher, DetectWork, Work
from parakeet_stt.device.messages import (
    Cancel,
    ChunkDecoded,
    Close,
    DecodeChunk,
    Detect,
    Detected,
    Diarize,
    Diarized,
    Failed,
    Made,
    MakeFilter,
    Open,
    Recognize,
    Recognized,
    Started,
    Told,
    Welcome,
    pack_tokens,
)
from parakeet_stt.errors import RecognitionError
from parakeet_stt.ipc.channel import PolledEnd, ProtocolError
from parakeet_stt.ipc.shared_audio import read_into
from parakeet_stt.protocols import DETECTOR_STATE_SHAPE, Chunk, Priority, SpeakerChunk
from parakeet_stt.text.phrases import NO_PHRASES
from parakeet_stt.vad import CONTEXT_SAMPLES, WINDOW_SAMPLES, Windows, frame_windows

IDLE_SECONDS = 10.0  # without anything to do, after which memory is given back
SCRATCH_SAMPLES = 3000 * SAMPLE_RATE  # 128 utterances on a GPU: 192 MB, of which memory is taken as it is used


class DeviceServer:
    """Serves one device at a Unix socket."""

    def __init__(self, batcher: Batcher, welcome: Welcome, *, make_filter: Callable[[int], None]) -> None:
        """welcome: what each front is told first. make_filter: see `messages.MakeFilter`."""
        self.batcher = batcher
        self.make_filter = make_filter
        self.filters: deque[Callable[[], None]] = deque()  # to be made, one between two batches: each takes 0.1 s
        self.vocabulary = welcome.vocabulary
        self.scratch = _Scratch()
        self._welcome = welcome
        self._selector = selectors.DefaultSelector()
        self._fronts: set[_Front] = set()
        self._is_ending = False

    def serve(
        self,
        path: Path,
        lifeline: socket.socket,
        on_step: Callable[[], None] = lambda: None,
        on_idle: Callable[[], None] = lambda: None,
    ) -> None:
        """Serve until the lifeline closes and no front is connected. Raises DeviceLost.

        path: of the socket, which only this user may open. on_step: called after each batch. on_idle: called once when
        nothing has come for `IDLE_SECONDS`.
        """
        with socket.socket(socket.AF_UNIX) as listening:
            path.unlink(missing_ok=True)
            listening.bind(str(path))
            path.chmod(0o600)
            listening.listen(64)
            self._selector.register(listening, selectors.EVENT_READ, partial(self._accept, listening))
            self._selector.register(lifeline, selectors.EVENT_READ, partial(self._end, lifeline))
            try:
                is_rested = True
                while self._fronts or not self._is_ending:
                    has_work = self.batcher.has_work or bool(self.filters)
                    ready = self._selector.select(0 if has_work else None if is_rested else IDLE_SECONDS)
                    is_rested = not has_work and not ready
                    if is_rested:
                        on_idle()
                        continue
                    for key, _ in ready:
                        key.data()
                    self.batcher.step()
                    if self.filters:
                        self.filters.popleft()()
                    self.scratch.reset()
                    self.flush()
                    on_step()
            finally:
                for front in list(self._fronts):
                    front.close()
                path.unlink(missing_ok=True)

    def flush(self) -> None:
        """Send all fronts what there is to tell."""
        for front in list(self._fronts):
            front.flush()

    def forget(self, front: _Front) -> None:
        """The front is gone."""
        self._fronts.discard(front)

    def _accept(self, listening: socket.socket) -> None:
        connection, _ = listening.accept()
        front = _Front(self, connection, self._selector)
        self._fronts.add(front)
        front.tell(self._welcome)

    def _end(self, lifeline: socket.socket) -> None:
        self._selector.unregister(lifeline)
        self._is_ending = True


class _Scratch:
    """Memory for the audio of one step, used again in the next but one: fresh memory costs as much as the reading.

    Not in the next: the batch that is launched then may still be copied from.
    """

    def __init__(self) -> None:
        self._samples, self._others = np.zeros(SCRATCH_SAMPLES, np.float32), np.zeros(SCRATCH_SAMPLES, np.float32)
        self._used = 0

    def take(self, count: int) -> Samples:
        """Room for so many samples, until the second `reset` from now. It holds what it held."""
        if self._used + count > len(self._samples):
            return np.empty(count, np.float32)
        taken = self._samples[self._used : self._used + count]
        self._used += count
        return taken

    def reset(self) -> None:
        """A step is over."""
        self._samples, self._others = self._others, self._samples
        self._used = 0


class _Source:
    """The descriptor of a source's audio; closed when nothing refers to it any more."""

    def __init__(self, descriptor: int, scratch: _Scratch) -> None:
        self.descriptor = descriptor
        self._scratch = scratch

    def __del__(self) -> None:
        os.close(self.descriptor)

    def read(self, start: int, length: int) -> Audio:
        samples = self._scratch.take(length)
        read_into(self.descriptor, start, samples)
        return Audio(samples)

    def read_windows(self, start: int, count: int) -> Windows:
        """Windows with their context, as `SpeechDetector.detect` takes them."""
        samples = self._scratch.take(CONTEXT_SAMPLES + count * WINDOW_SAMPLES)
        missing = max(0, CONTEXT_SAMPLES - start)  # before the first sample
        samples[:missing] = 0
        read_into(self.descriptor, start - CONTEXT_SAMPLES + missing, samples[missing:])
        return frame_windows(samples)


class _Front:
    """One connected front: its sources, and its requests that have no answer yet."""

    def __init__(self, server: DeviceServer, connection: socket.socket, selector: selectors.BaseSelector) -> None:
        self._server = server
        self._batcher = server.batcher
        self._sources: dict[int, _Source] = {}
        self._pending: dict[int, Work | DetectWork] = {}
        self._told: list[Told] = []
        self._selector = selector
        self._end = PolledEnd(connection)
        self._is_open = True
        self._is_flushed = True  # whether the front has taken all that it was told
        selector.register(connection, selectors.EVENT_READ, self._exchange)

    def tell(self, message: Told) -> None:
        """Send a message with the next flush."""
        self._told.append(message)

    def flush(self) -> None:
        """Send what there is to tell, as far as the front takes it."""
        if self._told and self._is_open:
            told, self._told = self._told, []
            self._end.queue(messages.encode(told))
            self._write()

    def close(self) -> None:
        """The front is gone, or is to go: nobody waits for its answers."""
        if self._is_open:
            self._is_open = False
            self._selector.unregister(self._end.socket)
            self._end.close()
            for work in self._pending.values():
                work.is_cancelled = True
            self._pending.clear()  # which refer to their sources, and to this front
            self._sources.clear()
            self._server.forget(self)

    def _exchange(self) -> None:
        """The front has sent something, or takes more, or is gone."""
        try:
            while received := self._end.receive():  # the kernel ends each read after a message with descriptors
                for data, descriptors in received:
                    for asked in messages.decode_asked(data):
                        self._handle(asked, descriptors)
                    for descriptor in descriptors:
                        os.close(descriptor)
        except (OSError, ProtocolError):
            self.close()
            return
        self._write()

    def _write(self) -> None:
        try:
            is_all = self._end.send_queued()
        except OSError:
            self.close()
            return
        if is_all != self._is_flushed:
            self._is_flushed = is_all
            events = selectors.EVENT_READ if is_all else selectors.EVENT_READ | selectors.EVENT_WRITE
            self._selector.modify(self._end.socket, events, self._exchange)

    def _handle(self, asked: messages.Asked, descriptors: list[int]) -> None:
        match asked:
            case Recognize():
                self._submit_utterance(asked)
            case DecodeChunk():
                self._submit_chunk(asked)
            case Detect():
                self._submit_detection(asked)
            case Diarize():
                self._submit_speakers(asked)
            case Open(source):
                self._sources[source] = _Source(descriptors.pop(0), self._server.scratch)
            case Close(source):
                self._sources.pop(source, None)
            case Cancel(request):
                if work := self._pending.pop(request, None):
                    work.is_cancelled = True
            case MakeFilter(request, rate):
                self._server.filters.append(partial(self._make_filter, request, rate))

    def _make_filter(self, request: int, rate: int) -> None:
        try:
            self._server.make_filter(rate)
        except Exception as exc:  # a full disk, say
            self.tell(Failed(request, repr(exc)))
        else:
            self.tell(Made(request))

    def _submit_utterance(self, asked: Recognize) -> None:
        source = self._sources[asked.source]
        self._submit(
            asked.request,
            Work(
                lambda: source.read(asked.start, asked.length),
                asked.length,
                Priority(asked.priority),
                (self, asked.owner),
                asked.phrases,
                partial(self._answer, asked.request, self._render_utterance),
                partial(self._notice, asked.request) if asked.again else None,
            ),
        )

    def _submit_chunk(self, asked: DecodeChunk) -> None:
        source = self._sources[asked.source]

        def load() -> Chunk:
            state = None if asked.state is None else pickle.loads(asked.state)  # noqa: S301  # this program made it
            return Chunk(source.read(asked.start, asked.length), asked.left_context, asked.right_context, state)

        self._submit(
            asked.request,
            Work(
                load,
                asked.length,
                Priority.LIVE,
                (self, asked.source),
                asked.phrases,
                partial(self._answer, asked.request, self._render_chunk),
                partial(self._notice, asked.request) if asked.again else None,
            ),
        )

    def _submit_speakers(self, asked: Diarize) -> None:
        source = self._sources[asked.source]

        def load() -> SpeakerChunk:
            state = None if asked.state is None else pickle.loads(asked.state)  # noqa: S301  # this program made it
            audio = source.read(asked.start, asked.length)
            return SpeakerChunk(audio, asked.left_context, asked.right_context, state)

        self._submit(
            asked.request,
            Work(
                load,
                asked.length,
                Priority(asked.priority),
                (self, asked.owner),
                NO_PHRASES,
                partial(self._answer, asked.request, _render_speakers),
                partial(self._notice, asked.request) if asked.again else None,
                kind=DIARIZE,
            ),
        )

    def _submit(self, request: int, work: Work) -> None:
        self._pending[request] = work
        self._batcher.submit(work)

    def _submit_detection(self, asked: Detect) -> None:
        sources = [self._sources[number] for number in asked.sources]
        places = list(zip(sources, asked.starts, asked.windows, strict=True))
        work = DetectWork(
            lambda: [source.read_windows(start, count) for source, start, count in places],
            sum(asked.windows),
            np.frombuffer(asked.states, np.float32).reshape(-1, *DETECTOR_STATE_SHAPE),
            partial(self._answer, asked.request, _render_detection),
            partial(self._notice, asked.request) if asked.again else None,
        )
        self._pending[asked.request] = work
        self._batcher.detect(work)

    def _notice(self, request: int) -> None:
        """Tell the front at once that its work begins, which may be the end of this process again.

        What is answered goes with it, to all fronts: else that would count as lost together with this work.
        """
        self.tell(Started(request))
        self._server.flush()

    def _answer(self, request: int, render: Callable[[int, Any], Told], found: Any) -> None:
        self._pending.pop(request, None)
        if isinstance(found, RecognitionError):
            self.tell(Failed(request, found.message))
        else:
            self.tell(render(request, found))

    def _render_utterance(self, request: int, found: Any) -> Told:
        return Recognized(request, pack_tokens(found.tokens, self._server.vocabulary))

    def _render_chunk(self, request: int, found: Any) -> Told:
        stable, unstable = (pack_tokens(one, self._server.vocabulary) for one in (found.stable, found.unstable))
        state = None if found.state is None else pickle.dumps(found.state, pickle.HIGHEST_PROTOCOL)
        return ChunkDecoded(request, stable, unstable, state)


def _render_speakers(request: int, found: Any) -> Told:
    probabilities = np.ascontiguousarray(found.probabilities, np.float32).tobytes()
    state = None if found.state is None else pickle.dumps(found.state, pickle.HIGHEST_PROTOCOL)
    voices = None if found.voices is None else np.ascontiguousarray(found.voices, np.float32).tobytes()
    return Diarized(request, probabilities, state, voices)


def _render_detection(request: int, found: Any) -> Told:
    probabilities, states = found
    joined = np.concatenate([np.zeros(0, np.float32), *probabilities])
    return Detected(request, joined.tobytes(), np.ascontiguousarray(states, np.float32).tobytes())
