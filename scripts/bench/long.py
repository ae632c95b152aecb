"""Knows what becomes of hours of audio: words at seams, times, memory, speed, and what is heard where nobody speaks.

    apt-get install espeak-ng flite && python -m scripts.bench.long

Recordings are assembled from the sentences of the synthetic test set, whose words and times are known, and go to a
served model over HTTP. Sentences, two hours with pauses from 0.15 to 3 s, and stretches of 90 s from which every pause
is cut are compared with the same sentences transcribed one by one. Prints what is measured, then one JSON line.
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
from multiprocessing import Pool
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import kaldialign
import numpy as np
import numpy.typing as npt
import psutil  # type: ignore[import-untyped]
import soundfile

from parakeet_stt.engines.silero import SileroDetector
from parakeet_stt.offline.utterances import Utterances
from parakeet_stt.offline.vad_segments import SpeechRules
from scripts.bench.accuracy import plain
from scripts.bench.server import counted, served, wait_until_ready
from scripts.train import tiny_corpus
from scripts.train.train_tiny_model import TEST_SEED

RATE = tiny_corpus.SAMPLE_RATE
PARTS = ("pauses", "no-pauses", "hours", "nothing")
STRETCH_SECONDS = 90.0
TURN = 31  # sentences without pauses: about such a stretch
NEAR_SECONDS = 1.0
# Recordings of ten minutes before what is measured: until then the server's memory grows with each batch of a shape
# that it has not had before, of which oneDNN and the allocator keep something. As many follow of which the median time
# and the highest peak count: a single one has too few batches for the largest working memory to be among them.
WARMING = 12
ENDS_SECONDS = 600.0  # the first and the last ten minutes
Pcm = npt.NDArray[np.int16]


@dataclass
class Said:
    """A word, and when it is said; None where the synthesizer does not tell."""

    text: str
    start: float | None = None
    end: float | None = None


@dataclass
class Stretch:
    """Sentences without a longer pause between them. start, end: seconds."""

    start: float
    end: float = 0.0
    words: list[Said] = field(default_factory=list)


def sentence(job: tuple[int, float, int]) -> tiny_corpus.Speech:
    """A sentence of the test set; job: its number, the share of flite's voices, and for how many a voice stays."""
    number, flite_share, turn = job
    seed = TEST_SEED + number
    if turn == 1:
        return tiny_corpus.utterance("sentences", seed, flite_share=flite_share)
    pick = random.Random(f"speaker {number // turn}")
    voice = tiny_corpus.heard_voice(pick, "flite" if pick.random() < flite_share else "espeak")
    return tiny_corpus.speak(tiny_corpus.utterance_text("sentences", seed), voice)


def sentences(count: int, flite_share: float, turn: int = 1) -> list[tiny_corpus.Speech]:
    """The first so many sentences of the test set, with another voice after each `turn` of them."""
    with Pool() as pool:
        return pool.map(sentence, [(number, flite_share, turn) for number in range(count)], chunksize=20)


def said_in(speech: tiny_corpus.Speech, start: float) -> list[Said]:
    """Its words, with the times of those that the synthesizer tells."""
    words = [Said(word) for word in plain(speech.text)]
    at = 0
    for truth in speech.words:
        spoken = "".join(plain(truth.word))
        index = next((i for i in range(at, len(words)) if words[i].text == spoken), None)
        if index is not None:
            words[index].start, words[index].end = start + truth.start, start + truth.end
            at = index + 1
    return words


def assembled(spoken: Iterable[tiny_corpus.Speech], path: Path, *, pauses: tuple[float, float] | None) -> list[Stretch]:
    """Write a flac file of the sentences, with pauses of random length between them.

    pauses: in seconds; None for stretches of `STRETCH_SECONDS` without any, and 3 s between those.
    """
    pick = random.Random(5)
    stretches: list[Stretch] = []
    at = 0
    with soundfile.SoundFile(path, "w", RATE, 1, "PCM_16") as file:

        def write(samples: Pcm) -> None:
            nonlocal at
            file.write(samples)
            at += len(samples)

        current: Stretch | None = None
        for speech in spoken:
            if current is None:
                current = Stretch(at / RATE)
                stretches.append(current)
            current.words += said_in(speech, at / RATE) if pauses else map(Said, plain(speech.text))
            write(speech.samples if pauses else tiny_corpus.without_pauses(speech.samples))
            current.end = at / RATE
            pause = pick.uniform(*pauses) if pauses else 3.0 * (current.end - current.start >= STRETCH_SECONDS)
            write(np.zeros(int(pause * RATE), np.int16))
            if pause > 1.5 and current.end - current.start > 30:
                current = None
    return stretches


def ask(url: str, name: str, file: Any, **fields: str) -> dict[str, Any]:
    """A transcription in verbose_json with words."""
    form = {"model": "whisper-1", "response_format": "verbose_json", "timestamp_granularities[]": "word", **fields}
    answer = httpx.post(f"{url}/v1/audio/transcriptions", files={"file": (name, file)}, data=form, timeout=None)
    answer.raise_for_status()
    body: dict[str, Any] = answer.json()
    return body


def errors_one_by_one(url: str, clips: list[tuple[Pcm, str]]) -> int:
    """Word errors where every sentence is a recording of its own."""

    def one(clip: tuple[Pcm, str]) -> int:
        out = io.BytesIO()
        soundfile.write(out, clip[0], RATE, format="WAV")
        found = plain(ask(url, "a.wav", out.getvalue())["text"])
        return int(kaldialign.edit_distance(plain(clip[1]), found)["total"])

    with ThreadPoolExecutor(8) as pool:
        return sum(pool.map(one, clips))


def aligned(stretches: list[Stretch], words: list[dict[str, Any]]) -> Iterator[tuple[Said | None, Any]]:
    """What was said beside what was found, stretch by stretch; None for what is missing on either side."""
    edges = [(one.end + following.start) / 2 for one, following in pairwise(stretches)]
    rest = iter([*words, {"word": "", "start": float("inf"), "end": float("inf")}])
    word = next(rest)
    for stretch, edge in zip(stretches, [*edges, float("inf")], strict=True):
        found: list[dict[str, Any]] = []
        while word["start"] < edge:
            found.append(word)
            word = next(rest)
        texts = ["".join(plain(one["word"])) or "?" for one in found]
        said, heard = iter(stretch.words), iter(found)
        for truth, text in kaldialign.align([one.text for one in stretch.words], texts, "*"):
            yield next(said) if truth != "*" else None, next(heard) if text != "*" else None


def forced_seams(path: Path) -> list[float]:
    """Where speech is cut though no pause is there, in seconds."""
    blocks = soundfile.blocks(path, RATE * 10, dtype="float32")
    found = Utterances(blocks, SileroDetector().stream(), rules=SpeechRules(), longest=24.0)
    return [one.end - one.overlap / 2 for one in found if one.overlap]


def compared(
    url: str, folder: Path, *, hours: float, pauses: tuple[float, float] | None, turn: int = 1
) -> dict[str, Any]:
    """The word error rate of one long recording, and of its sentences one by one. turn: sentences of one voice."""
    spoken = sentences(int(hours * 3600 / (4.6 if pauses else 2.9)), 0.3, turn)
    path = folder / "long.flac"
    stretches = assembled(spoken, path, pauses=pauses)
    count = sum(len(stretch.words) for stretch in stretches)
    before = counted(url)
    with path.open("rb") as file:
        body = ask(url, path.name, file)
    rescues = {name: value - before.get(name, 0) for name, value in counted(url).items() if "rescues_total" in name}
    seams = forced_seams(path)
    errors, lost, doubled, near, at = 0, 0, 0, 0, 0.0
    for truth, found in aligned(stretches, body["words"]):
        at = found["start"] if found else at
        if truth is None or found is None or truth.text != "".join(plain(found["word"])):
            errors += 1
            lost += found is None
            doubled += truth is None
            near += any(abs(at - seam) <= NEAR_SECONDS for seam in seams)
    row = {
        "seconds": round(body["duration"]),
        "words": count,
        "wer_percent": round(100 * errors / count, 2),
        "one_by_one_percent": round(100 * errors_one_by_one(url, [(s.samples, s.text) for s in spoken]) / count, 2),
        "lost": lost,
        "invented": doubled,
        "cuts_without_a_pause": len(seams),
        "errors_within_1_s_of_those": near,
        "rescues": rescues,
    }
    if pauses is None:
        bare = [(tiny_corpus.without_pauses(s.samples), s.text) for s in spoken]
        row["one_by_one_without_their_pauses_percent"] = round(100 * errors_one_by_one(url, bare) / count, 2)
    return row


def long_enough(spoken: list[tiny_corpus.Speech], seconds: float) -> Iterator[tiny_corpus.Speech]:
    """The sentences again and again, for so long with pauses of 1.6 s in the mean."""
    mean = sum(len(speech.samples) for speech in spoken) / len(spoken) / RATE + 1.575
    return islice(cycle(spoken), round(seconds / mean))


def time_errors(stretches: list[Stretch], words: list[dict[str, Any]], start: float, end: float) -> dict[str, float]:
    """Medians in ms over the words that were said between `start` and `end`, in seconds."""
    stretches = [one for one in stretches if start <= one.start and one.end <= end]
    words = list(takewhile(lambda w: w["start"] < end + 2, (w for w in words if w["start"] > start - 2)))
    pairs = [
        (abs(found["start"] - truth.start), abs(found["end"] - truth.end))
        for truth, found in aligned(stretches, words)
        if truth and found and truth.text == "".join(plain(found["word"])) and truth.start is not None
        and truth.end is not None
    ]  # fmt: skip
    return {
        "words": len(pairs),
        "start_median_ms": round(1000 * median(pair[0] for pair in pairs)),
        "end_median_ms": round(1000 * median(pair[1] for pair in pairs)),
    }


@contextmanager
def peak_memory() -> Iterator[list[float]]:
    """The most MB that all processes of the server held at once, asked twenty times a second; [0] afterwards."""
    peak = [0.0]
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.05):
            held = 0
            for process in psutil.Process().children(recursive=True):
                try:
                    held += process.memory_info().rss
                except psutil.NoSuchProcess:
                    continue
            peak[0] = max(peak[0], held / 1e6)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield peak
    finally:
        over.set()
        watcher.join()


def of_length(url: str, folder: Path, spoken: list[tiny_corpus.Speech], hours: float) -> dict[str, Any]:
    """One recording of so many hours: its time, the server's memory, and how exact its times are at both ends."""
    path = folder / "hours.flac"
    stretches = assembled(long_enough(spoken, hours * 3600), path, pauses=(0.15, 3.0))
    before = counted(url)
    with path.open("rb") as file, peak_memory() as peak:
        began = time.monotonic()
        body = ask(url, path.name, file)
        seconds = time.monotonic() - began
    after = counted(url)
    duration = body["duration"]
    return {
        "hours": hours,
        "seconds": round(seconds, 1),
        "rtfx": round(duration / seconds, 1),
        "ms_for_a_second": round(1000 * seconds / duration, 3),
        "peak_mb": round(peak[0]),
        "words": len(body["words"]),
        "detector_share": round(
            (after["stt_detect_seconds_sum"] - before["stt_detect_seconds_sum"]) / seconds, 3
        ),
        "device_share": round(
            (after["stt_inference_seconds_sum"] - before["stt_inference_seconds_sum"]) / seconds, 3
        ),
        "first_ten_minutes": time_errors(stretches, body["words"], 0, ENDS_SECONDS),
        "last_ten_minutes": time_errors(stretches, body["words"], duration - ENDS_SECONDS, duration),
    }  # fmt: skip


def nothing(url: str, folder: Path, minutes: float) -> dict[str, Any]:
    """What is found where nobody speaks, and how fast."""
    count = int(minutes * 60 * RATE)
    noise = np.random.default_rng(3)
    white = noise.standard_normal(count, np.float32)
    seconds = np.arange(count, dtype=np.float32) / RATE
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
        soundfile.write(path, np.clip(sound, -1, 1), RATE)
        began = time.monotonic()
        with path.open("rb") as file:
            body = ask(url, path.name, file)
        rows[name] = {"text": body["text"], "rtfx": round(minutes * 60 / (time.monotonic() - began))}
    return rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", help="a running server")
    parser.add_argument("--model", help="a catalogue name, path or store tag; the bundled model unless given")
    parser.add_argument("--only", choices=PARTS, nargs="*", default=PARTS)
    parser.add_argument("--scale", type=float, default=1.0, help="of all lengths")
    arguments = parser.parse_args()
    scale = arguments.scale
    results: dict[str, Any] = {}
    with served(arguments.url, arguments.model) as url, tempfile.TemporaryDirectory() as name:
        wait_until_ready(url)
        folder = Path(name)

        def show(part: str, row: dict[str, Any]) -> None:
            results[part] = row
            print(part, json.dumps(row, indent=1), flush=True)

        if "pauses" in arguments.only:
            show("pauses of 0.15 to 3 s", compared(url, folder, hours=2 * scale, pauses=(0.15, 3.0)))
        if "no-pauses" in arguments.only:
            for turn, speakers in ((TURN, "one voice at a time"), (1, "another voice in each sentence")):
                row = compared(url, folder, hours=0.5 * scale, pauses=None, turn=turn)
                show(f"no pauses for 90 s, {speakers}", row)
        if "hours" in arguments.only:
            spoken = sentences(1000, 0.0)
            short = [
                of_length(url, folder, spoken[turn * 70 :] + spoken[: turn * 70], 1 / 6) for turn in range(2 * WARMING)
            ][WARMING:]
            short.sort(key=lambda row: float(row["seconds"]))
            show("ten minutes", {**short[len(short) // 2], "peak_mb": max(row["peak_mb"] for row in short)})
            show(f"{10 * scale:.2g} hours", of_length(url, folder, spoken, 10 * scale))
        if "nothing" in arguments.only:
            show("where nobody speaks", nothing(url, folder, 60 * scale))
    print(json.dumps(results))


if __name__ == "__main__":
    main()
