"""Where live speech comes from: a microphone, or raw PCM on standard input. Both are int16, little-endian, mono."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections import deque
from contextlib import suppress
from typing import Any, Protocol

SAMPLE_BYTES = 2
PIECE_SECONDS = 0.04  # of sound in one message, as long as a microphone makes a client wait
WAITING_PIECES = 50  # of standard input, which is read no faster than it is sent
KEPT_SECONDS = 300  # of sound without final words, for another connection
USUAL_RATE = 16_000  # Hz, of the model


class NoSound(Exception):
    """There is no sound to be had; the message is one line that says what to do."""


class Sound(Protocol):
    """Pieces of sound. rate: in Hz."""

    rate: int

    def start(self) -> None:
        """Begin, in a running event loop. Raises NoSound."""

    def stop(self) -> None:
        """End: what has come so far is all."""

    async def read(self) -> bytes | None:
        """The next piece; None after the last one."""


class KeptSound:
    """What has been read of a sound and has no final words yet, so that another connection can send it again.

    At most `KEPT_SECONDS` of it: what is older goes.
    """

    def __init__(self, sound: Sound) -> None:
        self._sound = sound
        self._pieces: deque[bytes] = deque()
        self._first = 0  # where they begin, in bytes of all the sound
        self._end = 0
        self._is_over = False

    @property
    def first_seconds(self) -> float:
        """Where it begins, in seconds of all the sound."""
        return self._first / SAMPLE_BYTES / self._sound.rate

    def pieces(self) -> list[bytes]:
        """All of it, in pieces that can be sent."""
        return list(self._pieces)

    async def read(self) -> bytes | None:
        """The next piece of the sound, which is kept; None after the last one."""
        piece = None if self._is_over else await self._sound.read()
        if piece is None:
            self._is_over = True
            return None
        self._pieces.append(piece)
        self._end += len(piece)
        self._discard(self._end - KEPT_SECONDS * self._sound.rate * SAMPLE_BYTES)
        return piece

    def discard_before(self, seconds: float) -> None:
        """Nothing before this time of the sound is needed again."""
        self._discard(int(seconds * self._sound.rate) * SAMPLE_BYTES)

    def _discard(self, end: int) -> None:
        while self._pieces and self._first + len(self._pieces[0]) <= end:
            self._first += len(self._pieces.popleft())


class StandardInput:
    """Raw PCM from a pipe."""

    def __init__(self, rate: int) -> None:
        self.rate = rate
        self._pieces: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._room = threading.Semaphore(WAITING_PIECES)

    def start(self) -> None:
        # A daemon: it waits for as long as the pipe is open, and must not keep the command from ending.
        threading.Thread(target=self._read, args=(asyncio.get_running_loop(),), daemon=True).start()

    def stop(self) -> None:
        self._pieces.put_nowait(None)

    async def read(self) -> bytes | None:
        piece = await self._pieces.get()
        self._room.release()
        return piece

    def _read(self, loop: asyncio.AbstractEventLoop) -> None:
        size = int(PIECE_SECONDS * self.rate) * SAMPLE_BYTES
        # Not the buffered reader: Python can't end while a thread waits in that.
        source = getattr(sys.stdin.buffer, "raw", sys.stdin.buffer)
        piece: bytes | None = b" "
        with suppress(RuntimeError, ValueError):  # the loop has ended, or standard input is closed
            while piece:
                self._room.acquire()
                piece = source.read(size)
                loop.call_soon_threadsafe(self._pieces.put_nowait, piece or None)


class Microphone:
    """A microphone, by PortAudio."""

    def __init__(self, device: str | None) -> None:
        """device: its number, or a part of its name; None for the system's default. Raises NoSound."""
        self._sounddevice = load_sounddevice()
        self._device = int(device) if device and device.isdecimal() else device
        try:
            described = self._sounddevice.query_devices(self._device, "input")
            self.rate = self._choose_rate(int(described["default_samplerate"]))
        except (ValueError, self._sounddevice.PortAudioError) as exc:
            raise NoSound(f"no microphone ({exc}): `parakeet live --devices` lists what there is") from exc
        self._pieces: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._stream: Any = None

    def _choose_rate(self, usual: int) -> int:
        try:
            self._sounddevice.check_input_settings(self._device, channels=1, dtype="int16", samplerate=USUAL_RATE)
        except self._sounddevice.PortAudioError:
            return usual
        return USUAL_RATE

    def start(self) -> None:
        loop = asyncio.get_running_loop()

        def receive(data: Any, *_: object) -> None:  # in PortAudio's thread
            with suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(self._pieces.put_nowait, bytes(data))

        try:
            self._stream = self._sounddevice.RawInputStream(
                samplerate=self.rate, blocksize=int(PIECE_SECONDS * self.rate), device=self._device, channels=1,
                dtype="int16", callback=receive,
            )  # fmt: skip
            self._stream.start()
        except self._sounddevice.PortAudioError as exc:
            raise NoSound(f"the microphone can't be opened: {exc}") from exc

    def stop(self) -> None:
        if self._stream:
            self._stream.close()
        self._pieces.put_nowait(None)

    async def read(self) -> bytes | None:
        return await self._pieces.get()


def load_sounddevice() -> Any:
    """The library. Raises NoSound without it, or without PortAudio."""
    try:
        import sounddevice
    except ModuleNotFoundError as exc:
        raise NoSound(
            "sounddevice is not installed, and a microphone needs it: pip install 'parakeet-stt[microphone]'; or pipe "
            "sound in: ffmpeg … -ac 1 -ar 16000 -f s16le - | parakeet live -"
        ) from exc
    except OSError as exc:
        raise NoSound(f"a microphone needs PortAudio ({exc}): apt-get install libportaudio2") from exc
    return sounddevice
