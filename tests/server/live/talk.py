"""A realtime session by hand: what a client sends, and the events that come back, each checked against the contract."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import soxr
from websockets.sync.client import ClientConnection

from parakeet_stt.audio import SAMPLE_RATE, Samples
from tests import contract
from tests.conftest import Server
from tests.sockets import Message, frames, opened, pcm

PATH = "/v1/realtime"
INTENT = "?intent=transcription"
DELTA, COMPLETED = (f"conversation.item.input_audio_transcription.{kind}" for kind in ("delta", "completed"))
ITEM = [
    "input_audio_buffer.speech_started",
    "input_audio_buffer.speech_stopped",
    "input_audio_buffer.committed",
    "conversation.item.added",
    "conversation.item.done",
]


def at_24k(samples: Samples) -> bytes:
    return pcm(soxr.resample(samples, SAMPLE_RATE, 24_000).clip(-1, 1))


def with_silence(samples: Samples, seconds: float = 1.0) -> Samples:
    return np.concatenate([samples, np.zeros(int(seconds * SAMPLE_RATE), np.float32)])


def append(data: bytes) -> str:
    return json.dumps({"type": "input_audio_buffer.append", "audio": base64.b64encode(data).decode()})


def configure(audio_input: dict[str, Any], **more: Any) -> str:
    session = {"type": "transcription", "audio": {"input": audio_input}, **more}
    return json.dumps({"type": "session.update", "session": session})


class Talk:
    """A session by hand; every event that comes is checked against the contract."""

    def __init__(self, server: Server, query: str = INTENT, **options: Any) -> None:
        self.socket: ClientConnection = opened(server, query, PATH, **options)
        self.events: list[Message] = []

    def __enter__(self) -> Talk:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def say(self, message: str) -> None:
        self.socket.send(message)

    def until(self, kind: str, count: int = 1) -> list[Message]:
        """All events up to the `count`th of this kind."""
        received: list[Message] = []
        while count:
            event = json.loads(self.socket.recv(timeout=60))
            contract.check(event, contract.REALTIME[event["type"]])
            received.append(event)
            count -= event["type"] == kind
        self.events += received
        return received

    def sound(self, data: bytes, sizes: Iterator[int]) -> None:
        for frame in frames(data, sizes):
            self.say(append(frame))


def texts(events: Sequence[Message]) -> list[str]:
    return [event["transcript"] for event in events if event["type"] == COMPLETED]
