"""Knows how an uploaded file becomes audio: containers, codecs, limits. Does not know HTTP or models.

Everything that FFmpeg may open is on the two lists below, and FFmpeg itself enforces them, before a demuxer for
playlists could open what a playlist names.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import BinaryIO

import av
import numpy as np
import numpy.typing as npt
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container import InputContainer

from models.resampling import is_convertible, to_mono_16k
from stt.audio import Audio
from stt.errors import AudioTooLong, AudioTooShort, UndecodableAudio

# Demuxers of self-contained files. Playlists (hls, dash, concat), devices and image sequences are not among them.
DEMUXERS = (
    "aac", "ac3", "aiff", "amr", "asf", "au", "avi", "caf", "flac", "flv", "matroska,webm", "mov,mp4,m4a,3gp,3g2,mj2",
    "mp3", "mpeg", "mpegts", "mulaw", "ogg", "w64", "wav", "wv",
)  # fmt: skip
OPEN_OPTIONS = {
    "format_whitelist": ",".join(DEMUXERS),
    "protocol_whitelist": "",  # no file, no address: the upload comes through Python's own reader
    "probesize": str(5 << 20),
}
SUPPORTED = "flac, mp3, mp4, mpeg, mpga, m4a, ogg, wav, webm"
SHORTEST_SECONDS = 0.1  # as OpenAI's API
DAMAGED_PACKETS = 50  # in a row; then the rest is taken for lost

av.logging.set_level(None)  # FFmpeg writes to standard error what the caller is told anyway


def decode(source: BinaryIO, *, max_seconds: float) -> Audio:
    """Read the first audio track of a media file. Blocking; safe to call from several threads.

    source: seekable. A damaged packet is skipped, and a file that ends early gives what is there.
    Raises UndecodableAudio, AudioTooShort, or, as soon as more than `max_seconds` have been decoded, AudioTooLong.
    """
    if not source.seek(0, 2):
        raise UndecodableAudio("The audio file is empty.")
    source.seek(0)
    try:
        with av.open(source, mode="r", options=dict(OPEN_OPTIONS), metadata_errors="ignore") as container:
            audio = _decode_track(container, max_seconds)
    except (av.FFmpegError, ValueError, OSError) as exc:
        raise UndecodableAudio(
            f"The file could not be decoded. It may be damaged, or no media file. Supported formats: {SUPPORTED}."
        ) from exc
    if audio.duration < SHORTEST_SECONDS:
        raise AudioTooShort(f"Audio file is too short. Minimum audio length is {SHORTEST_SECONDS} seconds.")
    return audio


def _decode_track(container: InputContainer, max_seconds: float) -> Audio:
    track = container.streams.best("audio")
    if not isinstance(track, AudioStream):
        raise UndecodableAudio("The file has no audio track.")
    track.thread_type = "AUTO"
    parts: list[npt.NDArray[np.float32]] = []
    rate = decoded = 0
    resampler: AudioResampler | None = None
    for frame in itertools.chain(_frames(container, track), [None]):
        if resampler is None:
            if frame is None:
                break
            # Every later frame is brought to the first one's rate and layout. A rate that no device has goes by way
            # of 48 kHz.
            rate = frame.sample_rate if is_convertible(frame.sample_rate) else 48_000
            resampler = AudioResampler(format="fltp", layout=frame.layout, rate=rate)
        for plain in resampler.resample(frame):
            mono = plain.to_ndarray().mean(0, dtype=np.float32)  # mixed down at once: a sixth of the memory for 5.1
            parts.append(mono)
            decoded += len(mono)
        if decoded > max_seconds * rate:
            raise AudioTooLong(f"The audio is longer than this server's limit of {max_seconds:g} seconds.")
    if not parts:
        return Audio(np.zeros(0, np.float32))
    return to_mono_16k(np.concatenate(parts)[None], rate)


def _frames(container: InputContainer, track: AudioStream) -> Iterator[AudioFrame]:
    """All frames of the track that can be decoded, in order."""
    damaged = 0
    packets = container.demux(track)
    while damaged < DAMAGED_PACKETS:
        try:
            packet = next(packets)
        except StopIteration:
            return
        except av.FFmpegError:  # the demuxer can't go on: the file ends here
            yield from _decoded(track, None)
            return
        frames = _decoded(track, packet)
        damaged = 0 if frames or packet.size == 0 else damaged + 1
        yield from frames


def _decoded(track: AudioStream, packet: av.Packet | None) -> list[AudioFrame]:
    try:
        return track.decode(packet)
    except av.FFmpegError:
        return []
