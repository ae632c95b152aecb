"""Silence around speech: a socket's text is the file's, whoever ends the turns."""

from __future__ import annotations

import io
import json

import httpx
import numpy as np
import pytest
import soundfile

from parakeet_stt.audio import SAMPLE_RATE, Samples
from tests.conftest import Sample, Server
from tests.server.live.talk import COMPLETED, DELTA, Talk, at_24k, configure, texts
from tests.sockets import END, answers, every, frames, opened, pcm

COMMIT = json.dumps({"type": "input_audio_buffer.commit"})
PAUSES = [(0, 0, 0), (3, 0, 0), (0, 0.7, 2), (0, 5, 0), (10, 10, 10)]  # seconds before, between and after


def silence(seconds: float) -> Samples:
    return np.zeros(int(seconds * SAMPLE_RATE), np.float32)


@pytest.mark.parametrize("pauses", PAUSES, ids=str)
def test_pauses_change_no_word(server: Server, samples: dict[str, Sample], pauses: tuple[float, float, float]) -> None:
    """With commits by the client, three seconds of silence gave a dozen invented words."""
    before, between, after = map(silence, pauses)
    short = samples["short"].audio().samples
    sound = np.concatenate([before, short, between, short, after])
    text = file_text(server, sound)
    assert text == " ".join([samples["short"].text] * 2)
    with Talk(server) as talk:
        talk.say(configure({"turn_detection": None}))
        talk.sound(at_24k(sound), every(100))
        talk.say(COMMIT)
        events = talk.until(COMPLETED)
    assert texts(events) == [text]
    assert "".join(event["delta"] for event in events if event["type"] == DELTA) == text
    assert events[-1]["usage"]["seconds"] == pytest.approx(len(sound) / SAMPLE_RATE, abs=0.05)
    with opened(server) as socket:
        for frame in frames(pcm(sound), every(100)):
            socket.send(frame)
        socket.send(END)
        assert " ".join(message["text"] for message in answers(socket) if message["type"] == "final") == text


def test_a_commit_of_silence_gives_an_item_without_words_also_by_hand(server: Server) -> None:
    """It gave "Movie."."""
    with Talk(server) as talk:
        talk.say(configure({"turn_detection": None}))
        talk.sound(at_24k(silence(3)), every(100))
        talk.say(COMMIT)
        events = talk.until(COMPLETED)
    kinds = [event["type"] for event in events if "item" in event["type"] or "buffer" in event["type"]]
    assert kinds == ["input_audio_buffer.committed", "conversation.item.added", "conversation.item.done", COMPLETED]
    assert texts(events) == [""]


def file_text(server: Server, sound: Samples) -> str:
    file = io.BytesIO()
    soundfile.write(file, sound, SAMPLE_RATE, format="WAV")
    answer = httpx.post(
        f"{server.openai_url}/audio/transcriptions",
        data={"model": "whisper-1"},
        files={"file": ("a.wav", file.getvalue())},
        timeout=60,
    )
    text: str = answer.json()["text"]
    return text
