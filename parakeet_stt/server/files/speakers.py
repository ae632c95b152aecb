"""What a caller may ask about speakers: channels, and references of known speakers, which media workers decode."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from parakeet_stt.audio import SAMPLE_RATE
from parakeet_stt.device.client import RecordingQueue
from parakeet_stt.errors import AudioError, InvalidField, UnsupportedField
from parakeet_stt.ipc.shared_audio import SharedAudio, SharedClip
from parakeet_stt.media.pool import MediaReader, MediaSettings, WorkerPool
from parakeet_stt.offline.diarization import PAUSE_SAMPLES
from parakeet_stt.offline.transcription import KnownSpeaker, TranscriptionOptions
from parakeet_stt.protocols import FRAME_SAMPLES
from parakeet_stt.server.files.uploads import MemoryFile
from parakeet_stt.server.model import ServedModel

CHANNELS = ("mixed", "separate")
KNOWN_NAMES, KNOWN_REFERENCES = "known_speaker_names", "known_speaker_references"
MAX_KNOWN, REFERENCE_SECONDS = 4, (2, 10)  # OpenAI's
MAX_NAME_CHARACTERS = 100
TOLERANCE_SECONDS = 0.1  # codecs add and cut frames
DATA_URL = re.compile(r"data:[^,;]*(?:;[^,;]+)*?;base64,", re.ASCII)


def parse_channels(value: str | None) -> bool:
    """Whether channels are to be transcribed apart. Raises InvalidField."""
    value = value or "mixed"
    if value not in CHANNELS:
        raise InvalidField(f"channels: {value!r} is not one of {', '.join(CHANNELS)}", param="channels")
    return value == "separate"


def parse_known(names: Sequence[str], references: Sequence[str]) -> tuple[KnownSpeaker, ...]:
    """The known speakers. Raises InvalidField for too many, for names without references, for what is no data URL."""
    for param, values in ((KNOWN_NAMES, names), (KNOWN_REFERENCES, references)):
        if len(values) > MAX_KNOWN:
            raise InvalidField(f"{param}: at most {MAX_KNOWN}, not {len(values)}", param=param)
    if len(names) != len(references):
        param = KNOWN_NAMES if len(names) > len(references) else KNOWN_REFERENCES
        raise InvalidField(
            f"{param}: each name needs a reference, and each reference a name; there are {len(names)} names and "
            f"{len(references)} references",
            param=param,
        )
    for name in names:
        if not name.strip() or len(name) > MAX_NAME_CHARACTERS or not name.isprintable():
            raise InvalidField(
                f"{KNOWN_NAMES}: a name has 1 to {MAX_NAME_CHARACTERS} printable characters, not as {name[:20]!r}",
                param=KNOWN_NAMES,
            )
    if len(set(names)) < len(names):
        raise InvalidField(f"{KNOWN_NAMES}: the names have to differ", param=KNOWN_NAMES)
    return tuple(map(KnownSpeaker, names, map(_read_data_url, references)))


def check_speakers(options: TranscriptionOptions, model: ServedModel, *, param: str = "speakers") -> None:
    """Raise RequestError if the speakers can't be told as asked. param: the field that asks for them."""
    if options.known and not options.speakers:
        raise InvalidField(
            f"{KNOWN_NAMES}: they have an effect with response_format=diarized_json or speakers=true only",
            param=KNOWN_NAMES,
        )
    if options.known and options.separate_channels:
        raise InvalidField(f"{KNOWN_NAMES}: with channels=separate each channel is a speaker", param=KNOWN_NAMES)
    if options.speakers and not options.separate_channels and not model.tells_speakers:
        value = "diarized_json" if param == "response_format" else "true"
        raise UnsupportedField(
            f"{param}: {value} needs a speaker model, and none is served here (STT_DIARIZER); where each speaker has a "
            "channel, channels=separate tells them apart without one",
            param=param,
        )


class ReferenceReader:
    """Decodes references of known speakers, as recordings are: by media workers, under limits."""

    def __init__(self, workers: WorkerPool, media: MediaSettings) -> None:
        """media: of recordings; references have limits of their own."""
        self._workers = workers
        self._media = MediaSettings(
            REFERENCE_SECONDS[1] + TOLERANCE_SECONDS, media.filters, media.make_filter, media.on_crash
        )

    @asynccontextmanager
    async def read(
        self, known: KnownSpeaker, queue: RecordingQueue
    ) -> AsyncIterator[tuple[SharedClip, RecordingQueue]]:
        """A reference in shared memory, with silence after it, and the queue that takes it, while the context lasts.

        Raises InvalidField.
        """
        async with AsyncExitStack() as closing:
            file = closing.enter_context(MemoryFile())
            file.write(known.reference)
            audio = SharedAudio()
            closing.callback(audio.close)
            reader = MediaReader(file.fileno(), audio, self._workers, self._media)
            closing.callback(reader.close)
            try:
                async for _ in reader.blocks():
                    pass
            except AudioError as exc:
                raise _refuse(known, exc.message) from None
            if audio.length < (REFERENCE_SECONDS[0] - TOLERANCE_SECONDS) * SAMPLE_RATE:
                shortest, longest = REFERENCE_SECONDS
                seconds = audio.length / SAMPLE_RATE
                raise _refuse(known, f"it has {seconds:.1f} s, and {shortest} to {longest} s are needed")
            # What lies after the end of shared memory reads as silence.
            audio.extend(-audio.length % FRAME_SAMPLES + PAUSE_SAMPLES)
            yield audio.clip(0, audio.length), closing.enter_context(queue.beside(audio))


def _refuse(known: KnownSpeaker, reason: str) -> InvalidField:
    return InvalidField(f"{KNOWN_REFERENCES}: that of {known.name!r} can't be used: {reason}", param=KNOWN_REFERENCES)


def _read_data_url(text: str) -> bytes:
    match = DATA_URL.match(text)
    try:
        data = base64.b64decode(text[match.end() :], validate=True) if match else b""
    except binascii.Error:
        data = b""
    if not data:
        raise InvalidField(
            f"{KNOWN_REFERENCES}: a data URL such as data:audio/wav;base64,… is expected, not {text[:40]!r}",
            param=KNOWN_REFERENCES,
        )
    return data
