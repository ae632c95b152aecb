"""Measures how accurate live speech is: word error rates for several chunk rules, beside those of the same as files.

    apt-get install espeak-ng flite
    python -m scripts.bench.live [--speakers 40] [--rules 63:6:5:10 100:8:5:10]
    python -m scripts.bench.live --hours 1

Speakers say sentences of the synthetic test set, with pauses. Their audio goes window by window through live sessions,
many at once, and then through the way of files. With --hours, one speaker talks for so long without a pause. No server
runs: only the session, the detector and the recognizer. `decoded` is the seconds of audio that the recognizer decodes
for a second of audio. Prints a table, then one JSON line.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar, get_args

import numpy as np
import psutil  # type: ignore[import-untyped]

from parakeet_stt.audio import Audio, AudioBuffer, Samples
from parakeet_stt.detector_stream import DetectorStream
from parakeet_stt.engines import catalogue, devices
from parakeet_stt.engines.parakeet import Parakeet
from parakeet_stt.engines.silero_onnx import OnnxDetector
from parakeet_stt.measure.normalizers import split_plain
from parakeet_stt.measure.word_errors import count_errors
from parakeet_stt.offline.transcription import Transcription
from parakeet_stt.offline.utterances import Utterances
from parakeet_stt.offline.vad_segments import SpeechRules
from parakeet_stt.protocols import DETECTOR_STATE_SHAPE, HasAudio
from parakeet_stt.streaming.chunk_decoder import ChunkRules, Final
from parakeet_stt.streaming.endpointer import EndpointRules
from parakeet_stt.streaming.session import Session
from parakeet_stt.streaming.turns import Event
from parakeet_stt.text.phrases import Phrases
from parakeet_stt.text.transcript import Hypothesis
from parakeet_stt.vad import CONTEXT_SAMPLES, WINDOW_SAMPLES, Probabilities
from scripts.bench.synthetic_speech import FLITE_SHARE, synthesize_sentences
from scripts.train.tiny_corpus import SAMPLE_RATE, cut_pauses, to_float

T = TypeVar("T")
U = TypeVar("U", bound=HasAudio)
TOGETHER = 16  # speakers
SENTENCES = 10  # of each speaker
WS = EndpointRules()
REALTIME = EndpointRules(onset=0.5, offset=0.35, silence_ms=500, pad_ms=300, longest_ms=24_000)
WHOLE = ChunkRules(length=None)
BARE_SENTENCE_SECONDS = 2.9  # mean length of a sentence without pauses
PARTS = 6  # of a long session, in the first and the last of which time and memory are compared


@dataclass(frozen=True)
class Speaker:
    """A recording, and what is said in it. samples: a whole number of windows."""

    samples: Samples
    words: list[str]


@dataclass
class Row:
    """One line of the table."""

    rules: str
    errors_percent: float
    decoded: float


def make_speakers(count: int, pauses: tuple[float, float]) -> list[Speaker]:
    """Speakers with ten sentences each. pauses: shortest and longest between two sentences, in seconds."""
    pick = random.Random(6)
    sentences = synthesize_sentences(SENTENCES * count, FLITE_SHARE, SENTENCES)
    speakers = []
    for start in range(0, len(sentences), SENTENCES):
        own = sentences[start : start + SENTENCES]
        parts = [np.zeros(SAMPLE_RATE // 2, np.int16)]
        for speech in own:
            parts += [speech.samples, np.zeros(int(pick.uniform(*pauses) * SAMPLE_RATE), np.int16)]
        samples = to_float(np.concatenate([*parts, np.zeros(SAMPLE_RATE, np.int16)]))
        words = [word for speech in own for word in split_plain(speech.text)]
        speakers.append(Speaker(_whole_windows(samples), words))
    return speakers


def _whole_windows(samples: Samples) -> Samples:
    return samples[: len(samples) // WINDOW_SAMPLES * WINDOW_SAMPLES]


def transcribe_live(
    model: Parakeet,
    speakers: Sequence[Speaker],
    endpoint_rules: EndpointRules,
    chunk_rules: ChunkRules,
    *,
    watch: Callable[[float, int], None] = lambda seconds, stored: None,
) -> tuple[list[str], float]:
    """The text of each speaker, and the seconds of audio decoded. All speak at once, window by window.

    watch: called after each window, with the seconds of audio so far, and how many samples all sessions store.
    """
    detector = OnnxDetector()
    stores = [AudioBuffer() for _ in speakers]
    sessions = [Session(endpoint_rules, chunk_rules, store) for store in stores]
    events: list[list[Event]] = [[] for _ in speakers]
    states = np.zeros((len(speakers), *DETECTOR_STATE_SHAPE), np.float32)
    padded = [np.concatenate([np.zeros(CONTEXT_SAMPLES, np.float32), one.samples]) for one in speakers]
    decoded = 0.0

    def decode_due_chunks() -> None:
        nonlocal decoded
        while due := [(i, chunk) for i, one in enumerate(sessions) if (chunk := one.next_chunk()) is not None]:
            decoded += sum(chunk.audio.duration for _, chunk in due)
            for (index, _), result in zip(due, model.decode_chunks([chunk for _, chunk in due]), strict=True):
                events[index] += sessions[index].receive_result(result)

    for at in range(0, max(len(one.samples) for one in speakers), WINDOW_SAMPLES):
        speaking = [index for index, one in enumerate(speakers) if at < len(one.samples)]
        windows = [padded[index][None, at : at + CONTEXT_SAMPLES + WINDOW_SAMPLES] for index in speaking]
        probabilities, states[speaking] = detector.detect(windows, states[speaking])
        for index, own in zip(speaking, probabilities, strict=True):
            window = speakers[index].samples[at : at + WINDOW_SAMPLES]
            stores[index].append(window)
            events[index] += sessions[index].receive_audio(len(window), own.tolist())
        decode_due_chunks()
        watch(at / SAMPLE_RATE, sum(store.stored for store in stores))
    for index, session in enumerate(sessions):
        events[index] += session.finish()
    decode_due_chunks()
    assert all(session.is_over for session in sessions)
    texts = [[word.text for event in own if isinstance(event, Final) for word in event.words] for own in events]
    return [" ".join(words) for words in texts], decoded


def transcribe_files(model: Parakeet, speakers: Sequence[Speaker]) -> tuple[list[str], float]:
    """The text of each speaker as a recording, and the seconds of audio decoded."""
    decoded = 0.0

    async def recognize(items: AsyncIterator[U], *, phrases: Phrases) -> AsyncGenerator[tuple[U, Hypothesis], None]:
        nonlocal decoded
        async for item in items:
            decoded += item.audio.duration
            assert isinstance(item.audio, Audio)
            yield item, model.recognize([item.audio])[0]

    async def run_here(work: Callable[[], T]) -> T:
        return work()

    async def transcribe(samples: Samples) -> str:
        audio, stream = AudioBuffer(), DetectorStream(OnnxDetector())

        async def read() -> AsyncIterator[Probabilities]:
            audio.append(samples)
            yield np.concatenate([stream.push(samples), stream.flush()])

        utterances = Utterances(audio, rules=SpeechRules(), longest=24.0)
        transcription = Transcription(utterances, read(), recognize=recognize, run_in_thread=run_here, language="en")
        return " ".join([word.text async for words in transcription.words() for word in words])

    return [asyncio.run(transcribe(one.samples)) for one in speakers], decoded


def error_rate(speakers: Sequence[Speaker], texts: Sequence[str]) -> float:
    """The word error rate, in percent, without case and punctuation."""
    wrong = sum(count_errors(one.words, split_plain(text)).total for one, text in zip(speakers, texts, strict=True))
    return 100 * wrong / sum(len(one.words) for one in speakers)


def measure_without_pauses(model: Parakeet, hours: float, rules: ChunkRules) -> dict[str, float]:
    """One speaker who makes no pause: errors live and as a file; time and memory at the beginning and at the end."""
    sentences = synthesize_sentences(int(hours * 3600 / BARE_SENTENCE_SECONDS), FLITE_SHARE, 31)
    samples = _whole_windows(to_float(np.concatenate([cut_pauses(speech.samples) for speech in sentences])))
    speaker = Speaker(samples, [word for speech in sentences for word in split_plain(speech.text)])
    seconds = len(samples) / SAMPLE_RATE
    part = seconds / PARTS
    marks: list[tuple[float, float]] = []  # processor seconds and MB at the beginning of each part
    most_stored = 0

    def mark() -> None:
        marks.append((time.process_time(), psutil.Process().memory_info().rss / 1e6))

    def watch(now: float, stored: int) -> None:
        nonlocal most_stored
        most_stored = max(most_stored, stored)
        if now >= len(marks) * part:
            mark()

    texts, decoded = transcribe_live(model, [speaker], WS, rules, watch=watch)
    mark()
    return {
        "seconds": round(seconds),
        "words": len(speaker.words),
        "live_errors_percent": round(error_rate([speaker], texts), 2),
        "file_errors_percent": round(error_rate([speaker], transcribe_files(model, [speaker])[0]), 2),
        "decoded": round(decoded / seconds, 2),
        "cpu_ms_for_a_second_in_the_first_sixth": round(1000 * (marks[1][0] - marks[0][0]) / part, 1),
        "cpu_ms_for_a_second_in_the_last_sixth": round(1000 * (marks[6][0] - marks[5][0]) / part, 1),
        "mb_after_a_sixth": round(marks[1][1]),
        "mb_at_the_end": round(marks[6][1]),
        "most_seconds_of_audio_stored": round(most_stored / SAMPLE_RATE, 1),
    }


def parse_rules(text: str) -> ChunkRules:
    """left:right:preview:length, each in frames."""
    return ChunkRules(*map(int, text.split(":")))


def describe_rules(rules: ChunkRules) -> str:
    """The rules as the table names them."""
    if rules.length is None:
        return "utterance by utterance"
    return f"left {rules.left_context}, part {rules.length}, right {rules.right_context}"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a catalogue name, path or store tag; the bundled model unless given")
    parser.add_argument("--precision", default="auto", choices=get_args(devices.Precision))
    parser.add_argument("--speakers", type=int, default=40, help="each with ten sentences")
    parser.add_argument(
        "--rules", nargs="*", default=[], help="of chunks, as left:right:preview:length in frames of 80 ms"
    )
    parser.add_argument("--hours", type=float, help="measure only one speaker without pauses, for so long")
    arguments = parser.parse_args()
    model = Parakeet(catalogue.resolve(arguments.model).path, precision=arguments.precision)
    chosen = [parse_rules(text) for text in arguments.rules] or [ChunkRules()]
    if arguments.hours:
        for rules in chosen:
            print(describe_rules(rules), json.dumps(measure_without_pauses(model, arguments.hours, rules)), flush=True)
        return
    speakers = make_speakers(arguments.speakers, (0.4, 1.5))
    seconds = sum(len(one.samples) for one in speakers) / SAMPLE_RATE
    groups = [speakers[at : at + TOGETHER] for at in range(0, len(speakers), TOGETHER)]
    rows: list[Row] = []
    print(f"{seconds:.0f} s, {sum(len(one.words) for one in speakers)} words\n")
    print(f"{'':44} {'WER %':>7} {'decoded':>8}")

    def show(rules: str, results: list[tuple[list[str], float]]) -> None:
        texts = [text for group_texts, _ in results for text in group_texts]
        decoded = sum(decoded for _, decoded in results) / seconds
        row = Row(rules, round(error_rate(speakers, texts), 2), round(decoded, 2))
        rows.append(row)
        print(f"{row.rules:44} {row.errors_percent:7.2f} {row.decoded:8.2f}", flush=True)

    show("as files", [transcribe_files(model, group) for group in groups])
    for name, endpoint_rules in (("/ws", WS), ("/v1/realtime", REALTIME)):
        for rules in [WHOLE, *chosen]:
            results = [transcribe_live(model, group, endpoint_rules, rules) for group in groups]
            show(f"{name}, {describe_rules(rules)}", results)
    print(json.dumps([vars(row) for row in rows]))


if __name__ == "__main__":
    main()
