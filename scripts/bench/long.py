"""Measures how long recordings are transcribed: words at cuts, word times, memory, speed, and audio without speech.

    apt-get install espeak-ng flite
    python -m scripts.bench.long [--only pauses no-pauses hours nothing] [--scale 0.1]

The recordings are assembled from sentences of the synthetic test set, whose words and times are known, and go to a
served model over HTTP. Two of them are compared with the same sentences transcribed one by one: two hours with pauses
of 0.15 to 3 s, and half an hour in stretches of 90 s without any pause. Prints what is measured, then one JSON line.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import cycle, islice, pairwise, takewhile
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
import psutil  # type: ignore[import-untyped]
import soundfile

from parakeet_stt.detector_stream import DetectorStream
from parakeet_stt.engines.silero_onnx import OnnxDetector
from parakeet_stt.measure.normalizers import split_plain
from parakeet_stt.measure.word_errors import NOTHING, count_errors
from parakeet_stt.measure.word_errors import align as align_words
from parakeet_stt.offline.utterances import cut_blocks
from parakeet_stt.offline.vad_segments import SpeechRules
from scripts.bench.serving import add_server_arguments, read_counters, serve, wait_until_ready
from scripts.bench.synthetic_speech import FLITE_SHARE, synthesize_sentences
from scripts.train.tiny_corpus import SAMPLE_RATE, Speech, cut_pauses

PARTS = ("pauses", "no-pauses", "hours", "nothing")
STRETCH_SECONDS = 90.0
STRETCH_SENTENCES = 31  # without pauses: about such a stretch
# Mean length of a sentence, with a pause after it or without any pause.
PAUSED_SENTENCE_SECONDS, BARE_SENTENCE_SECONDS = 4.6, 2.9
PAUSES = (0.15, 3.0)  # shortest and longest, in seconds
NEAR_SECONDS = 1.0
# Recordings of ten minutes before those that are measured, and as many that are measured. The server's memory grows
# with each batch of a shape that it has not had before, because oneDNN and the allocator keep something of it. Of those
# measured, the median time and the highest peak count: one recording has too few batches to include the largest.
WARM_UP_RECORDINGS = 12
ENDS_SECONDS = 600.0  # the first and the last ten minutes
Pcm = npt.NDArray[np.int16]


@dataclass
class Said:
    """A word, and when it is said; None where the synthesizer does not give the time."""

    text: str
    start: float | None = None
    end: float | None = None


@dataclass
class Stretch:
    """Sentences without a longer pause between them. start, end: seconds."""

    start: float
    end: float = 0.0
    words: list[Said] = field(default_factory=list)


Pair = tuple[Said | None, dict[str, Any] | None]  # a word that was said, and the word that was found for it


def list_said(speech: Speech, start: float) -> list[Said]:
    """The words of a clip that begins at `start`, with the times that the synthesizer gives."""
    words = [Said(word) for word in split_plain(speech.text)]
    at = 0
    for truth in speech.words:
        text = _plain(truth.word)
        index = next((i for i in range(at, len(words)) if words[i].text == text), None)
        if index is not None:
            words[index].start, words[index].end = start + truth.start, start + truth.end
            at = index + 1
    return words


def assemble(sentences: Iterable[Speech], path: Path, *, pauses: tuple[float, float] | None) -> list[Stretch]:
    """Write a flac file of the sentences, with pauses of random length between them.

    pauses: in seconds; None for stretches of `STRETCH_SECONDS` without any, and 3 s between those.
    """
    pick = random.Random(5)
    stretches: list[Stretch] = []
    at = 0
    with soundfile.SoundFile(path, "w", SAMPLE_RATE, 1, "PCM_16") as file:

        def write(samples: Pcm) -> None:
            nonlocal at
            file.write(samples)
            at += len(samples)

        current: Stretch | None = None
        for speech in sentences:
            if current is None:
                current = Stretch(at / SAMPLE_RATE)
                stretches.append(current)
            current.words += list_said(speech, at / SAMPLE_RATE) if pauses else map(Said, split_plain(speech.text))
            write(speech.samples if pauses else cut_pauses(speech.samples))
            current.end = at / SAMPLE_RATE
            pause = pick.uniform(*pauses) if pauses else 3.0 * (current.end - current.start >= STRETCH_SECONDS)
            write(np.zeros(int(pause * SAMPLE_RATE), np.int16))
            if pause > 1.5 and current.end - current.start > 30:
                current = None
    return stretches


def transcribe(url: str, name: str, file: Any) -> dict[str, Any]:
    """The server's transcription in verbose_json with words. file: bytes or an open file."""
    form = {"model": "whisper-1", "response_format": "verbose_json", "timestamp_granularities[]": "word"}
    answer = httpx.post(f"{url}/v1/audio/transcriptions", files={"file": (name, file)}, data=form, timeout=None)
    answer.raise_for_status()
    body: dict[str, Any] = answer.json()
    return body


def count_errors_one_by_one(url: str, clips: list[tuple[Pcm, str]]) -> int:
    """Word errors if each sentence is a recording of its own."""

    def count(clip: tuple[Pcm, str]) -> int:
        out = io.BytesIO()
        soundfile.write(out, clip[0], SAMPLE_RATE, format="WAV")
        return count_errors(split_plain(clip[1]), split_plain(transcribe(url, "a.wav", out.getvalue())["text"])).total

    with ThreadPoolExecutor(8) as pool:
        return sum(pool.map(count, clips))


def align(stretches: list[Stretch], words: list[dict[str, Any]]) -> Iterator[Pair]:
    """Each word that was said beside the word that was found, stretch by stretch; None where one of them is missing."""
    edges = [(one.end + following.start) / 2 for one, following in pairwise(stretches)]
    rest = iter([*words, {"word": "", "start": float("inf"), "end": float("inf")}])
    word = next(rest)
    for stretch, edge in zip(stretches, [*edges, float("inf")], strict=True):
        inside: list[dict[str, Any]] = []
        while word["start"] < edge:
            inside.append(word)
            word = next(rest)
        texts = [_plain(one["word"]) or "?" for one in inside]
        said, found = iter(stretch.words), iter(inside)
        for truth, text in align_words([one.text for one in stretch.words], texts):
            yield next(said) if truth != NOTHING else None, next(found) if text != NOTHING else None


def find_cuts(path: Path) -> list[float]:
    """Where speech is cut without a pause, in seconds."""
    blocks = soundfile.blocks(path, SAMPLE_RATE * 10, dtype="float32")
    utterances = cut_blocks(blocks, DetectorStream(OnnxDetector()), rules=SpeechRules(), longest=24.0)
    return [one.end - one.overlap / 2 for one in utterances if one.overlap]


def compare(
    url: str, folder: Path, *, hours: float, pauses: tuple[float, float] | None, sentences_per_voice: int = 1
) -> dict[str, Any]:
    """The word errors of one long recording, and those of its sentences one by one."""
    mean = PAUSED_SENTENCE_SECONDS if pauses else BARE_SENTENCE_SECONDS
    sentences = synthesize_sentences(int(hours * 3600 / mean), FLITE_SHARE, sentences_per_voice)
    path = folder / "long.flac"
    stretches = assemble(sentences, path, pauses=pauses)
    count = sum(len(stretch.words) for stretch in stretches)
    before = read_counters(url)
    with path.open("rb") as file:
        body = transcribe(url, path.name, file)
    retries = {
        name: value - before.get(name, 0) for name, value in read_counters(url).items() if "retries_total" in name
    }
    cuts = find_cuts(path)
    errors, lost, invented, near, at = 0, 0, 0, 0, 0.0
    for truth, found in align(stretches, body["words"]):
        at = found["start"] if found else at
        if not _is_right(truth, found):
            errors += 1
            lost += found is None
            invented += truth is None
            near += any(abs(at - cut) <= NEAR_SECONDS for cut in cuts)
    alone = count_errors_one_by_one(url, [(s.samples, s.text) for s in sentences])
    row = {
        "seconds": round(body["duration"]),
        "words": count,
        "wer_percent": round(100 * errors / count, 2),
        "one_by_one_percent": round(100 * alone / count, 2),
        "lost": lost,
        "invented": invented,
        "cuts_without_a_pause": len(cuts),
        "errors_within_1_s_of_those": near,
        "retries": retries,
    }
    if pauses is None:
        bare = count_errors_one_by_one(url, [(cut_pauses(s.samples), s.text) for s in sentences])
        row["one_by_one_without_their_pauses_percent"] = round(100 * bare / count, 2)
    return row


def _is_right(truth: Said | None, found: dict[str, Any] | None) -> bool:
    return truth is not None and found is not None and truth.text == _plain(found["word"])


def _plain(word: str) -> str:
    return "".join(split_plain(word))


def repeat_sentences(sentences: list[Speech], seconds: float) -> Iterator[Speech]:
    """The sentences, repeated until they last so long with the pauses between them, 1.575 s in the mean."""
    mean = sum(len(speech.samples) for speech in sentences) / len(sentences) / SAMPLE_RATE + sum(PAUSES) / 2
    return islice(cycle(sentences), round(seconds / mean))


def measure_times(stretches: list[Stretch], words: list[dict[str, Any]], start: float, end: float) -> dict[str, float]:
    """Median errors of word times, in ms, of the words that were said between `start` and `end`, in seconds."""
    stretches = [one for one in stretches if start <= one.start and one.end <= end]
    words = list(takewhile(lambda w: w["start"] < end + 2, (w for w in words if w["start"] > start - 2)))
    errors = [
        (abs(found["start"] - truth.start), abs(found["end"] - truth.end))
        for truth, found in align(stretches, words)
        if truth and found and _is_right(truth, found) and truth.start is not None and truth.end is not None
    ]
    return {
        "words": len(errors),
        "start_median_ms": round(1000 * median(error[0] for error in errors)),
        "end_median_ms": round(1000 * median(error[1] for error in errors)),
    }


@contextmanager
def watch_memory() -> Iterator[list[float]]:
    """The peak of the memory of all processes of the server together, in MB, as the one value of a list.

    Read twenty times a second while the context lasts.
    """
    peak = [0.0]
    is_over = threading.Event()

    def watch() -> None:
        while not is_over.wait(0.05):
            used = 0
            for process in psutil.Process().children(recursive=True):
                try:
                    used += process.memory_info().rss
                except psutil.NoSuchProcess:
                    continue
            peak[0] = max(peak[0], used / 1e6)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield peak
    finally:
        is_over.set()
        watcher.join()


def measure_recording(url: str, folder: Path, sentences: list[Speech], hours: float) -> dict[str, Any]:
    """One recording of so many hours: its time, the server's memory, and the errors of word times at both ends."""
    path = folder / "hours.flac"
    stretches = assemble(repeat_sentences(sentences, hours * 3600), path, pauses=PAUSES)
    before = read_counters(url)
    with path.open("rb") as file, watch_memory() as peak:
        began = time.monotonic()
        body = transcribe(url, path.name, file)
        seconds = time.monotonic() - began
    after = read_counters(url)
    duration = body["duration"]

    def share(name: str) -> float:
        return round((after[name] - before[name]) / seconds, 3)

    return {
        "hours": hours,
        "seconds": round(seconds, 1),
        "rtfx": round(duration / seconds, 1),
        "ms_for_a_second": round(1000 * seconds / duration, 3),
        "peak_mb": round(peak[0]),
        "words": len(body["words"]),
        "detector_share": share("stt_detect_seconds_sum"),
        "device_share": share("stt_inference_seconds_sum"),
        "first_ten_minutes": measure_times(stretches, body["words"], 0, ENDS_SECONDS),
        "last_ten_minutes": measure_times(stretches, body["words"], duration - ENDS_SECONDS, duration),
    }


def measure_nothing(url: str, folder: Path, minutes: float) -> dict[str, Any]:
    """The text that is found in audio without speech, and the speed."""
    count = int(minutes * 60 * SAMPLE_RATE)
    noise = np.random.default_rng(3)
    white = noise.standard_normal(count, np.float32)
    seconds = np.arange(count, dtype=np.float32) / SAMPLE_RATE
    spectrum = np.fft.rfft(white)
    spectrum /= np.sqrt(np.maximum(np.arange(len(spectrum)), 1))
    pink = np.fft.irfft(spectrum, count).astype(np.float32)
    chord = sum(np.sin(2 * np.pi * hz * seconds) for hz in (220.0, 277.2, 329.6))
    sounds: dict[str, Any] = {
        "digital silence": np.zeros(count, np.float32),
        "white noise": 0.1 * white,
        "pink noise": 0.1 * pink / pink.std(),
        "a 50 Hz hum": 0.3 * np.sin(2 * np.pi * 50 * seconds),
        "a chord, struck twice a second": 0.2 * chord * np.exp(-4 * (seconds % 0.5)),
    }
    rows = {}
    for name, sound in sounds.items():
        path = folder / "nothing.flac"
        soundfile.write(path, np.clip(sound, -1, 1), SAMPLE_RATE)
        began = time.monotonic()
        with path.open("rb") as file:
            body = transcribe(url, path.name, file)
        rows[name] = {"text": body["text"], "rtfx": round(minutes * 60 / (time.monotonic() - began))}
    return rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_server_arguments(parser)
    parser.add_argument("--only", choices=PARTS, nargs="*", default=PARTS)
    parser.add_argument("--scale", type=float, default=1.0, help="of all lengths but the recordings of ten minutes")
    arguments = parser.parse_args()
    scale = arguments.scale
    results: dict[str, Any] = {}
    with serve(arguments.url, arguments.model) as url, tempfile.TemporaryDirectory() as name:
        wait_until_ready(url)
        folder = Path(name)

        def show(part: str, row: dict[str, Any]) -> None:
            results[part] = row
            print(part, json.dumps(row, indent=1), flush=True)

        if "pauses" in arguments.only:
            show("pauses of 0.15 to 3 s", compare(url, folder, hours=2 * scale, pauses=PAUSES))
        if "no-pauses" in arguments.only:
            for count, voices in ((STRETCH_SENTENCES, "one voice at a time"), (1, "another voice in each sentence")):
                row = compare(url, folder, hours=0.5 * scale, pauses=None, sentences_per_voice=count)
                show(f"no pauses for 90 s, {voices}", row)
        if "hours" in arguments.only:
            sentences = synthesize_sentences(1000, 0.0)
            short = []
            for number in range(2 * WARM_UP_RECORDINGS):
                others = sentences[number * 70 :] + sentences[: number * 70]
                short.append(measure_recording(url, folder, others, 1 / 6))
            short = sorted(short[WARM_UP_RECORDINGS:], key=lambda row: float(row["seconds"]))
            show("ten minutes", {**short[len(short) // 2], "peak_mb": max(row["peak_mb"] for row in short)})
            show(f"{10 * scale:.2g} hours", measure_recording(url, folder, sentences, 10 * scale))
        if "nothing" in arguments.only:
            show("audio without speech", measure_nothing(url, folder, 60 * scale))
    print(json.dumps(results))


if __name__ == "__main__":
    main()
