"""Reads recordings and cuts them into utterances: our media workers decode, in processes of their own."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from parakeet_stt.audio import SAMPLE_RATE
from parakeet_stt.bulk.entries import Entry, find_filesystem
from parakeet_stt.bulk.parts import End, Failure, Part
from parakeet_stt.bulk.settings import BulkSettings
from parakeet_stt.errors import SpeechError, first_line
from parakeet_stt.ipc.shared_audio import SharedAudio, SharedClip
from parakeet_stt.media.filters import is_made, save_filter
from parakeet_stt.media.pool import MediaReader, MediaSettings, WorkerPool
from parakeet_stt.offline.utterances import Utterance, Utterances, read_utterances
from parakeet_stt.processes.supervisor import KEEP_MEMORY, ONE_THREAD, Program, Supervisor
from parakeet_stt.vad import WINDOW_SAMPLES, Probabilities

MEDIA_MODULE = "parakeet_stt.processes.media"
PASSED_ON = (
    "LANG",
    "LD_LIBRARY_PATH",
    "PATH",
    "PYTHONPATH",
    "TMPDIR",
)  # a process that reads untrusted files gets no keys
PART_SECONDS = 240.0  # of utterances in a part, at least, unless the recording ends: 15 MB
COPIED_BYTES = 1 << 20
MakeFilter = Callable[[int], npt.NDArray[np.float32]]


class Reader:
    """Reads one recording after another. Has a media program of its own; close it."""

    def __init__(
        self, settings: BulkSettings, *, make_filter: MakeFilter, environment: Mapping[str, str] = os.environ
    ) -> None:
        """make_filter: the resampling filter for a rate in Hz; called once a rate."""
        self._settings = settings
        self._closing = ExitStack()
        self._folder = Path(self._closing.enter_context(tempfile.TemporaryDirectory(prefix="parakeet-bulk-")))
        own = {name: environment[name] for name in PASSED_ON if name in environment}
        path = self._folder / "media.sock"
        program = Program(
            "the media program", MEDIA_MODULE, [str(path), "--detect"], {**own, **KEEP_MEMORY, **ONE_THREAD}
        )
        self._loop = self._closing.enter_context(closing(asyncio.new_event_loop()))
        supervisor = self._closing.enter_context(closing(Supervisor([program], self._fail)))
        self._pool = self._closing.enter_context(closing(WorkerPool(path, computing=1)))
        self._failure = ""
        supervisor.start()

        async def make(rate: int) -> None:
            if not is_made(self._folder, rate):
                save_filter(self._folder, rate, make_filter)

        self._media = MediaSettings(settings.max_audio_seconds, self._folder, make, on_crash=lambda: None)

    def close(self) -> None:
        """End its processes."""
        self._closing.close()

    def read(self, entry: Entry) -> Iterator[Part]:
        """The parts of a recording, as they are read; the last one has its end, or its failure.

        Raises RuntimeError if the media program can't be kept running.
        """
        number = 0
        try:
            with open_entry(entry) as file:
                for part in self._cut(entry, file):
                    yield part
                    number += 1
        except SpeechError as exc:
            yield Part(entry, number, failure=Failure(getattr(exc, "code", "server_error"), exc.message))
        except Exception as exc:  # what file systems raise of network, rights and names
            kind, said = type(exc).__name__, first_line(exc)
            reason = kind if said == kind else f"{kind}: {said}"
            yield Part(entry, number, failure=Failure("unreadable", f"The file can't be read: {reason}"))
        if self._failure:
            raise RuntimeError(self._failure)

    def _cut(self, entry: Entry, file: BinaryIO) -> Iterator[Part]:
        with closing(SharedAudio()) as audio:
            reader = MediaReader(file.fileno(), audio, self._pool, self._media)
            with closing(reader):
                utterances = Utterances(audio, rules=self._settings.rules, longest=self._settings.max_utterance_seconds)
                read: list[Probabilities] = []
                taken: list[Utterance] = []
                number = 0
                for utterance in read_utterances(utterances, self._blocks(reader, entry, read)):
                    assert isinstance(utterance.audio, SharedClip)
                    taken.append(replace(utterance, audio=utterance.audio.load()))
                    if sum(one.audio.duration for one in taken) >= PART_SECONDS:
                        yield Part(entry, number, tuple(taken), _join(read))
                        number += 1
                        taken.clear()
                        read.clear()
                end = End(utterances.duration, reader.is_truncated)
                yield Part(entry, number, tuple(taken), _join(read), end)

    def _blocks(self, reader: MediaReader, entry: Entry, read: list[Probabilities]) -> Iterator[Probabilities]:
        """The probabilities of each block; without speech outside of the part that the entry names."""
        blocks = reader.blocks()
        first = int(entry.offset * SAMPLE_RATE) // WINDOW_SAMPLES
        last = (
            None if entry.duration is None else -(-int((entry.offset + entry.duration) * SAMPLE_RATE) // WINDOW_SAMPLES)
        )
        place = 0
        while (found := self._loop.run_until_complete(_next(blocks))) is not None:
            windows = np.arange(place, place + len(found))
            place += len(found)
            if first or last is not None:
                found = np.where((windows >= first) & (windows < (last or place)), found, np.float32(0))
            read.append(found)
            yield found
            if last is not None and place >= last:
                return

    def _fail(self, reason: str) -> None:
        self._failure = reason


@contextmanager
def open_entry(entry: Entry) -> Iterator[BinaryIO]:
    """A recording's file, with a descriptor: one that is elsewhere is copied to a temporary file."""
    if entry.content is None and "://" not in entry.address:
        with open(entry.address, "rb") as file:
            yield file
        return
    with tempfile.TemporaryFile() as copy:
        if entry.content is not None:
            copy.write(entry.content)
        else:
            system, path = find_filesystem(entry.address)
            with system.open_input_stream(path) as remote:
                shutil.copyfileobj(remote, copy, COPIED_BYTES)
        copy.flush()
        yield copy


async def _next(blocks: object) -> Probabilities | None:
    found: Probabilities | None = await anext(blocks, None)  # type: ignore[call-overload]
    return found


def _join(read: list[Probabilities]) -> Probabilities:
    return np.concatenate([np.zeros(0, np.float32), *read])
