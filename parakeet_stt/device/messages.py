"""The messages between fronts and a device process, in MessagePack. `VERSION` names their meaning.

A front opens a source: a recording or a live session, with the descriptor of its audio in shared memory. What it asks
about a source names places in that audio. Numbers of sources and requests are the front's own. Both ends send lists of
messages.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from parakeet_stt.text.transcript import Token, TokenArrays

VERSION = 3


class _Message(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=True):
    pass


class Open(_Message, frozen=True):
    """Open a source; its descriptor comes along."""

    source: int


class Close(_Message, frozen=True):
    """The source is not needed any more."""

    source: int


class Recognize(_Message, frozen=True):
    """Decode an utterance. start, length: in samples. owner: see `link.Work`. again: it was lost before."""

    request: int
    source: int
    start: int
    length: int
    priority: int
    owner: int
    phrases: tuple[str, ...]
    again: bool = False


class DecodeChunk(_Message, frozen=True):
    """Decode a chunk; see `protocols.Chunk`. state: as the answer about the chunk before had it."""

    request: int
    source: int
    start: int
    length: int
    left_context: int
    right_context: int
    state: bytes | None
    phrases: tuple[str, ...]
    again: bool = False


class Detect(_Message, frozen=True):
    """Detect speech in the next windows of several sources.

    starts, windows: of each source, the first window's first sample, and their number. states: float32, shape
    (sources, 2, 128).
    """

    request: int
    sources: tuple[int, ...]
    starts: tuple[int, ...]
    windows: tuple[int, ...]
    states: bytes
    again: bool = False


class Diarize(_Message, frozen=True):
    """Tell the speakers in a part of a recording; see `protocols.SpeakerChunk`.

    start, length: of its audio with the context. state: as the answer about the part before had it.
    """

    request: int
    source: int
    start: int
    length: int
    left_context: int
    right_context: int
    state: bytes | None
    priority: int
    owner: int
    again: bool = False


class MakeFilter(_Message, frozen=True):
    """Make the resampling filter for a rate in Hz, as a file in the service's folder."""

    request: int
    rate: int


class Cancel(_Message, frozen=True):
    """Nobody waits for the answer to this request."""

    request: int


class Welcome(_Message, frozen=True):
    """The device is loaded and takes requests. The first message on every connection.

    device, precision, precision_reason, config, vocabulary: see `protocols.Recognizer`. detects: whether it has a
    detector. digests: of the code, the lock and the model. speakers: `protocols.SpeakerLayout` of its diarizer; None if
    it has none.
    """

    version: int
    device: str
    precision: str
    precision_reason: str
    config: str
    vocabulary: list[str]
    detects: bool
    digests: dict[str, str]
    speakers: tuple[int, int, int, int, float | None] | None = None


class Started(_Message, frozen=True):
    """This request, which was lost before, is being decoded now."""

    request: int


class Tokens(_Message, frozen=True):
    """Tokens as little-endian arrays; see `TokenArrays`."""

    ids: bytes
    starts: bytes
    ends: bytes
    logprobs: bytes


class Recognized(_Message, frozen=True):
    """An utterance's tokens."""

    request: int
    tokens: Tokens


class ChunkDecoded(_Message, frozen=True):
    """A chunk's tokens and the next state; see `protocols.ChunkResult`."""

    request: int
    stable: Tokens
    unstable: Tokens
    state: bytes | None


class Detected(_Message, frozen=True):
    """Probabilities of all windows, source by source, float32; and the next states, as in `Detect`."""

    request: int
    probabilities: bytes
    states: bytes


class Diarized(_Message, frozen=True):
    """Probabilities of a part, float32, shape (frames, speakers); and the next state. See `protocols.SpeakerResult`.

    voices: float32, shape (speakers, width).
    """

    request: int
    probabilities: bytes
    state: bytes | None
    voices: bytes | None = None


class Made(_Message, frozen=True):
    """The filter is there."""

    request: int


class Failed(_Message, frozen=True):
    """The request failed. message: for the log."""

    request: int
    message: str


Asked = Open | Close | Recognize | DecodeChunk | Detect | Diarize | MakeFilter | Cancel
Answer = Recognized | ChunkDecoded | Detected | Diarized | Made | Failed
Told = Welcome | Started | Answer

encode = msgspec.msgpack.Encoder().encode
decode_asked = msgspec.msgpack.Decoder(list[Asked]).decode
decode_told = msgspec.msgpack.Decoder(list[Told]).decode


def pack_tokens(tokens: Sequence[Token], vocabulary: Sequence[str]) -> Tokens:
    """Tokens of this vocabulary as they cross."""
    if isinstance(tokens, TokenArrays):
        return Tokens(*(one.tobytes() for one in (tokens.ids, tokens.starts, tokens.ends, tokens.logprobs)))
    assert all(vocabulary[token.id] == token.piece for token in tokens)
    columns: list[npt.NDArray[Any]] = [
        np.array([token.id for token in tokens], np.int32),
        np.array([token.start for token in tokens], np.float64),
        np.array([token.end for token in tokens], np.float64),
        np.array([token.logprob for token in tokens], np.float32),
    ]
    return Tokens(*(column.tobytes() for column in columns))


def unpack_tokens(tokens: Tokens, vocabulary: Sequence[str]) -> TokenArrays:
    """Tokens that have crossed."""
    return TokenArrays(
        vocabulary,
        np.frombuffer(tokens.ids, np.int32),
        np.frombuffer(tokens.starts, np.float64),
        np.frombuffer(tokens.ends, np.float64),
        np.frombuffer(tokens.logprobs, np.float32),
    )
