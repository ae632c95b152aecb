"""The messages between a front and a media worker, in MessagePack."""

from __future__ import annotations

import msgspec

WORKER_BYTES = 512 << 20  # that a worker may take beside what the program has; ten hours of mp4 with its index need 60


class _Message(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=True):
    pass


class Decode(_Message, frozen=True):
    """Decode a file; two descriptors come along: of the file, and of shared audio to write to.

    max_seconds: to decode. filters: folder of the resampling filters. skip: blocks that an earlier worker has answered
    for the same file before it died; they are neither written nor answered again. channel: the only one to decode, from
    0; None for the mean of all.
    """

    max_seconds: float
    filters: str
    skip: int = 0
    channel: int | None = None


class Next(_Message, frozen=True):
    """Decode the next block."""


class NeedFilter(_Message, frozen=True):
    """The filter for this rate, in Hz, is not in the folder; `Next` says that it is."""

    rate: int


class End(_Message, frozen=True):
    """Nothing more comes. error: the name of an `AudioError`, or None. memory: see `Block`."""

    is_truncated: bool = False
    error: str | None = None
    message: str = ""
    memory: int = 0


class Block(_Message, frozen=True):
    """The next samples are written.

    probabilities: of speech in the windows that they complete, float32; None if the worker has no detector. end: with
    the last block. memory: that the worker has taken for itself, in bytes. channels: of the file.
    """

    samples: int
    probabilities: bytes | None
    end: End | None = None
    memory: int = 0
    channels: int = 1


class Died(_Message, frozen=True):
    """The worker has ended; the program says so. signal: that ended it; 0 if it ended by itself."""

    signal: int


encode = msgspec.msgpack.Encoder().encode
decode_asked = msgspec.msgpack.Decoder(Decode | Next).decode
decode_answer = msgspec.msgpack.Decoder(NeedFilter | Block | End | Died).decode
