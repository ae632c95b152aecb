"""Whatever people upload becomes the sound that is in it; whatever is not a media file opens nothing and says why."""

from __future__ import annotations

import io
import os
import socket
import struct
import tempfile
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO, cast

import av
import numpy as np
import numpy.typing as npt
import pytest
from av.codec import Codec
from av.stream import Disposition

from parakeet_stt.audio import SAMPLE_RATE, Audio
from parakeet_stt.errors import AudioError, AudioTooLong, AudioTooShort, UndecodableAudio
from parakeet_stt.media import demux as decoding
from parakeet_stt.media.demux import decode, opened

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


def heard(data: bytes, *, max_seconds: float = 60) -> Audio:
    return decode(io.BytesIO(data), max_seconds=max_seconds)


def is_truncated(data: bytes) -> bool:
    track = opened(io.BytesIO(data), max_seconds=60)
    for _ in track.pieces:
        pass
    return track.is_truncated


def refusal(data: bytes, kind: type[AudioError] = UndecodableAudio, *, max_seconds: float = 60) -> str:
    """What the caller is told; never an address in memory or a path on the server."""
    with pytest.raises(kind) as caught:
        heard(data, max_seconds=max_seconds)
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


AUDIO_FILES = [
    ("wav", "pcm_u8", 8000, "mono"),
    ("wav", "pcm_s16le", 8000, "mono"),
    ("wav", "pcm_s16le", 16_000, "mono"),
    ("wav", "pcm_s24le", 44_100, "stereo"),
    ("wav", "pcm_s32le", 96_000, "stereo"),
    ("wav", "pcm_f32le", 48_000, "5.1"),
    ("wav", "pcm_f64le", 22_050, "mono"),
    ("wav", "pcm_mulaw", 8000, "mono"),
    ("wav", "pcm_alaw", 8000, "stereo"),
    ("wav", "adpcm_ima_wav", 16_000, "mono"),
    ("wav", "pcm_s16le", 48_000, "7.1"),
    ("w64", "pcm_s16le", 48_000, "stereo"),
    ("aiff", "pcm_s16be", 44_100, "stereo"),
    ("au", "pcm_mulaw", 8000, "mono"),
    ("flac", "flac", 8000, "mono"),
    ("flac", "flac", 16_000, "mono"),
    ("flac", "flac", 44_100, "stereo"),
    ("flac", "flac", 96_000, "5.1"),
    ("flac", "flac", 48_000, "7.1"),
    ("mp3", "libmp3lame", 8000, "mono"),
    ("mp3", "libmp3lame", 16_000, "mono"),
    ("mp3", "libmp3lame", 44_100, "stereo"),
    ("mp3", "libmp3lame", 48_000, "stereo"),
    ("mp2", "mp2", 44_100, "stereo"),
    ("ipod", "aac", 16_000, "mono"),
    ("ipod", "aac", 44_100, "stereo"),
    ("ipod", "aac", 48_000, "5.1"),
    ("ipod", "alac", 44_100, "stereo"),
    ("adts", "aac", 44_100, "stereo"),
    ("mov", "pcm_s16be", 48_000, "stereo"),
    ("3gp", "aac", 16_000, "mono"),
    ("ogg", "vorbis", 44_100, "stereo"),
    ("ogg", "libopus", 48_000, "mono"),
    ("ogg", "libopus", 16_000, "mono"),
    ("ogg", "flac", 16_000, "mono"),
    ("opus", "libopus", 48_000, "stereo"),
    ("webm", "libopus", 48_000, "mono"),
    ("webm", "libopus", 48_000, "5.1"),
    ("webm", "libopus", 48_000, "7.1"),
    ("webm", "vorbis", 48_000, "stereo"),
    ("matroska", "aac", 44_100, "stereo"),
    ("matroska", "pcm_s16le", 16_000, "mono"),
    ("matroska", "libmp3lame", 44_100, "mono"),
    ("matroska", "ac3", 48_000, "5.1"),
    ("mpegts", "aac", 48_000, "stereo"),
    ("mpeg", "mp2", 48_000, "stereo"),
]


@pytest.mark.parametrize(("container", "codec", "rate", "layout"), AUDIO_FILES)
def test_a_tone_comes_out_of_every_container_and_codec_as_it_went_in(
    container: str, codec: str, rate: int, layout: str
) -> None:
    assert_tone(heard(media(container, codec, rate, layout)))


@pytest.mark.parametrize(
    ("container", "codec", "video"),
    [
        ("mp4", "aac", "libx264"),
        ("mov", "aac", "mpeg4"),
        ("webm", "libopus", "libvpx"),
        ("matroska", "libopus", "libx264"),
        ("mpeg", "mp2", "mpeg1video"),
        ("mpegts", "aac", "libx264"),
    ],
)
def test_the_sound_of_a_video_is_found_beside_its_pictures(container: str, codec: str, video: str) -> None:
    assert_tone(heard(media(container, codec, 48_000, "stereo", video=video)))


def test_of_several_tracks_the_default_one_is_heard() -> None:
    out = io.BytesIO()
    with av.open(out, "w", format="matroska") as file:
        tracks = [file.add_stream("pcm_s16le", rate=16_000, layout="mono") for _ in range(3)]
        tracks[1].disposition = Disposition.default
        for number, track in enumerate(tracks):
            sound = np.round(tone(2, 16_000, HZ * (2 if number != 1 else 1)) * 32767).astype(np.int16)
            frame = av.AudioFrame.from_ndarray(sound[None], format="s16", layout="mono")
            frame.sample_rate = 16_000
            file.mux(track.encode(frame))
            file.mux(track.encode(None))
    assert_tone(heard(out.getvalue()))


def test_rf64_and_fragmented_mp4_are_read() -> None:
    assert_tone(heard(media("wav", "pcm_s16le", options={"rf64": "always"})))
    assert_tone(heard(media("mp4", "aac", 44_100, options={"movflags": "frag_keyframe+empty_moov"})))


@pytest.mark.parametrize("channels", [1, 2, 3, 7, 8, 9, 12, 16, 64])
def test_any_number_of_channels_without_a_layout_is_mixed_down(channels: int) -> None:
    """PyAV crashes the process on planar frames of 8 channels or more."""
    interleaved = np.repeat(tone(2, 16_000), channels)
    assert_tone(heard(wav(pcm(interleaved), channels=channels)))


@pytest.mark.parametrize("rate", [5512, 7999, 11_025, 22_255, 37_800, 44_056, 48_001, 192_000, 768_000])
def test_any_sample_rate_is_read(rate: int) -> None:
    assert_tone(heard(wav(pcm(tone(2, rate)), rate=rate)))


@pytest.mark.parametrize("rate", [768_001, 100_000_007, 2**31 - 1])
def test_a_sample_rate_that_nothing_records_at_is_refused(rate: int) -> None:
    assert refusal(wav(bytes(4_000_000), rate=rate)) == f"A sample rate of {rate} Hz is not supported."


def test_one_sample_per_second_counts_by_its_seconds_and_not_by_its_bytes() -> None:
    refusal(wav(bytes(2 * 4000), rate=1), AudioTooLong, max_seconds=1000)
    assert heard(wav(bytes(2 * 100), rate=1), max_seconds=1000).duration == 100


def test_channels_are_mixed_by_their_mean() -> None:
    left = tone(1, 16_000)
    opposed = np.stack([left, -left], 1).reshape(-1)
    one_sided = np.stack([left, 0 * left], 1).reshape(-1)
    assert np.abs(heard(wav(pcm(opposed), channels=2)).samples).max() < 1e-4
    assert level(heard(wav(pcm(one_sided), channels=2))) == pytest.approx(LEVEL / 2, rel=0.01)


def test_what_is_not_a_finite_number_becomes_silence() -> None:
    wave = tone(1, 16_000)
    wave[5000:5010] = np.nan
    wave[6000:6002] = np.inf, -np.inf
    samples = heard(wav(wave.tobytes(), bits=32, kind=3)).samples
    assert np.all(np.isfinite(samples))
    assert not samples[5000:5010].any()
    assert not samples[6000:6002].any()


def test_float_samples_beyond_full_scale_are_clipped() -> None:
    assert np.abs(heard(wav((tone(1, 48_000) * 10).tobytes(), rate=48_000, bits=32, kind=3)).samples).max() == 1


def test_the_sample_rate_and_the_channels_may_change_on_the_way() -> None:
    one, two, three = (
        media("mp3", "libmp3lame", rate, layout, options={"write_xing": "0", "id3v2_version": "0"})
        for rate, layout in ((44_100, "stereo"), (44_100, "mono"), (22_050, "mono"))
    )
    audio = heard(one + two + three)
    assert audio.duration == pytest.approx(6, abs=0.3)
    assert pitch(audio) == pytest.approx(HZ, abs=0.5)
    for second in (0, 2, 4):
        assert level(Audio(audio.samples[second * 16_000 :][:32_000])) == pytest.approx(LEVEL, rel=0.1)


def test_text_in_no_encoding_does_not_matter() -> None:
    plain = media("flac", "flac")
    strange = plain.replace(b"encoder=Lavf", b"encoder=\xff\xfe\xfd\x80")
    assert strange != plain
    assert_tone(heard(strange))


@pytest.mark.parametrize("memory_bytes", [1 << 20, 1])
def test_an_upload_may_lie_in_memory_or_on_disk(memory_bytes: int) -> None:
    """Starlette keeps an upload in a SpooledTemporaryFile."""
    with tempfile.SpooledTemporaryFile(memory_bytes) as file:
        file.write(media("ipod", "aac", 44_100))
        assert_tone(decode(cast(BinaryIO, file), max_seconds=10))


def test_several_threads_may_decode_at_once() -> None:
    data = media("mp3", "libmp3lame", 44_100, "stereo")
    with ThreadPoolExecutor(4) as pool:
        first, *others = pool.map(heard, [data] * 8)
    assert all(np.array_equal(first.samples, other.samples) for other in others)


# Damage


@pytest.mark.parametrize(
    ("container", "codec", "rate", "options"),
    [("mp3", "libmp3lame", 44_100, {}), ("flac", "flac", 16_000, {}), ("ipod", "aac", 44_100, {}),
     ("ogg", "libopus", 48_000, {}), ("webm", "libopus", 48_000, {"cluster_time_limit": "1000"}),
     ("adts", "aac", 44_100, {}), ("mpegts", "aac", 48_000, {})],
)  # fmt: skip
def test_damage_in_the_middle_costs_only_what_it_hit(
    container: str, codec: str, rate: int, options: dict[str, str], capfd: pytest.CaptureFixture[str]
) -> None:
    data = bytearray(media(container, codec, rate, seconds=10, options=options))
    middle = len(data) // 2
    data[middle : middle + 400] = np.random.default_rng(0).bytes(400)
    audio = heard(bytes(data))
    assert audio.duration == pytest.approx(10, abs=1.2)  # an Ogg page, and here a WebM cluster, is a second
    assert pitch(Audio(audio.samples[-32_000:])) == pytest.approx(HZ, abs=1)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("container", "codec", "rate", "options"),
    [("mp3", "libmp3lame", 44_100, {}), ("ipod", "aac", 44_100, {"movflags": "faststart"}),
     ("webm", "libopus", 48_000, {}), ("ogg", "libopus", 48_000, {"page_duration": "100000"}),
     ("flac", "flac", 16_000, {}), ("wav", "pcm_s16le", 16_000, {})],
)  # fmt: skip
def test_a_file_that_ends_early_gives_what_is_there(
    container: str, codec: str, rate: int, options: dict[str, str]
) -> None:
    data = media(container, codec, rate, seconds=10, options=options)
    audio = heard(data[: len(data) // 2])
    assert 3.5 < audio.duration < 6
    assert pitch(audio) == pytest.approx(HZ, abs=0.5)
    assert is_truncated(data[: len(data) // 2])
    assert not is_truncated(data)


@pytest.mark.parametrize("options", [{"write_xing": "0"}, {"id3v2_version": "4"}])
def test_an_mp3_says_only_in_its_first_frame_how_long_it_is(options: dict[str, str]) -> None:
    data = media("mp3", "libmp3lame", 44_100, seconds=10, options=options)
    assert is_truncated(data[: len(data) // 2]) == ("write_xing" not in options)
    assert not is_truncated(data)


def test_an_m4a_whose_index_was_at_the_lost_end_is_refused() -> None:
    data = media("ipod", "aac", 44_100)
    assert "damaged" in refusal(data[: len(data) // 2])


def test_a_file_whose_every_packet_is_damaged_is_refused_as_damaged() -> None:
    data = media("matroska", "flac")
    start = data.index(b"\xff\xf8")  # the first frame's sync code
    assert "damaged" in refusal(data[:start] + np.random.default_rng(0).bytes(len(data) - start))


@pytest.mark.parametrize("length", [0, 1000 * 64_000, 2**32 - 1, 2**31])
def test_a_wav_header_that_promises_another_length_than_there_is_gives_what_is_there(length: int) -> None:
    """0 and 2^32 - 1 are what programs write that stream into a pipe."""
    data = wav(pcm(tone(2, 16_000)), length=length)
    assert_tone(heard(data))
    assert is_truncated(data) == (length == 1000 * 64_000)


def test_a_wav_header_that_promises_less_is_believed() -> None:
    assert heard(wav(pcm(tone(2, 16_000)), length=32_000)).duration == 1


# Limits


def test_under_a_tenth_of_a_second_is_too_short() -> None:
    expected = "Audio file is too short. Minimum audio length is 0.1 seconds."
    assert refusal(wav(pcm(tone(0.099, 16_000))), AudioTooShort) == expected
    assert refusal(wav(pcm(tone(0.099, 48_000)), rate=48_000), AudioTooShort) == expected
    assert refusal(wav(b""), AudioTooShort) == expected
    assert heard(wav(pcm(tone(0.1, 16_000)))).duration == 0.1
    assert heard(wav(pcm(tone(0.1, 48_000)), rate=48_000)).duration == 0.1


def test_the_limit_itself_is_allowed_and_anything_over_it_is_not() -> None:
    data = wav(pcm(tone(2, 16_000)))
    assert heard(data, max_seconds=2).duration == 2
    assert refusal(data, AudioTooLong, max_seconds=1.5) == "The audio is longer than the limit of 1.5 seconds."
    assert refusal(data, AudioTooLong, max_seconds=1) == "The audio is longer than the limit of 1 seconds."


class Watched(io.BytesIO):
    """A file that knows how far it was read."""

    furthest = 0

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self.furthest = max(self.furthest, self.tell())
        return data


def test_a_long_file_is_not_read_beyond_the_limit() -> None:
    file = Watched(wav(bytes(32_000 * 600)))
    with pytest.raises(AudioTooLong):
        decode(file, max_seconds=10)
    assert file.furthest < 32_000 * 30


@pytest.mark.parametrize(("container", "codec", "rate"), [("flac", "flac", 8000), ("ogg", "libopus", 48_000)])
def test_long_silence_in_a_small_file_is_given_up_early(
    container: str, codec: str, rate: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = media(container, codec, rate, sound=np.zeros(rate * 120, np.float32))
    assert len(data) < 60_000
    decoded: list[float] = []
    frames = decoding._frames

    def watched(container: av.container.InputContainer, track: av.AudioStream) -> object:
        for frame in frames(container, track):
            decoded.append(frame.samples / frame.sample_rate)
            yield frame

    monkeypatch.setattr(decoding, "_frames", watched)
    refusal(data, AudioTooLong, max_seconds=20)
    assert sum(decoded) < 21


# Refusals

NOT_MEDIA = (
    "The file could not be decoded: it is damaged, or not a media file. "
    "Supported formats: flac, mp3, mp4, mpeg, mpga, m4a, ogg, wav, webm."
)


def test_an_empty_file_is_called_empty() -> None:
    assert refusal(b"") == "The audio file is empty."


@pytest.mark.parametrize(
    "data",
    [b"\0", b"R", b"RIFF", b"ID3", bytes(100_000), b"\xff" * 100_000, b"This is a letter.\n" * 100,
     b"<!doctype html><html><body>404</body></html>", b'{"error": "not found"}',
     b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01\x08\0\0\0\0" + bytes(100),
     b"\xff\xd8\xff\xe0\0\x10JFIF\0" + bytes(100),
     b"%PDF-1.7\n" + bytes(100), b"PK\x03\x04" + bytes(100), b"1\n00:00:00,000 --> 00:00:01,000\nHello.\n\n",
     b"[Script Info]\nScriptType: v4.00+\n"],
)  # fmt: skip
def test_what_is_not_media_is_refused_with_the_formats_that_are(data: bytes) -> None:
    assert refusal(data) == NOT_MEDIA


@pytest.mark.parametrize("seed", range(50))
def test_random_bytes_are_refused(seed: int) -> None:
    random = np.random.default_rng(seed)
    assert refusal(random.bytes(int(random.integers(1, 50_000)))) == NOT_MEDIA


@pytest.mark.parametrize(("container", "codec"), [("avi", "mp2"), ("asf", "mp2"), ("nut", "flac"), ("caf", "flac")])
def test_a_container_that_is_not_on_the_list_is_refused(container: str, codec: str) -> None:
    assert refusal(media(container, codec, 44_100)) == NOT_MEDIA


def silent_film() -> bytes:
    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as file:
        pictures = file.add_stream("mpeg4", rate=10)
        pictures.width, pictures.height, pictures.pix_fmt = 320, 240, "yuv420p"
        file.mux(pictures.encode(av.VideoFrame.from_ndarray(np.zeros((240, 320, 3), np.uint8))))
        file.mux(pictures.encode(None))
    return out.getvalue()


def test_a_film_without_sound_has_no_audio_track() -> None:
    assert refusal(silent_film()) == "The file has no audio track."


def test_a_codec_that_ffmpeg_does_not_know_is_named_as_the_reason() -> None:
    data = media("matroska", "flac")
    unknown = data.replace(b"A_FLAC", b"A_WHAT")
    assert unknown != data
    assert refusal(unknown) == "The codec of the file's audio track is not supported."


def test_pictures_are_never_decoded() -> None:
    """FFmpeg would decode some to learn about the track, and one of 8000 x 8000 points takes 150 MB."""
    av.logging.set_level(av.logging.ERROR)
    try:
        with av.logging.Capture() as lines:
            heard(media("mp4", "aac", 48_000, video="libx264"))
    finally:
        av.logging.set_level(None)
    assert any("Codec (h264) not on whitelist" in text for _, _, text in lines)
    allowed = decoding.OPEN_OPTIONS["codec_whitelist"].split(",")
    assert {Codec(name, "r").type for name in allowed} == {"audio"}


# Playlists. A FIFO tells whether anybody opened it, a listening socket whether anybody called.

HLS = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{target}\n#EXT-X-ENDLIST\n"
CONCAT = "ffconcat version 1.0\nfile '{target}'\n"
DASH = (
    '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" mediaPresentationDuration="PT10S">'
    '<Period><AdaptationSet mimeType="audio/mp4"><Representation id="1" bandwidth="1000"><BaseURL>{target}</BaseURL>'
    "</Representation></AdaptationSet></Period></MPD>"
)
SDP = "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=-\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 5004 RTP/AVP 0\na=control:{target}\n"
RTSP = "[Reference]\nRef1={target}\n"
PLAYLISTS = {"m3u8": HLS, "ffconcat": CONCAT, "mpd": DASH, "sdp": SDP, "asx": RTSP}
EVERYTHING = {"format_whitelist": "hls,concat,wav,mp3", "protocol_whitelist": "file,http,tcp", "safe": "0"}


class Upload(io.BytesIO):
    """A file with a name that helps FFmpeg to guess."""

    def __init__(self, data: bytes, name: str) -> None:
        super().__init__(data)
        self.name = name


class Fifo:
    """A file whose reader can be seen: while there is none, it can't be opened for writing without waiting."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "sound.ts"
        os.mkfifo(self.path)

    def was_opened_during(self, upload: Upload) -> bool:
        """Decode meanwhile; whoever opens the FIFO waits there for a writer, and so is noticed."""
        opened = False
        with ThreadPoolExecutor(1) as pool:
            decoded = pool.submit(decode, upload, max_seconds=10)
            while not decoded.done():
                try:
                    os.close(os.open(self.path, os.O_WRONLY | os.O_NONBLOCK))
                    opened = True
                except OSError:
                    continue
        assert isinstance(decoded.exception(), AudioError | None)
        return opened


@pytest.fixture
def fifo(tmp_path: Path) -> Fifo:
    return Fifo(tmp_path)


@pytest.fixture
def listener() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0))


def was_called(listener: socket.socket, upload: Upload) -> bool:
    """Decode meanwhile; a caller is hung up on at once."""
    listener.settimeout(0.01)
    called = False
    with listener, ThreadPoolExecutor(1) as pool:
        decoded = pool.submit(decode, upload, max_seconds=10)
        done = False
        while not done:
            done = decoded.done()  # asked first, so that the last look comes after the end
            try:
                listener.accept()[0].close()
                called = True
            except TimeoutError:
                continue
    assert isinstance(decoded.exception(), AudioError | None)
    return called


def address(listener: socket.socket) -> str:
    return f"http://127.0.0.1:{listener.getsockname()[1]}/sound.ts"


@pytest.mark.parametrize("kind", PLAYLISTS)
def test_a_playlist_opens_no_file_and_calls_nobody(kind: str, fifo: Fifo, listener: socket.socket) -> None:
    for name in (f"list.{kind}", "sound.wav", "<none>"):
        local = PLAYLISTS[kind].format(target=fifo.path).encode()
        assert not fifo.was_opened_during(Upload(local, name))
        as_url = PLAYLISTS[kind].format(target=fifo.path.as_uri()).encode()
        assert not fifo.was_opened_during(Upload(as_url, name))
    remote = PLAYLISTS[kind].format(target=address(listener)).encode()
    assert not was_called(listener, Upload(remote, f"list.{kind}"))
    assert refusal(local) == refusal(remote) == NOT_MEDIA


@pytest.mark.parametrize("kind", ["m3u8", "ffconcat"])
def test_were_playlists_allowed_they_still_could_open_nothing(
    kind: str, fifo: Fifo, listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "OPEN_OPTIONS", {**EVERYTHING, "protocol_whitelist": ""})
    assert not fifo.was_opened_during(Upload(PLAYLISTS[kind].format(target=fifo.path).encode(), f"list.{kind}"))
    assert not was_called(listener, Upload(PLAYLISTS[kind].format(target=address(listener)).encode(), f"list.{kind}"))


@pytest.mark.parametrize("kind", ["m3u8", "ffconcat"])
def test_without_both_lists_these_playlists_do_open_what_they_name(
    kind: str, fifo: Fifo, listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So the tests above would see it."""
    monkeypatch.setattr(decoding, "OPEN_OPTIONS", EVERYTHING)
    assert fifo.was_opened_during(Upload(PLAYLISTS[kind].format(target=fifo.path).encode(), f"list.{kind}"))
    assert was_called(listener, Upload(PLAYLISTS[kind].format(target=address(listener)).encode(), f"list.{kind}"))


def with_external_sound(path: Path) -> bytes:
    """A QuickTime file whose track says, in a Macintosh alias record, that its samples lie in another file."""
    data = media("mov", "pcm_s16be")
    target = os.fsencode(path) + bytes(len(os.fsencode(path)) % 2)
    alias = bytes(150) + struct.pack(">HH", 2, len(target)) + target + struct.pack(">HH", 0xFFFF, 0)
    entry = struct.pack(">I4sI", 12 + len(alias), b"alis", 0) + alias
    start = data.index(b"dref") + 12  # after version, flags and the number of entries
    end = start + int.from_bytes(data[start : start + 4])
    changed = bytearray(data[:start] + entry + data[end:])
    for box in (b"moov", b"trak", b"mdia", b"minf", b"dinf", b"dref"):
        at = data.index(box) - 4
        size = int.from_bytes(data[at : at + 4]) + len(entry) - (end - start)
        changed[at : at + 4] = size.to_bytes(4)
    return bytes(changed)


def test_a_quicktime_file_that_points_elsewhere_is_not_followed(fifo: Fifo, monkeypatch: pytest.MonkeyPatch) -> None:
    sound = with_external_sound(fifo.path)
    assert not fifo.was_opened_during(Upload(sound, "sound.mov"))
    following = {"enable_drefs": "1", "use_absolute_path": "1"}
    monkeypatch.setattr(decoding, "OPEN_OPTIONS", {**decoding.OPEN_OPTIONS, **following})
    assert not fifo.was_opened_during(Upload(sound, "sound.mov"))
    monkeypatch.setattr(decoding, "OPEN_OPTIONS", {"protocol_whitelist": "file", **following})
    assert fifo.was_opened_during(Upload(sound, "sound.mov"))


def test_an_image_sequence_by_name_is_not_looked_for() -> None:
    with pytest.raises(UndecodableAudio):
        decode(Upload(b"\x89PNG\r\n\x1a\n" + bytes(100), "frame%03d.png"), max_seconds=10)
