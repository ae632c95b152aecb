"""A front's end of the link to a device process: opens sources, asks, and gets answers. Outlives the device process.

All that a front has asked is kept until it is answered. When the device process ends, it is started again by the
supervisor (supervisor.py); the link connects again, opens its sources again, and asks again what has no answer. Only
what was being decoded each time that the process ended is given up: it is probably the reason.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from parakeet_stt.device import messages
from parakeet_stt.device.ledger import Ledger
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
    unpack_tokens,
)
from parakeet_stt.errors import RecognitionError, StartupError
from parakeet_stt.ipc.channel import MAX_DESCRIPTORS, Channel, FrameParser, ProtocolError, receive_some
from parakeet_stt.ipc.shared_audio import SharedAudio, SharedClip
from parakeet_stt.protocols import (
    DETECTOR_STATE_SHAPE,
    ChunkResult,
    DetectorStates,
    Priority,
    SpeakerChunk,
    SpeakerLayout,
    SpeakerResult,
)
from parakeet_stt.text.phrases import Phrases
from parakeet_stt.text.transcript import Hypothesis, TokenArrays
from parakeet_stt.vad import Probabilities, split_streams

logger = logging.getLogger(__name__)
CONNECT_SECONDS = 0.05  # between two tries
MAX_LOSSES = 3  # times that the device process may end while it decodes a request that it was asked again


@dataclass(slots=True, eq=False)
class _Request:
    """What is asked. priority, length: as the ledger counts it; a length of 0 does not count.

    started: whether the device, asked again, decodes it now. losses: times that it was lost meanwhile.
    """

    message: Recognize | DecodeChunk | Detect | Diarize | MakeFilter
    answer: asyncio.Future[Any]
    read: Callable[[Any], Any]  # makes the result of the answering message
    priority: Priority = Priority.LIVE
    length: int = 0
    started: bool = False
    losses: int = 0


@dataclass(slots=True, eq=False)
class Source:
    """A recording or a live session on a device. is_open: whether the device process has been told of it."""

    number: int
    audio: SharedAudio
    is_open: bool = False


class DeviceLink:
    """The link to one device process. After `start`, the event loop alone calls."""

    def __init__(self, path: Path, ledger: Path) -> None:
        """path: of the device's socket. ledger: the file."""
        self._path = path
        self.ledger = Ledger(ledger)
        self._numbers = itertools.count()
        self._sources: dict[int, Source] = {}
        self._requests: dict[int, _Request] = {}
        self._outbox: list[messages.Asked] = []
        self._descriptors: list[int] = []  # of the sources in the outbox
        self._is_flushing = False
        self._channel: Channel | None = None
        self._alive_since = 0.0
        self._connecting: asyncio.Task[None] | None = None
        self._first: socket.socket | None = None  # until `start`
        self.welcome: Welcome | None = None

    @property
    def is_alive(self) -> bool:
        """Whether the device process is there and loaded."""
        return self._channel is not None

    @property
    def alive_seconds(self) -> float:
        """For how long the device process has been there; 0 while it is not."""
        return time.monotonic() - self._alive_since if self.is_alive else 0.0

    def connect(self, check: Callable[[], None]) -> Welcome:
        """Wait until the device is loaded. Blocking, before `start`. check: called meanwhile; what it raises ends this.

        Raises StartupError if the device process is of another version.
        """
        while True:
            check()
            connection = socket.socket(socket.AF_UNIX)
            try:
                connection.connect(str(self._path))
                welcome = _wait_for_welcome(connection)
            except (OSError, ProtocolError):
                connection.close()
                time.sleep(CONNECT_SECONDS)
                continue
            self._first = connection
            self._handle(welcome)
            return welcome

    def start(self) -> None:
        """Begin to exchange messages, in the running event loop."""
        self.ledger.join()
        if self._first is not None:
            self._attach(self._first)
            self._first = None
        else:
            self._connecting = asyncio.ensure_future(self._connect_again())

    def close(self) -> None:
        """Close the connection; nothing is answered any more."""
        if self._connecting:
            self._connecting.cancel()
        if self._channel:
            self._channel.close()
            self._channel = None
        if self._first:
            self._first.close()

    def open(self, audio: SharedAudio) -> Source:
        """A source on this device."""
        source = Source(next(self._numbers), audio)
        self._sources[source.number] = source
        return source

    def close_source(self, source: Source) -> None:
        """The source is not needed any more; requests about it are to be cancelled before."""
        del self._sources[source.number]
        if source.is_open:
            self._outbox.append(Close(source.number))  # goes with the next message: it is not urgent

    def recognize(
        self, source: Source, clip: SharedClip, *, priority: Priority, owner: int, phrases: Phrases
    ) -> asyncio.Future[Hypothesis]:
        """Decode an utterance. owner: equal for work that is scheduled as one flow.

        The future raises RecognitionError; cancelling it takes the work out of the queue.
        """
        message = Recognize(
            next(self._numbers), source.number, clip.span.start, clip.length, int(priority), owner, tuple(phrases)
        )
        request = self._request(message, lambda found: Hypothesis(self._tokens(found.tokens)))
        request.priority, request.length = priority, clip.length
        return self._ask(request, [source])

    def decode_chunk(  # a chunk has six parts of its own
        self, source: Source, clip: SharedClip, *, left_context: int, right_context: int, state: Any, phrases: Phrases
    ) -> asyncio.Future[ChunkResult]:
        """Decode a chunk of a live session; see `protocols.Chunk`. The future is as that of `recognize`."""
        message = DecodeChunk(
            next(self._numbers), source.number, clip.span.start, clip.length, left_context, right_context, state,
            tuple(phrases),
        )  # fmt: skip
        request = self._request(
            message,
            lambda found: ChunkResult(self._tokens(found.stable), self._tokens(found.unstable), found.state),
        )
        request.length = clip.length
        return self._ask(request, [source])

    def detect(
        self, sources: Sequence[Source], starts: Sequence[int], windows: Sequence[int], states: DetectorStates
    ) -> asyncio.Future[tuple[list[Probabilities], DetectorStates]]:
        """Detect speech in the next windows of several sources; see `messages.Detect`."""
        message = Detect(
            next(self._numbers), tuple(source.number for source in sources), tuple(starts), tuple(windows),
            np.ascontiguousarray(states, np.float32).tobytes(),
        )  # fmt: skip

        def read(found: Detected) -> tuple[list[Probabilities], DetectorStates]:
            joined = np.frombuffer(found.probabilities, np.float32)
            states = np.frombuffer(found.states, np.float32).reshape(-1, *DETECTOR_STATE_SHAPE)
            return split_streams(joined, windows), states

        return self._ask(self._request(message, read), sources)

    @property
    def speaker_layout(self) -> SpeakerLayout | None:
        """How the device's diarizer takes a recording; None if it has none."""
        told = self.welcome and self.welcome.speakers
        return SpeakerLayout(*told) if told else None

    def diarize(
        self, source: Source, chunk: SpeakerChunk, *, priority: Priority, owner: int
    ) -> asyncio.Future[SpeakerResult]:
        """Tell the speakers in a part of a recording. The future is as that of `recognize`."""
        clip, layout = chunk.audio, self.speaker_layout
        assert isinstance(clip, SharedClip)
        assert chunk.state is None or isinstance(chunk.state, bytes)
        assert layout is not None
        message = Diarize(
            next(self._numbers), source.number, clip.span.start, clip.length, chunk.left_context, chunk.right_context,
            chunk.state, int(priority), owner,
        )  # fmt: skip

        def read(found: Diarized) -> SpeakerResult:
            values = np.frombuffer(found.probabilities, np.float32).reshape(-1, layout.speakers)
            voices = None if found.voices is None else np.frombuffer(found.voices, np.float32)
            return SpeakerResult(values, found.state, None if voices is None else voices.reshape(layout.speakers, -1))

        request = self._request(message, read)
        request.priority, request.length = priority, clip.length
        return self._ask(request, [source])

    def make_filter(self, rate: int) -> asyncio.Future[None]:
        """Make the resampling filter for a rate, in the service's folder."""
        return self._ask(self._request(MakeFilter(next(self._numbers), rate), lambda _: None), ())

    def _tokens(self, tokens: messages.Tokens) -> TokenArrays:
        assert self.welcome is not None
        return unpack_tokens(tokens, self.welcome.vocabulary)

    def _request(
        self, message: Recognize | DecodeChunk | Detect | Diarize | MakeFilter, read: Callable[[Any], Any]
    ) -> _Request:
        return _Request(message, asyncio.get_running_loop().create_future(), read)

    def _ask(self, request: _Request, sources: Sequence[Source]) -> asyncio.Future[Any]:
        number = request.message.request
        self._requests[number] = request
        if request.length:
            self.ledger.count(request.priority, request.length)
        request.answer.add_done_callback(partial(self._forget, request))
        for source in sources:
            self._tell(source)
        self._send(request.message)
        return request.answer

    def _tell(self, source: Source) -> None:
        """Tell the device process of a source, unless it knows it."""
        if not source.is_open and self._channel:
            source.is_open = True
            if len(self._descriptors) == MAX_DESCRIPTORS:
                self._flush()
            self._outbox.append(Open(source.number))
            self._descriptors.append(source.audio.descriptor)

    def _forget(self, request: _Request, answer: asyncio.Future[Any]) -> None:
        """The request has its answer, or nobody waits for it."""
        if request.length:
            self.ledger.count(request.priority, -request.length)
        if self._requests.pop(request.message.request, None) and answer.cancelled():
            self._send(Cancel(request.message.request))

    def _send(self, message: messages.Asked) -> None:
        """Send a message at the end of this turn of the event loop, with others."""
        if self._channel:
            self._outbox.append(message)
            if not self._is_flushing:
                self._is_flushing = True
                asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._is_flushing = False
        outbox, self._outbox = self._outbox, []
        descriptors, self._descriptors = self._descriptors, []
        if outbox and self._channel:
            self._channel.send(messages.encode(outbox), descriptors)

    def _receive(self, data: bytes, _: list[int]) -> None:
        for told in messages.decode_told(data):
            self._handle(told)

    def _handle(self, told: Told) -> None:
        match told:
            case Recognized() | ChunkDecoded() | Detected() | Diarized() | Made() | Failed():
                self._settle(told)
            case Started(number):
                if request := self._requests.get(number):
                    request.started = True
            case Welcome():
                if told.version != messages.VERSION:
                    raise StartupError(f"the device process speaks version {told.version}, not {messages.VERSION}")
                self.welcome = told

    def _settle(self, answer: messages.Answer) -> None:
        request = self._requests.pop(answer.request, None)
        if request is None or request.answer.done():  # cancelled meanwhile
            return
        if isinstance(answer, Failed):
            request.answer.set_exception(RecognitionError(answer.message))
        else:
            request.answer.set_result(request.read(answer))

    def _attach(self, connection: socket.socket) -> None:
        self._channel = Channel(connection, self._receive, self._lose)
        self._alive_since = time.monotonic()

    def _lose(self) -> None:
        logger.warning("the device process has ended; what it was asked is asked again when it is back")
        self._channel = None
        self._outbox, self._descriptors = [], []
        for source in self._sources.values():
            source.is_open = False
        for request in list(self._requests.values()):
            request.losses += request.started
            request.started = False
            if request.losses >= MAX_LOSSES and not request.answer.done():
                request.answer.set_exception(RecognitionError("the device process has ended too often while decoding"))
        self._connecting = asyncio.ensure_future(self._connect_again())

    async def _connect_again(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            connection = socket.socket(socket.AF_UNIX)
            connection.setblocking(False)
            try:
                await loop.sock_connect(connection, str(self._path))
                break
            except OSError:
                connection.close()
                await asyncio.sleep(CONNECT_SECONDS)
            except BaseException:
                connection.close()
                raise
        self._attach(connection)
        for source in self._sources.values():
            self._tell(source)
        self._flush()  # while all descriptors are open
        for request in [one for one in self._requests.values() if not one.answer.done()]:
            message = request.message
            self._send(message if isinstance(message, MakeFilter) else msgspec.structs.replace(message, again=True))


def _wait_for_welcome(connection: socket.socket) -> Welcome:
    """The first message of a device process, which says no more until it is asked. Blocking.

    Raises OSError if there is none.
    """
    parser = FrameParser()
    while True:
        data, _ = receive_some(connection)
        if not data:
            raise ConnectionResetError
        for message, _ in parser.push(data):
            for told in messages.decode_told(message):
                if isinstance(told, Welcome):
                    return told
