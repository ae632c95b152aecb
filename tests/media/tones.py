"""A tone in media files of every kind, and how it is recognized when they are decoded."""

from __future__ import annotations

import io
import struct
import tempfile
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import pytest

from parakeet_stt.audio import SAMPLE_RATE, Audio
from parakeet_stt.engines.resampling_filters import make_filter
from parakeet_stt.errors import AudioError, UndecodableAudio
from parakeet_stt.media.demux import decode, open_track

HZ = 440.0
LEVEL = 0.4
EDGE_SECONDS = 0.06  # what a codec may add or lose at both ends together


def tone(seconds: float, rate: int, hz: float = HZ) -> npt.NDArray[np.float32]:
    """float32, shape (num_samples,)."""
    wave = LEVEL * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate)
    return wave.astype(np.float32)


def media(
    container: str,
    codec: str,
    rate: int = 16_000,
    layout: str = "mono",
    *,
    seconds: float = 2.0,
    sound: npt.NDArray[np.float32] | None = None,
    video: str | None = None,
    options: dict[str, str] | None = None,
) -> bytes:
    """A media file with the tone, or `sound`, in every channel; `options` are the container's."""
    wave = tone(seconds, rate) if sound is None else sound
    channels = av.AudioLayout(layout).nb_channels
    # Packed: PyAV crashes on planar frames of 8 channels.
    frame = av.AudioFrame.from_ndarray(np.repeat(wave, channels)[None], format="flt", layout=layout)
    frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
    with (
        tempfile.NamedTemporaryFile() as out,  # `faststart` opens the file again by its name
        av.open(out.name, "w", format=container, options={"strict": "experimental", **(options or {})}) as file,
    ):
        pictures = file.add_stream(video, rate=25) if video else None
        track = file.add_stream(codec, rate=rate, options={"strict": "experimental"}, layout=layout)
        assert isinstance(track, av.AudioStream)
        track.codec_context.open()
        if isinstance(pictures, av.VideoStream):
            pictures.width, pictures.height, pictures.pix_fmt = 320, 240, "yuv420p"
            for number in range(round(seconds * 25)):
                picture = av.VideoFrame.from_ndarray(np.full((240, 320, 3), number, np.uint8))
                picture.pts = number
                file.mux(pictures.encode(picture))
            file.mux(pictures.encode(None))
        resampler = av.AudioResampler(
            format=track.format, layout=layout, rate=rate, frame_size=track.codec_context.frame_size or 1024
        )
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            file.mux(track.encode(part))
        file.mux(track.encode(None))
        file.close()
        return Path(out.name).read_bytes()


def wav(
    data: bytes, *, rate: int = 16_000, channels: int = 1, bits: int = 16, kind: int = 1, length: int = -1
) -> bytes:
    """A RIFF file around `data`; `length` is what its header says instead of the truth."""
    size = len(data) if length < 0 else length
    frame_bytes = channels * bits // 8
    header = struct.pack("<HHIIHH", kind, channels, rate, min(rate * frame_bytes, 2**32 - 1), frame_bytes, bits)
    chunks = b"fmt " + struct.pack("<I", len(header)) + header + b"data" + struct.pack("<I", size) + data
    return b"RIFF" + struct.pack("<I", min(size + 36, 2**32 - 1)) + b"WAVE" + chunks


def pcm(wave: npt.NDArray[np.float32]) -> bytes:
    return (wave * 32767).astype("<i2").tobytes()


def decoded(data: bytes, *, max_seconds: float = 60) -> Audio:
    return decode(io.BytesIO(data), max_seconds=max_seconds, make_filter=make_filter)


def is_truncated(data: bytes) -> bool:
    track = open_track(io.BytesIO(data), max_seconds=60)
    for _ in track.pieces:
        pass
    return track.is_truncated


def refusal(data: bytes, kind: type[AudioError] = UndecodableAudio, *, max_seconds: float = 60) -> str:
    """The caller's message; never an address in memory or a path on the server."""
    with pytest.raises(kind) as caught:
        decoded(data, max_seconds=max_seconds)
    message = caught.value.message
    assert type(caught.value) is kind
    assert "0x" not in message
    assert "/" not in message
    return message


def pitch(audio: Audio) -> float:
    """Hz of the strongest partial, away from both ends."""
    inner = audio.samples[1600:-1600]
    spectrum = np.abs(np.fft.rfft(inner * np.hanning(len(inner)), 1 << 17))
    return float(np.argmax(spectrum)) * SAMPLE_RATE / (1 << 17)


def level(audio: Audio) -> float:
    """Amplitude of the tone."""
    return float(np.sqrt(2 * np.mean(audio.samples[1600:-1600].astype(np.float64) ** 2)))


def assert_tone(audio: Audio, *, seconds: float = 2.0) -> None:
    assert audio.duration == pytest.approx(seconds, abs=EDGE_SECONDS)
    assert pitch(audio) == pytest.approx(HZ, abs=0.5)
    assert level(audio) == pytest.approx(LEVEL, rel=0.2)  # of six channels AAC keeps only the lowest tones in one
