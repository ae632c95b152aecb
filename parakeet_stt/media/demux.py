"""Demuxing and decoding: a media file → mono audio at its own rate, under limits.

The lists below name everything that FFmpeg may open or decode. FFmpeg itself enforces them, before a demuxer for
playlists could open what a playlist names.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import chain, groupby
from typing import BinaryIO, cast

import av
import numpy as np
import numpy.typing as npt
import soundfile
from av.audio.fifo import AudioFifo
from av.audio.frame import AudioFrame
from av.audio.layout import AudioLayout
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.codec import Codec, codecs_available
from av.codec.codec import UnknownCodecError
from av.container import InputContainer

from parakeet_stt.audio import SAMPLE_RATE, Audio, Samples
from parakeet_stt.errors import AudioTooLong, AudioTooShort, UndecodableAudio
from parakeet_stt.media import ogg, resampling

MakeFilter = Callable[[int], npt.NDArray[np.float32]]
SUPPORTED = "flac, mp3, mp4, mpeg, mpga, m4a, ogg, wav, webm"
# The demuxers behind those names and their nearest kin, all of self-contained files. Not among them: playlists (hls,
# dash, concat), session descriptions, devices, image sequences, and the hundreds that nobody uploads.
DEMUXERS = "aac,aiff,au,flac,matroska,mov,mp3,mpeg,mpegts,ogg,w64,wav"
SHORTEST_SECONDS = 0.1  # as OpenAI's API
PLAIN_SUBTYPES = {"PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"}  # as soundfile calls them
WAV_VALUES = 1 << 19  # read at once: 33 s of mono at 16 kHz
# Samples that need no resampler of FFmpeg's, which takes 2 ms to make and 17 µs a frame: what is 1.0 in each.
FULL_SCALE = {"s16": 1 << 15, "s32": 1 << 31, "flt": 1, "s16p": 1 << 15, "s32p": 1 << 31, "fltp": 1}
DTYPES: dict[str, type[np.generic]] = {"s16": np.int16, "s32": np.int32, "flt": np.float32}
# Of a planar frame with more channels PyAV 18.1 reads past the end of the pointers, and crashes.
PLANAR_CHANNELS = 7
MAX_TRACKS = 32  # FFmpeg takes 0.7 MB for each to say what is in it
BRIDGE_RATE = 48_000  # Hz; FFmpeg brings a rate here that is too odd to be resampled directly


def _audio_decoders() -> Iterator[str]:
    for name in sorted(codecs_available):
        try:
            codec = Codec(name, "r")
        except UnknownCodecError:  # it only encodes
            continue
        if codec.type == "audio":
            yield codec.name


OPEN_OPTIONS = {
    "format_whitelist": DEMUXERS,
    "protocol_whitelist": "",  # no file, no address: the upload comes through Python's own reader
    # FFmpeg decodes pictures to learn about a video track: 150 MB for one of 8000 x 8000 points in a file of 16 kB.
    "max_streams": str(MAX_TRACKS + 1),  # one more: Matroska and MPEG-TS leave out what is beyond without an error
    "codec_whitelist": ",".join(_audio_decoders()),
    "analyzeduration": "5000000",  # 5 s, FFmpeg's default; left unset, some demuxers take up to 90 s
}

PROBE_BYTES = 5 << 20  # about FFmpeg's default
HEADER_BYTES = 16 << 10  # enough where everything stands at the start; probing a short clip whole costs 5 ms
# What writers of streams put where a wav file's length belongs, besides 0: about the largest number, signed or
# not, a little more where they add the header to it.
UNKNOWN_LENGTHS = (range(0x7FFFF000, 0x80001000), range(0xFFFFF000, 0x100000000))
# Those whose files say how long they are, by FFmpeg's names; in others it guesses by the size, or by the last page.
ANNOUNCING_DEMUXERS = frozenset({"aiff", "au", "flac", "matroska,webm", "mov,mp4,m4a,3gp,3g2,mj2", "w64", "wav"})
TRUNCATED_SECONDS = 0.5  # missing of what was announced; codecs differ by a few frames
MP3_FRAME_BYTES = 4096  # more than any frame has
MAX_LINKS = 1000  # of a chained Ogg file: a day of radio has 400
OGG_PAGE_BYTES = 65_307  # of the largest page, by RFC 3533
HEADERS = ((b"RIFF", b"WAVE"), (b"fLaC", b""))  # the first four bytes, and those from the eighth on

av.logging.set_level(None)  # or FFmpeg writes to standard error what the caller gets as an error


Mix = Callable[[npt.NDArray[np.float32]], Samples]  # of all channels to one


class Track:
    """The audio of a file while it is decoded: mono, at its own rate in Hz. channels: of the file."""

    def __init__(self, rate: int, channels: int = 1) -> None:
        self.rate = rate
        self.channels = channels
        self.pieces: Iterator[Samples] = iter(())
        self.is_truncated = (
            False  # whether the file ends before the length it announces; known once the pieces have ended
        )


def decode(source: BinaryIO, *, max_seconds: float, make_filter: MakeFilter) -> Audio:
    """All of a file at once, at 16 kHz. make_filter: makes the weights of a rate's filter. Raises as `open_track`."""
    track = open_track(source, max_seconds=max_seconds)
    made = None if track.rate == SAMPLE_RATE else resampling.Filter(track.rate, make_filter(track.rate))
    return Audio(np.concatenate(list(resampling.resample_pieces(track.pieces, made))))


def open_track(source: BinaryIO, *, max_seconds: float, channel: int | None = None) -> Track:
    """The best audio track of a media file; its pieces are float32, shape (num_samples,), in [-1, 1].

    source: seekable. channel: the only one to take, from 0; None for the mean of all. A damaged packet is skipped, and
    a file that ends early gives what is there. Blocking.
    Raises UndecodableAudio, AudioTooShort at the end, or, as soon as more than `max_seconds` have been decoded,
    AudioTooLong; here or from the pieces.
    """
    if source.seek(0, 2) == 0:
        raise UndecodableAudio("The audio file is empty.")
    mix = resampling.mix_down if channel is None else partial(resampling.pick_channel, channel=channel)
    with _convert_errors():
        track = _plain_wav(source, max_seconds, mix) or _by_ffmpeg(source, max_seconds, mix)
    track.pieces = _check_length(track.pieces, track.rate)
    return track


def _check_length(pieces: Iterator[Samples], rate: int) -> Iterator[Samples]:
    samples = 0
    with _convert_errors():
        for piece in pieces:
            samples += len(piece)
            yield piece
    if samples < SHORTEST_SECONDS * rate:
        raise AudioTooShort(f"Audio file is too short. Minimum audio length is {SHORTEST_SECONDS} seconds.")


@contextmanager
def _convert_errors() -> Iterator[None]:
    try:
        yield
    except (
        av.FFmpegError,
        soundfile.SoundFileError,
        ValueError,
        OSError,
    ) as exc:  # PyAV's own ones too, such as UnicodeDecodeError
        raise UndecodableAudio(
            f"The file could not be decoded: it is damaged, or not a media file. Supported formats: {SUPPORTED}."
        ) from exc


def _plain_wav(source: BinaryIO, max_seconds: float, mix: Mix) -> Track | None:
    """A wav file with plain samples, in a tenth of FFmpeg's time; None for any other file."""
    size = source.seek(0, 2)
    source.seek(0)
    start = source.read(12)
    source.seek(0)
    if not (start.startswith(b"RIFF") and start.endswith(b"WAVE")):
        return None
    try:
        file = soundfile.SoundFile(_without_python(source))
    except soundfile.SoundFileError:
        return None
    if file.subtype not in PLAIN_SUBTYPES or not file.frames or not resampling.is_convertible(file.samplerate):
        return None
    track = Track(file.samplerate, file.channels)
    announced = int.from_bytes(start[4:8], "little")
    track.is_truncated = size < announced + 8 and not any(announced in lengths for lengths in UNKNOWN_LENGTHS)
    track.pieces = map(mix, _wav_pieces(file, max_seconds))
    return track


def _without_python(source: BinaryIO) -> BinaryIO | int:
    """The same file, opened anew, for libsndfile to read by itself and to close; the source where that can't be."""
    try:
        return os.open(f"/proc/self/fd/{source.fileno()}", os.O_RDONLY)
    except OSError:  # it has no descriptor, or this is not Linux
        return source


def _wav_pieces(file: soundfile.SoundFile, max_seconds: float) -> Iterator[npt.NDArray[np.float32]]:
    """Its samples in pieces: float32, shape (channels, num_samples)."""
    # libsndfile reads 16 bits at once as they are, and to make floats of them takes three times as long as numpy does.
    is_short = file.subtype == "PCM_16"
    with file:
        read = 0
        dtype = "int16" if is_short else "float32"
        for piece in file.blocks(max(1, WAV_VALUES // file.channels), dtype=dtype, always_2d=True):
            read += len(piece)
            if read > max_seconds * file.samplerate + 1e-6:
                raise _too_long(max_seconds)
            yield piece.T * np.float32(1 / FULL_SCALE["s16"]) if is_short else piece.T


def _by_ffmpeg(source: BinaryIO, max_seconds: float, mix: Mix) -> Track:
    links = ogg.find_links(source)
    if len(links) > 1:
        return _chained(source, links, max_seconds, mix)
    counts_frames, has_last_page = _has_vbr_header(source), _has_last_page(source)
    container, stream = _open(source)
    announced = 0.0
    if container.format.name in ANNOUNCING_DEMUXERS or (container.format.name == "mp3" and counts_frames):
        announced = _announced_seconds(container, stream)

    def check_end(seconds: float) -> None:
        cut_page = container.format.name == "ogg" and not has_last_page
        track.is_truncated = cut_page or seconds < announced - TRUNCATED_SECONDS

    track = Track(BRIDGE_RATE)
    _set_pieces(track, _limit(_frames(container, stream), max_seconds, on_end=check_end), mix)
    return track


def _chained(source: BinaryIO, links: Sequence[tuple[int, int]], max_seconds: float, mix: Mix) -> Track:
    """A chained Ogg file: all of its links, one after another."""
    track = Track(BRIDGE_RATE)
    has_last_page = _has_last_page(source)

    def all_frames() -> Iterator[AudioFrame]:
        is_whole = has_last_page and len(links) <= MAX_LINKS
        for start, end in links[:MAX_LINKS]:
            has_frames = False
            try:
                for frame in _frames(*_open(cast(BinaryIO, ogg.Link(source, start, end)))):
                    frame.pts = None  # it begins anew with each link, which a resampler does not expect
                    has_frames = True
                    yield frame
            except (av.FFmpegError, UndecodableAudio):
                is_whole = False
            is_whole = is_whole and has_frames
        track.is_truncated = not is_whole

    _set_pieces(track, _limit(all_frames(), max_seconds), mix)
    return track


def _open(source: BinaryIO) -> tuple[InputContainer, AudioStream]:
    """A file as FFmpeg opens it, and its best audio track. Raises UndecodableAudio."""
    options = {**OPEN_OPTIONS, "probesize": str(_probe_bytes(source))}
    try:
        container = av.open(source, mode="r", container_options=options, metadata_errors="ignore")
    except av.error.MemoryError as exc:  # FFmpeg's error where mp4 has too many tracks, and for some damages
        message = f"The file could not be decoded: it has more than {MAX_TRACKS} tracks, or is damaged."
        raise UndecodableAudio(message) from exc
    if len(container.streams) > MAX_TRACKS:
        container.close()
        raise UndecodableAudio(f"The file has more than {MAX_TRACKS} tracks, which is not supported.")
    stream = container.streams.best("audio")
    if not isinstance(stream, AudioStream):
        raise UndecodableAudio("The file has no audio track.")
    if stream.codec_context is None:
        raise UndecodableAudio("The codec of the file's audio track is not supported.")
    return container, stream


def _set_pieces(track: Track, frames: Iterator[AudioFrame], mix: Mix) -> None:
    """Have a track's pieces made of these frames, at the rate of the first if it can be resampled."""
    first = next(frames, None)
    if first is not None:
        if resampling.is_convertible(first.sample_rate):
            track.rate = first.sample_rate
        track.channels = first.layout.nb_channels
        track.pieces = map(mix, _floats(chain([first], frames), track.rate))


def _too_long(limit: float) -> AudioTooLong:
    return AudioTooLong(f"The audio is longer than the limit of {limit:g} seconds.")


def _probe_bytes(source: BinaryIO) -> int:
    """How much of the file FFmpeg is to read before it says what is in it; leaves `source` at its start."""
    source.seek(0)
    start = source.read(12)
    source.seek(0)
    known = any(start.startswith(first) and start[8:].startswith(second) for first, second in HEADERS)
    return HEADER_BYTES if known else PROBE_BYTES


def _announced_seconds(container: InputContainer, stream: AudioStream) -> float:
    """0 if it is not known: what the container says is that of its longest track."""
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    return (container.duration or 0) / av.time_base if len(container.streams) == 1 else 0.0


def _has_vbr_header(source: BinaryIO) -> bool:
    """Whether an mp3 file says in its first frame how many there are."""
    source.seek(0)
    start = source.read(10)
    tag = 0
    if start.startswith(b"ID3"):  # its length in four bytes of seven bits
        tag = 10 + sum(byte << shift for byte, shift in zip(start[6:10], (21, 14, 7, 0), strict=True))
    source.seek(tag)
    frame = source.read(MP3_FRAME_BYTES)
    return any(mark in frame for mark in (b"Xing", b"Info", b"VBRI"))


def _has_last_page(source: BinaryIO) -> bool:
    """Whether the last page of an Ogg file says that it is the last."""
    source.seek(-min(OGG_PAGE_BYTES, source.seek(0, 2)), 2)
    _, _, page = source.read().rpartition(b"OggS")
    return len(page) > 1 and bool(page[1] & 4)


def _frames(container: InputContainer, stream: AudioStream) -> Iterator[AudioFrame]:
    """Every frame of the track that can be decoded, in order. Raises the last error if there is none."""
    failure: av.FFmpegError | None = None
    has_frames = False
    with container:
        packets = container.demux(stream)
        while True:
            try:
                packet = next(packets, None)
                if packet is None:  # after the empty packet that flushes the decoder
                    break
                frames = stream.decode(packet)
            except av.FFmpegError as exc:  # of one packet; or of the container, and then `packets` has ended
                failure = exc
                continue
            has_frames = has_frames or bool(frames)
            yield from frames
    if failure and not has_frames:
        raise failure


def _limit(
    frames: Iterable[AudioFrame], max_seconds: float, on_end: Callable[[float], None] = lambda _: None
) -> Iterator[AudioFrame]:
    """The same frames. Counts before any conversion, so that long audio in few bytes costs nothing.

    on_end: called with the seconds of all frames after the last one.
    """
    seconds = 0.0
    for frame in frames:
        if not resampling.LOWEST_RATE <= frame.sample_rate <= resampling.HIGHEST_RATE:
            raise UndecodableAudio(f"A sample rate of {frame.sample_rate} Hz is not supported.")
        seconds += frame.samples / frame.sample_rate
        if seconds > max_seconds + 1e-6:  # the sum of many is not exact
            raise _too_long(max_seconds)
        yield frame
    on_end(seconds)


def _floats(frames: Iterable[AudioFrame], rate: int) -> Iterator[npt.NDArray[np.float32]]:
    """All frames at one rate, each with its own channels: float32, shape (channels, num_samples), about a second each.

    A frame lasts 20 ms, and what Python does with each costs more than its decoding: FFmpeg joins them.
    """
    for (name, layout, own_rate), alike in groupby(frames, key=lambda f: (f.format.name, f.layout.name, f.sample_rate)):
        if _is_plain(name, layout) and own_rate == rate:
            yield from (_plain(joined, FULL_SCALE[name]) for joined in _seconds_of(alike, rate))
            continue
        resampler = AudioResampler(format="flt", layout=layout, rate=rate, frame_size=rate)
        for frame in chain(alike, [None]):
            for converted in resampler.resample(frame):
                yield _plain(converted, 1)


def _is_plain(name: str, layout: str) -> bool:
    is_small = not name.endswith("p") or AudioLayout(layout).nb_channels <= PLANAR_CHANNELS
    return name in FULL_SCALE and is_small


def _plain(frame: AudioFrame, full_scale: int) -> npt.NDArray[np.float32]:
    """The samples of a frame, shape (channels, num_samples), in [-1, 1]."""
    channels = frame.layout.nb_channels
    if channels == 1:  # one plane, packed or not, which `to_ndarray` takes three times as long to copy
        dtype = DTYPES[frame.format.name.removesuffix("p")]
        found = np.frombuffer(memoryview(frame.planes[0]), dtype, frame.samples)[None]
    elif frame.format.is_planar:
        found = frame.to_ndarray()
    else:
        found = frame.to_ndarray().reshape(-1, channels).T
    samples: npt.NDArray[np.float32] = found.astype(np.float32, copy=False)
    return samples if full_scale == 1 else samples * np.float32(1 / full_scale)


def _seconds_of(frames: Iterable[AudioFrame], rate: int) -> Iterator[AudioFrame]:
    """The same samples in frames of a second, the last one shorter. frames: all of one kind."""
    fifo = AudioFifo()
    for frame in frames:
        frame.pts = None  # a frame may be missing, which a fifo does not expect
        fifo.write(frame)
        yield from fifo.read_many(rate)
    yield from fifo.read_many(rate, partial=True)
