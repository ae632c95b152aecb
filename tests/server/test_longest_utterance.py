"""A model's own longest utterance is what the service cuts recordings by."""

from __future__ import annotations

from pathlib import Path

import httpx
import numpy as np

from parakeet_stt.audio import SAMPLE_RATE
from parakeet_stt.measure.clips import write_wav
from tests.conftest import Sample, Serve, Server

LONGEST = 5  # seconds, of the service in `short_utterances`
UTTERANCES = "stt_queue_seconds_count"


def utterances_of(server: Server, file: bytes) -> float:
    """How many a recording was cut into."""
    before = server.counter(UTTERANCES)
    answer = httpx.post(
        f"{server.url}/v1/audio/transcriptions", files={"file": file}, data={"model": "whisper-1"}, timeout=120
    )
    assert answer.json()["text"]
    return server.counter(UTTERANCES) - before


def test_a_models_own_longest_utterance_reaches_the_fronts(
    server: Server, samples: dict[str, Sample], tmp_path: Path
) -> None:
    frames = samples["two-minutes"].audio().samples[: 100 * SAMPLE_RATE].reshape(-1, SAMPLE_RATE // 100)
    sound = frames[np.abs(frames).max(1) > 0.02].ravel()  # without pauses
    file = write_wav((sound * 32767).astype("int16"))
    fewest = len(sound) / SAMPLE_RATE / LONGEST
    assert utterances_of(server, file) < fewest
    with Serve(tmp_path / "log", target="tests.services.short_utterances:ParakeetSTT") as own:
        assert utterances_of(own, file) >= fewest
