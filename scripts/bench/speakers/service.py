"""Measures a served model with speakers: what they cost many callers, and a call of two channels.

    python -m scripts.bench.speakers.service callers             # with and without speakers, and a diarizer
    python -m scripts.bench.speakers.service channels            # half an hour, against the channels sent apart

The conversations are of espeak-ng's and flite's voices, which have to be installed. Times are the processor's, of all
processes of the server together: other work on the machine changes them little.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import soundfile

from parakeet_stt.audio import Samples
from scripts.bench.long import watch_memory
from scripts.bench.serving import describe, memory_mb, processor_seconds, read_health, serve, wait_until_ready
from scripts.bench.speakers.talks import make_mixer, make_talk
from scripts.train.diarizer.conversations import Mixer
from scripts.train.tiny_corpus import SAMPLE_RATE

TIMEOUT = 3600


def to_flac(samples: Samples) -> bytes:
    """Samples of shape (count,) or (count, channels) as a file."""
    file = io.BytesIO()
    soundfile.write(file, samples, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    return file.getvalue()


def ask(url: str, file: bytes, **fields: Any) -> list[dict[str, Any]]:
    """The words of a file."""
    data = {"model": "whisper-1", "response_format": "verbose_json", "timestamp_granularities[]": "word", **fields}
    answer = httpx.post(f"{url}/v1/audio/transcriptions", data=data, files={"file": file}, timeout=TIMEOUT)
    words: list[dict[str, Any]] = answer.raise_for_status().json()["words"]
    return words


@contextmanager
def served(model: str | None, diarizer: str | None) -> Iterator[str]:
    """A server that has answered once."""
    with serve(None, model, changes={"STT_DIARIZER": diarizer} if diarizer else None) as url:
        wait_until_ready(url)
        print(describe(read_health(url)), "with", diarizer or "no diarizer", flush=True)
        yield url


def measure_callers(given: argparse.Namespace) -> None:
    """Processor time for a second of audio, and memory: of a server without a diarizer, and with one."""
    mixer = make_mixer(given.work, held_out=True, seed=47)
    file = to_flac(make_talk(mixer, given.seconds, 2).samples)
    for diarizer in (None, given.diarizer):
        with served(given.model, diarizer) as url:
            ask(url, file)
            print(f"{memory_mb():.0f} MB before")
            for callers in given.callers:
                for speakers in (False, True) if diarizer else (False,):
                    _measure_load(url, file, callers, speakers, given)


def _measure_load(url: str, file: bytes, callers: int, speakers: bool, given: argparse.Namespace) -> None:
    fields = {"speakers": "true"} if speakers else {}
    requests = max(callers, given.requests)
    began = processor_seconds()
    with watch_memory() as peak, ThreadPoolExecutor(callers) as pool:
        answers = list(pool.map(lambda _: ask(url, file, **fields), range(requests)))
    spent = processor_seconds() - began
    assert all(len(words) == len(answers[0]) for words in answers)
    print(
        f"{callers} callers, {'with' if speakers else 'without'} speakers: "
        f"{1000 * spent / (requests * given.seconds):.1f} ms of processor time for a second of audio; "
        f"peak {peak[0]:.0f} MB; {memory_mb():.0f} MB after",
        flush=True,
    )


def measure_channels(given: argparse.Namespace) -> None:
    """A call whose channels both speak all the time: words of each side against those of the channel sent alone."""
    mixer = make_mixer(given.work, held_out=True, seed=57)
    with served(given.model, None) as url:
        for minutes in (given.minutes / 10, given.minutes):
            sides = [_monologue(mixer, 60 * minutes) for _ in range(2)]
            alone = [ask(url, to_flac(side)) for side in sides]
            with watch_memory() as peak:
                words = ask(url, to_flac(np.stack(sides, 1)), channels="separate")
            for label, expected in zip("AB", alone, strict=True):
                found = [_key(word) for word in words if word["speaker"] == label]
                lost = len(set(map(_key, expected)) - set(found))
                added = len(set(found) - set(map(_key, expected)))
                print(f"{minutes:g} minutes, speaker {label}: {len(expected)} words, {lost} lost, {added} others")
            print(f"peak of the server's memory {peak[0]:.0f} MB", flush=True)


def _key(word: dict[str, Any]) -> tuple[str, float, float]:
    return word["word"], word["start"], word["end"]


def _monologue(mixer: Mixer, seconds: float) -> Samples:
    return mixer.mix(seconds, mixer.choose_speakers(1)).samples


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("callers", "channels"))
    parser.add_argument("--model", help="a catalogue name, path or store tag; the bundled model unless given")
    parser.add_argument("--diarizer", default="sortformer-tiny", help="a catalogue name, path or store tag")
    parser.add_argument("--work", type=Path, default=Path("build/tiny-diarizer"), help="where voices go")
    parser.add_argument("--callers", type=int, nargs="*", default=[1, 64])
    parser.add_argument("--requests", type=int, default=8, help="at least so many, of each load")
    parser.add_argument("--seconds", type=float, default=30.0, help="of each caller's talk")
    parser.add_argument("--minutes", type=float, default=30.0, help="of the call; one of a tenth goes before")
    given = parser.parse_args()
    {"callers": measure_callers, "channels": measure_channels}[given.what](given)


if __name__ == "__main__":
    main()
