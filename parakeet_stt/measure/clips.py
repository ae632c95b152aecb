"""Recordings → the files that servers get: whole files as they are, parts as wav; and clips cut from recordings."""

from __future__ import annotations

import io
import random
import wave
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import av
import numpy as np
import numpy.typing as npt

from parakeet_stt.measure.manifests import Recording

Pcm = npt.NDArray[np.int16]  # mono, shape (num_samples,)
RATE = 16_000
SPARE_SECONDS = 0.05  # a file that is so little longer than its manifest says is sent as it is
# Speech, as far as the level tells it. Used to cut recordings that are loud and clear, not to judge a detector.
WINDOW_SECONDS = 0.01
SILENCE_DB = -35.0  # against the loudest window
PAUSE_SECONDS = 0.2  # a silence so long parts two phrases


class UnreadableAudio(ValueError):
    """A recording that can't be read; the message names it."""


@dataclass(frozen=True)
class Clip:
    """A file to upload. data: of any container, named by filename. seconds: length of its audio."""

    filename: str
    data: bytes
    seconds: float


@dataclass(frozen=True)
class Phrase:
    """Speech without a pause in it. samples: at 16 kHz, int16, shape (num_samples,), speech from first to last."""

    samples: Pcm

    @property
    def seconds(self) -> float:
        return len(self.samples) / RATE


def load(recording: Recording) -> Clip:
    """The file of a recording. Raises UnreadableAudio."""
    path = recording.audio if isinstance(recording.audio, Path) else None
    try:
        data = cast(bytes, recording.audio) if path is None else path.read_bytes()
        seconds = _measure(data)
        is_whole = not recording.offset and (
            recording.duration is None or seconds <= recording.duration + SPARE_SECONDS
        )
        if is_whole:
            return Clip(path.name if path else _filename(recording.name), data, seconds)
        samples = decode(data)
    except (OSError, av.FFmpegError, IndexError) as error:
        raise UnreadableAudio(f"{recording.name}: {error or type(error).__name__}") from error
    end = None if recording.duration is None else round((recording.offset + recording.duration) * RATE)
    part = samples[round(recording.offset * RATE) : end]
    if not len(part):
        raise UnreadableAudio(f"{recording.name}: it has no audio at {recording.offset:g} s")
    return Clip("part.wav", write_wav(part), len(part) / RATE)


def _filename(name: str) -> str:
    """A name with a suffix: servers look at it to tell the container."""
    return Path(name).name if Path(name).suffix else f"{Path(name).name or 'audio'}.wav"


def _measure(data: bytes) -> float:
    """Seconds of audio in a file: what its header says, or else what it decodes to."""
    with av.open(io.BytesIO(data), "r") as file:
        stream = file.streams.audio[0]
        if stream.duration and stream.time_base:
            return float(stream.duration * stream.time_base)
        if file.duration:
            return float(file.duration / av.time_base)
    return len(decode(data)) / RATE


def decode(data: bytes, rate: int = RATE) -> Pcm:
    """The samples of a file at `rate`, mono, int16. Raises av.FFmpegError, or IndexError if there is no audio."""
    resampler = av.AudioResampler(format="s16", layout="mono", rate=rate)
    parts: list[npt.NDArray[np.int16]] = []
    with av.open(io.BytesIO(data), "r") as file:
        for frame in file.decode(file.streams.audio[0]):
            parts += [part.to_ndarray()[0] for part in resampler.resample(frame)]
        parts += [part.to_ndarray()[0] for part in resampler.resample(None)]
    return np.concatenate(parts) if parts else np.zeros(0, np.int16)


def resample(samples: Pcm, rate: int) -> Pcm:
    """The same at another rate."""
    return decode(write_wav(samples), rate)


def write_wav(samples: Pcm, rate: int = RATE) -> bytes:
    """A 16-bit mono wav file."""
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.tobytes())
    return out.getvalue()


def cut_clips(samples: Pcm, count: int, shortest: float, longest: float) -> list[Clip]:
    """`count` clips from random places, the same in each run. shortest, longest: in seconds, of uniform lengths.

    A recording that is shorter than a clip goes on from its beginning.
    """
    pick = random.Random(0)
    clips = []
    for number in range(count):
        length = int(pick.uniform(shortest, longest) * RATE)
        start = pick.randrange(max(1, len(samples) - length))
        part = np.resize(samples[start:], length)
        clips.append(Clip(f"{number}.wav", write_wav(part), length / RATE))
    return clips


def cut_phrases(samples: Pcm, shortest: float, longest: float) -> Iterator[Phrase]:
    """The phrases of a recording that have between `shortest` and `longest` seconds, in order."""
    window = round(WINDOW_SECONDS * RATE)
    blocks = samples[: len(samples) // window * window].reshape(-1, window).astype(np.float64)
    level = np.sqrt(np.square(blocks).mean(1))
    loud = np.flatnonzero(level > level.max(initial=0.0) * 10 ** (SILENCE_DB / 20))
    if not len(loud):
        return
    gaps = np.flatnonzero(np.diff(loud) * WINDOW_SECONDS > PAUSE_SECONDS)
    starts, ends = loud[[0, *(gaps + 1)]], loud[[*gaps, len(loud) - 1]] + 1
    for start, end in zip(starts, ends, strict=True):
        if shortest <= (end - start) * WINDOW_SECONDS <= longest:
            yield Phrase(samples[start * window : end * window])


def join(recordings: Sequence[Pcm]) -> Pcm:
    """One recording after another, half a second of silence between them."""
    silence = np.zeros(RATE // 2, np.int16)
    return np.concatenate([part for samples in recordings for part in (samples, silence)] or [silence])
