"""Whatever people upload becomes the sound that is in it; whatever is not a media file opens nothing and says why."""

from __future__ import annotations

import io
import tempfile
from concurrent.futures import ThreadPoolExecutor
from typing import BinaryIO, cast

import av
import numpy as np
import pytest
from av.stream import Disposition

from parakeet_stt.audio import Audio
from parakeet_stt.engines.resampling_filters import make_filter
from parakeet_stt.errors import AudioTooLong, AudioTooShort
from parakeet_stt.media import demux as decoding
from parakeet_stt.media.demux import decode
from tests.media.tones import (
    HZ,
    LEVEL,
    assert_tone,
    decoded,
    is_truncated,
    level,
    media,
    pcm,
    pitch,
    refusal,
    tone,
    wav,
)

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
    assert_tone(decoded(media(container, codec, rate, layout)))


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
    assert_tone(decoded(media(container, codec, 48_000, "stereo", video=video)))


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
    assert_tone(decoded(out.getvalue()))


def test_rf64_and_fragmented_mp4_are_read() -> None:
    assert_tone(decoded(media("wav", "pcm_s16le", options={"rf64": "always"})))
    assert_tone(decoded(media("mp4", "aac", 44_100, options={"movflags": "frag_keyframe+empty_moov"})))


@pytest.mark.parametrize("channels", [1, 2, 3, 7, 8, 9, 12, 16, 64])
def test_any_number_of_channels_without_a_layout_is_mixed_down(channels: int) -> None:
    """PyAV crashes the process on planar frames of 8 channels or more."""
    interleaved = np.repeat(tone(2, 16_000), channels)
    assert_tone(decoded(wav(pcm(interleaved), channels=channels)))


@pytest.mark.parametrize("rate", [5512, 7999, 11_025, 22_255, 37_800, 44_056, 48_001, 192_000, 768_000])
def test_any_sample_rate_is_read(rate: int) -> None:
    assert_tone(decoded(wav(pcm(tone(2, rate)), rate=rate)))


@pytest.mark.parametrize("rate", [1, 3999, 768_001, 100_000_007, 2**31 - 1])
def test_a_sample_rate_that_nothing_records_at_is_refused(rate: int) -> None:
    assert refusal(wav(bytes(4_000_000), rate=rate)) == f"A sample rate of {rate} Hz is not supported."


def test_the_lowest_rate_counts_by_its_seconds_and_not_by_its_bytes() -> None:
    refusal(wav(bytes(2 * 4000 * 11), rate=4000), AudioTooLong, max_seconds=10)
    assert decoded(wav(bytes(2 * 4000 * 9), rate=4000), max_seconds=10).duration == 9


def test_channels_are_mixed_by_their_mean() -> None:
    left = tone(1, 16_000)
    opposed = np.stack([left, -left], 1).reshape(-1)
    one_sided = np.stack([left, 0 * left], 1).reshape(-1)
    assert np.abs(decoded(wav(pcm(opposed), channels=2)).samples).max() < 1e-4
    assert level(decoded(wav(pcm(one_sided), channels=2))) == pytest.approx(LEVEL / 2, rel=0.01)


def test_what_is_not_a_finite_number_becomes_silence() -> None:
    wave = tone(1, 16_000)
    wave[5000:5010] = np.nan
    wave[6000:6002] = np.inf, -np.inf
    samples = decoded(wav(wave.tobytes(), bits=32, kind=3)).samples
    assert np.all(np.isfinite(samples))
    assert not samples[5000:5010].any()
    assert not samples[6000:6002].any()


def test_float_samples_beyond_full_scale_are_clipped() -> None:
    assert np.abs(decoded(wav((tone(1, 48_000) * 10).tobytes(), rate=48_000, bits=32, kind=3)).samples).max() == 1


def test_the_sample_rate_and_the_channels_may_change_on_the_way() -> None:
    one, two, three = (
        media("mp3", "libmp3lame", rate, layout, options={"write_xing": "0", "id3v2_version": "0"})
        for rate, layout in ((44_100, "stereo"), (44_100, "mono"), (22_050, "mono"))
    )
    audio = decoded(one + two + three)
    assert audio.duration == pytest.approx(6, abs=0.3)
    assert pitch(audio) == pytest.approx(HZ, abs=0.5)
    for second in (0, 2, 4):
        assert level(Audio(audio.samples[second * 16_000 :][:32_000])) == pytest.approx(LEVEL, rel=0.1)


def test_text_in_no_encoding_does_not_matter() -> None:
    plain = media("flac", "flac")
    strange = plain.replace(b"encoder=Lavf", b"encoder=\xff\xfe\xfd\x80")
    assert strange != plain
    assert_tone(decoded(strange))


@pytest.mark.parametrize("memory_bytes", [1 << 20, 1])
def test_an_upload_may_lie_in_memory_or_on_disk(memory_bytes: int) -> None:
    """Starlette keeps an upload in a SpooledTemporaryFile."""
    with tempfile.SpooledTemporaryFile(memory_bytes) as file:
        file.write(media("ipod", "aac", 44_100))
        assert_tone(decode(cast(BinaryIO, file), max_seconds=10, make_filter=make_filter))


def test_several_threads_may_decode_at_once() -> None:
    data = media("mp3", "libmp3lame", 44_100, "stereo")
    with ThreadPoolExecutor(4) as pool:
        first, *others = pool.map(decoded, [data] * 8)
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
    audio = decoded(bytes(data))
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
    audio = decoded(data[: len(data) // 2])
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
    assert_tone(decoded(data))
    assert is_truncated(data) == (length == 1000 * 64_000)


def test_a_wav_header_that_promises_less_is_believed() -> None:
    assert decoded(wav(pcm(tone(2, 16_000)), length=32_000)).duration == 1


# Limits


def test_under_a_tenth_of_a_second_is_too_short() -> None:
    expected = "Audio file is too short. Minimum audio length is 0.1 seconds."
    assert refusal(wav(pcm(tone(0.099, 16_000))), AudioTooShort) == expected
    assert refusal(wav(pcm(tone(0.099, 48_000)), rate=48_000), AudioTooShort) == expected
    assert refusal(wav(b""), AudioTooShort) == expected
    assert decoded(wav(pcm(tone(0.1, 16_000)))).duration == 0.1
    assert decoded(wav(pcm(tone(0.1, 48_000)), rate=48_000)).duration == 0.1


def test_the_limit_itself_is_allowed_and_anything_over_it_is_not() -> None:
    data = wav(pcm(tone(2, 16_000)))
    assert decoded(data, max_seconds=2).duration == 2
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
        decode(file, max_seconds=10, make_filter=make_filter)
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
