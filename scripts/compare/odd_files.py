"""Makes the odd media files that answers.py sends: the same bytes at every run.

Usage: from scripts.compare.odd_files import odd_files
"""

from __future__ import annotations

import io
import struct
from collections.abc import Mapping
from fractions import Fraction

import av
import numpy as np
import numpy.typing as npt
import soundfile
from av.stream import Disposition

Sound = npt.NDArray[np.float32]
RATE = 16_000  # Hz, of all sound in here
EXACT = {"strict": "experimental", "flags": "+bitexact"}  # no dates, no random numbers
CONTAINER = {"strict": "experimental", "fflags": "+bitexact"}
# The name of a file: container, codec, rate, channel layout.
ENCODED = {
    "u8-8k.wav": ("wav", "pcm_u8", 8_000, "mono"),
    "s16-8k.wav": ("wav", "pcm_s16le", 8_000, "mono"),
    "s16-11k.wav": ("wav", "pcm_s16le", 11_025, "mono"),
    "s16-22k-stereo.wav": ("wav", "pcm_s16le", 22_050, "stereo"),
    "s24-44k-stereo.wav": ("wav", "pcm_s24le", 44_100, "stereo"),
    "s32-44k.wav": ("wav", "pcm_s32le", 44_100, "mono"),
    "f32-48k-stereo.wav": ("wav", "pcm_f32le", 48_000, "stereo"),
    "f64-22k.wav": ("wav", "pcm_f64le", 22_050, "mono"),
    "s16-48k-6-channels.wav": ("wav", "pcm_s16le", 48_000, "5.1"),
    "s16-12345.wav": ("wav", "pcm_s16le", 12_345, "mono"),
    "s16-7999.wav": ("wav", "pcm_s16le", 7_999, "mono"),
    "mulaw-8k.wav": ("wav", "pcm_mulaw", 8_000, "mono"),
    "alaw-8k-stereo.wav": ("wav", "pcm_alaw", 8_000, "stereo"),
    "adpcm-16k.wav": ("wav", "adpcm_ima_wav", 16_000, "mono"),
    "mp3-16k.mp3": ("mp3", "libmp3lame", 16_000, "mono"),
    "mp3-24k.mp3": ("mp3", "libmp3lame", 24_000, "mono"),
    "mp3-44k-stereo.mp3": ("mp3", "libmp3lame", 44_100, "stereo"),
    "aac-16k.m4a": ("ipod", "aac", 16_000, "mono"),
    "aac-44k-stereo.m4a": ("ipod", "aac", 44_100, "stereo"),
    "aac-48k-6-channels.m4a": ("ipod", "aac", 48_000, "5.1"),
    "alac-44k.m4a": ("ipod", "alac", 44_100, "stereo"),
    "aac-44k.aac": ("adts", "aac", 44_100, "stereo"),
    "opus-48k.ogg": ("ogg", "libopus", 48_000, "mono"),
    "opus-16k.opus": ("opus", "libopus", 16_000, "mono"),
    "opus-48k-stereo.webm": ("webm", "libopus", 48_000, "stereo"),
    "vorbis-44k-stereo.ogg": ("ogg", "vorbis", 44_100, "stereo"),
    "flac-8k.flac": ("flac", "flac", 8_000, "mono"),
    "s16-44k.aiff": ("aiff", "pcm_s16be", 44_100, "stereo"),
    "aac-48k.ts": ("mpegts", "aac", 48_000, "stereo"),
    "mp2-48k.mpeg": ("mpeg", "mp2", 48_000, "stereo"),
    "avi-that-is-refused.avi": ("avi", "mp2", 44_100, "stereo"),
}


def encode(sound: Sound, container: str, codec: str, rate: int, layout: str = "mono") -> bytes:
    """Mono `sound` as a media file of another rate and layout; container s16le, mulaw and so on: bare samples."""
    out = io.BytesIO()
    with av.open(out, "w", format=container, options=CONTAINER) as file:
        _fill(file, sound, codec, rate, layout)
    return out.getvalue()


def _fill(file: av.container.OutputContainer, sound: Sound, codec: str, rate: int, layout: str) -> None:
    track = file.add_stream(codec, rate=rate, options=EXACT, layout=layout)
    assert isinstance(track, av.AudioStream)
    _write(file, track, sound, rate, layout)


def _write(file: av.container.OutputContainer, track: av.AudioStream, sound: Sound, rate: int, layout: str) -> None:
    track.codec_context.open(strict=False)
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(sound[None]), format="fltp", layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = RATE, 0, Fraction(1, RATE)
    size = track.codec_context.frame_size or 1024
    resampler = av.AudioResampler(format=track.format, layout=layout, rate=rate, frame_size=size)
    for part in [*resampler.resample(frame), *resampler.resample(None)]:
        file.mux(track.encode(part))
    file.mux(track.encode(None))


def wav(data: bytes, *, rate: int = RATE, channels: int = 1, bits: int = 16, kind: int = 1, length: int = -1) -> bytes:
    """A RIFF file around `data`. kind: 1 for integers, 3 for floats. length: what its header says instead of the truth.

    libsndfile would write the time of day into files of floats.
    """
    size = len(data) if length < 0 else length
    frame = channels * bits // 8
    header = struct.pack("<HHIIHH", kind, channels, rate, rate * frame, frame, bits)
    chunks = b"fmt " + struct.pack("<I", len(header)) + header + b"data" + struct.pack("<I", size) + data
    return b"RIFF" + struct.pack("<I", size + 36) + b"WAVE" + chunks


def pcm(sound: Sound) -> bytes:
    """int16, little-endian."""
    return (sound.clip(-1, 1) * 32767).astype("<i2").tobytes()


def odd_files(short: Sound, longer: Sound) -> dict[str, bytes]:
    """Every file by its name. short, longer: two recordings of speech at 16 kHz."""
    encoded = {name: encode(short, *how) for name, how in ENCODED.items()}
    return {**encoded, **_strange_sounds(short), **_damaged(short, encoded), **_films(short, longer)}


def silence(seconds: float) -> Sound:
    """So much of it."""
    return np.zeros(round(seconds * RATE), np.float32)


def _strange_sounds(short: Sound) -> dict[str, bytes]:
    random = np.random.default_rng(0)
    tone = (0.4 * np.sin(2 * np.pi * 440 * np.arange(3 * RATE) / RATE)).astype(np.float32)
    holes = short.copy()
    holes[20_000:20_100] = np.nan
    holes[30_000:30_002] = np.inf, -np.inf
    sounds = {
        "silence.wav": silence(3),
        "noise.wav": random.standard_normal(3 * RATE, np.float32) * np.float32(0.1),
        "tone.wav": tone,
        "too-short.wav": short[8_000:8_800],
        "a-tenth-of-a-second.wav": short[8_000:9_600],
        "silence-first.wav": np.concatenate([silence(3), short]),
        "long-pause.wav": np.concatenate([short, silence(4), short]),
        "begins-in-a-word.wav": short[12_000:],
        "noisy-speech.wav": short + random.standard_normal(len(short), np.float32) * np.float32(0.02),
        "quiet-speech.wav": short * np.float32(0.003),
        "without-a-pause.wav": np.concatenate([short[2_000:-8_000]] * 8),
    }
    lossless = io.BytesIO()
    soundfile.write(lossless, np.stack([short, short * 0.5], 1), RATE, format="FLAC", subtype="PCM_24")
    return {
        **{name: wav(pcm(sound)) for name, sound in sounds.items()},
        "s24-stereo.flac": lossless.getvalue(),
        "far-past-clipping.wav": wav((short * np.float32(50)).tobytes(), bits=32, kind=3),
        "holes.wav": wav(holes.tobytes(), bits=32, kind=3),
        "9-channels.wav": wav(pcm(np.repeat(short, 9)), channels=9),
        "channels-that-cancel.wav": wav(pcm(np.stack([short, -short], 1).reshape(-1)), channels=2),
        "rate-too-high.wav": wav(pcm(short), rate=768_001),
    }


def _damaged(short: Sound, whole: Mapping[str, bytes]) -> dict[str, bytes]:
    random = np.random.default_rng(1)
    data, mp3 = pcm(short), whole["mp3-44k-stereo.mp3"]
    plain, middle = wav(data), len(mp3) // 2
    return {
        "empty.wav": b"",
        "random.mp3": random.bytes(20_000),
        "text.wav": b"This is a letter.\n" * 200,
        "nothing-in-it.wav": wav(b""),
        "cut.wav": plain[: len(plain) // 2],
        "cut.mp3": mp3[:middle],
        "cut.flac": whole["flac-8k.flac"][: len(whole["flac-8k.flac"]) // 2],
        "cut.ogg": whole["opus-48k.ogg"][: len(whole["opus-48k.ogg"]) // 2],
        "cut.m4a": whole["aac-44k-stereo.m4a"][: len(whole["aac-44k-stereo.m4a"]) // 2],
        "says-more.wav": wav(data, length=10 * len(data)),
        "says-less.wav": wav(data, length=len(data) // 2),
        "says-nothing.wav": wav(data, length=0),
        "hit-in-the-middle.mp3": mp3[:middle] + random.bytes(400) + mp3[middle + 400 :],
        "two-in-one.mp3": whole["mp3-16k.mp3"] + mp3,
    }


def _films(short: Sound, longer: Sound) -> dict[str, bytes]:
    return {
        "film.mp4": _film("mp4", short),
        "film.mkv": _film("matroska", short),
        "film-without-sound.mp4": _film("mp4", None),
        "two-tracks.mkv": _tracks(longer, short, default=0),
        "two-tracks-the-second-is-default.mkv": _tracks(longer, short, default=1),
    }


def _film(container: str, sound: Sound | None) -> bytes:
    out = io.BytesIO()
    with av.open(out, "w", format=container, options=CONTAINER) as file:
        pictures = file.add_stream("mpeg4", rate=5, options={**EXACT, "threads": "1"})
        pictures.width, pictures.height, pictures.pix_fmt = 64, 48, "yuv420p"
        track = file.add_stream("aac", rate=48_000, options=EXACT, layout="stereo") if sound is not None else None
        for number in range(22):
            picture = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 10 * number, np.uint8))
            picture.pts, picture.time_base = number, Fraction(1, 5)
            file.mux(pictures.encode(picture))
        file.mux(pictures.encode(None))
        if sound is not None and isinstance(track, av.AudioStream):
            _write(file, track, sound, 48_000, "stereo")
    return out.getvalue()


def _tracks(*sounds: Sound, default: int) -> bytes:
    out = io.BytesIO()
    with av.open(out, "w", format="matroska", options=CONTAINER) as file:
        tracks = [file.add_stream("pcm_s16le", rate=RATE, options=EXACT, layout="mono") for _ in sounds]
        tracks[default].disposition = Disposition.default
        for track, sound in zip(tracks, sounds, strict=True):
            _write(file, track, sound, RATE, "mono")
    return out.getvalue()
