"""Chained Ogg files: every link is heard, whatever its rate and its channels."""

from __future__ import annotations

import io

import numpy as np
import pytest

from parakeet_stt.audio import Samples
from parakeet_stt.media import demux, ogg
from tests.conftest import encode
from tests.media.tones import tone

SECONDS = 2.0
CHAINS = {
    "rates and channels": ("flac", (16_000, "mono"), (44_100, "stereo"), (8_000, "mono")),
    "alike": ("flac", (16_000, "mono"), (16_000, "mono"), (16_000, "mono")),
    "channels": ("libopus", (48_000, "mono"), (48_000, "stereo"), (48_000, "mono")),
    "vorbis": ("vorbis", (48_000, "stereo"), (44_100, "stereo"), (32_000, "stereo")),
}


def links(name: str) -> list[bytes]:
    codec, *kinds = CHAINS[name]
    sound = tone(SECONDS, 16_000, 440)
    return [encode(sound, container="ogg", codec=codec, rate=rate, layout=layout) for rate, layout in kinds]


def read(data: bytes) -> tuple[demux.Track, Samples]:
    track = demux.open_track(io.BytesIO(data), max_seconds=1000)
    return track, np.concatenate(list(track.pieces))


@pytest.mark.parametrize("name", CHAINS)
def test_every_link_of_a_chained_file_is_heard(name: str) -> None:
    track, samples = read(b"".join(links(name)))
    assert len(samples) / track.rate == pytest.approx(3 * SECONDS, abs=0.1)
    assert not track.is_truncated
    for second in range(6):  # of sound all along
        part = samples[int((second + 0.2) * track.rate) : int((second + 0.8) * track.rate)]
        assert np.sqrt(np.mean(part**2)) > 0.01


def test_a_link_that_is_damaged_costs_itself_only_and_is_told() -> None:
    first, second, third = links("rates and channels")
    track, samples = read(first + second[:400] + bytes(100) + third)
    assert track.is_truncated
    assert len(samples) / track.rate == pytest.approx(2 * SECONDS, abs=0.3)


def test_the_links_are_found_between_garbage() -> None:
    first, second, _ = links("alike")
    data = first + bytes(200_000) + second
    assert ogg.find_links(io.BytesIO(data)) == [(0, len(first) + 200_000), (len(first) + 200_000, len(data))]
    assert ogg.find_links(io.BytesIO(first)) == [(0, len(first))]
    assert ogg.find_links(io.BytesIO(b"RIFF" + data)) == []
    assert ogg.find_links(io.BytesIO(b"OggS")) == []
