"""What is not a media file of ours opens nothing, connects to no address, and is refused with the reason."""

from __future__ import annotations

import io
import os
import socket
import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import av
import numpy as np
import pytest
from av.audio.stream import AudioStream
from av.codec import Codec

from parakeet_stt.engines.resampling_filters import make_filter
from parakeet_stt.errors import AudioError, UndecodableAudio
from parakeet_stt.media import demux as decoding
from parakeet_stt.media.demux import decode
from tests.media.tones import decoded, media, refusal

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


@pytest.mark.parametrize(
    ("container", "codec"), [("mov", "pcm_s16le"), ("mp4", "aac"), ("matroska", "pcm_s16le"), ("mpegts", "mp2")]
)
@pytest.mark.parametrize("tracks", [32, 33, 40])
def test_a_file_of_too_many_tracks_is_refused_with_the_reason(container: str, codec: str, tracks: int) -> None:
    """FFmpeg took 330 MB for the 500 in a file of 2 MB."""
    out = io.BytesIO()
    with av.open(out, "w", format=container) as file:
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4608), np.int16), format="s16", layout="mono")
        frame.sample_rate = 16_000
        for track in [file.add_stream(codec, rate=16_000, layout="mono") for _ in range(tracks)]:
            assert isinstance(track, AudioStream)
            file.mux(track.encode(frame))
            file.mux(track.encode(None))
    if tracks <= 32:
        assert decoded(out.getvalue()).length >= 4096
    else:
        assert "more than 32 tracks" in refusal(out.getvalue())


def test_pictures_are_never_decoded() -> None:
    """FFmpeg would decode some to learn about the track, and one of 8000 x 8000 points takes 150 MB."""
    av.logging.set_level(av.logging.ERROR)
    try:
        with av.logging.Capture() as lines:
            decoded(media("mp4", "aac", 48_000, video="libx264"))
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
        was_opened = False
        with ThreadPoolExecutor(1) as pool:
            decoded = pool.submit(decode, upload, max_seconds=10, make_filter=make_filter)
            while not decoded.done():
                try:
                    os.close(os.open(self.path, os.O_WRONLY | os.O_NONBLOCK))
                    was_opened = True
                except OSError:
                    continue
        assert isinstance(decoded.exception(), AudioError | None)
        return was_opened


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
        decoded = pool.submit(decode, upload, max_seconds=10, make_filter=make_filter)
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
        decode(Upload(b"\x89PNG\r\n\x1a\n" + bytes(100), "frame%03d.png"), max_seconds=10, make_filter=make_filter)
