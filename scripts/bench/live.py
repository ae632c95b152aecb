"""Knows how accurate live speech is: word error rates by the rules of its steps, beside those of the same as files.

    apt-get install espeak-ng flite && python -m scripts.bench.live
    python -m scripts.bench.live --hours 1

Speakers who say the sentences of the synthetic test set, with pauses, are heard as live sessions hear them, window by
window, many together, and as recordings. With --hours, one speaker talks for so long without a pause. No server:
the session, the detector and the recognizer alone. Prints a table, then one JSON line. `decoded` is how many
seconds of audio the recognizer was given for a second of sound.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import kaldialign
import numpy as np
import psutil  # type: ignore[import-untyped]

from parakeet_stt.audio import Audio, Samples
from parakeet_stt.engines import catalogue
from parakeet_stt.engines.parakeet import Parakeet
from parakeet_stt.engines.silero import SileroDetector
from parakeet_stt.offline.transcription import Transcription
from parakeet_stt.offline.utterances import Utterances
from parakeet_stt.offline.vad_segments import WINDOW_SAMPLES, SpeechRules
from parakeet_stt.protocols import MEMORY_SHAPE, WINDOW_CONTEXT
from parakeet_stt.streaming.session import Event, Final, Session, State, StepRules, TurnRules
from parakeet_stt.text.phrases import Phrases
from parakeet_stt.text.transcript import Hypothesis
from scripts.bench.accuracy import plain
from scripts.bench.long import sentences
from scripts.train import tiny_corpus
from scripts.train.tiny_corpus import without_pauses

T = TypeVar("T")
RATE = tiny_corpus.SAMPLE_RATE
TOGETHER = 16  # speakers
WS = TurnRules()
REALTIME = TurnRules(onset=0.5, offset=0.35, silence_ms=500, pad_ms=300, longest_ms=24_000)
WHOLE = StepRules(part=None)


@dataclass(frozen=True)
class Speaker:
    """A recording, and what is said in it."""

    sound: Samples
    words: list[str]


@dataclass
class Row:
    """One line of the table."""

    rules: str
    errors_percent: float
    decoded: float


def speakers(count: int, pauses: tuple[float, float]) -> list[Speaker]:
    """So many, each with ten sentences. pauses: seconds between them."""
    pick = random.Random(6)
    spoken = sentences(10 * count, 0.3, 10)
    made = []
    for own in range(0, len(spoken), 10):
        parts = [np.zeros(RATE // 2, np.int16)]
        for speech in spoken[own : own + 10]:
            parts += [speech.samples, np.zeros(int(pick.uniform(*pauses) * RATE), np.int16)]
        sound = np.concatenate([*parts, np.zeros(RATE, np.int16)]).astype(np.float32) / np.float32(32768)
        text = [word for speech in spoken[own : own + 10] for word in plain(speech.text)]
        made.append(Speaker(sound[: len(sound) // WINDOW_SAMPLES * WINDOW_SAMPLES], text))
    return made


def live(
    model: Parakeet,
    heard: Sequence[Speaker],
    turns: TurnRules,
    steps: StepRules,
    *,
    watch: Callable[[float, int], None] = lambda seconds, held: None,
) -> tuple[list[str], float]:
    """The text of each speaker, and the seconds that were decoded; all are heard at once, window by window.

    watch: called after each window, with the seconds of sound so far, and how many samples all sessions hold.
    """
    detector = SileroDetector()
    sessions = [Session(turns, steps) for _ in heard]
    events: list[list[Event]] = [[] for _ in heard]
    memories = np.zeros((len(heard), *MEMORY_SHAPE), np.float32)
    padded = [np.concatenate([np.zeros(WINDOW_CONTEXT, np.float32), one.sound]) for one in heard]
    decoded = 0.0

    def recognize() -> None:
        nonlocal decoded
        while wanted := [(i, step) for i, one in enumerate(sessions) if (step := one.next_step()) is not None]:
            decoded += sum(step.audio.duration for _, step in wanted)
            for (index, _), found in zip(wanted, model.step([step for _, step in wanted]), strict=True):
                events[index] += sessions[index].stepped(found)

    for at in range(0, max(len(one.sound) for one in heard), WINDOW_SAMPLES):
        busy = [index for index, one in enumerate(heard) if at < len(one.sound)]
        windows = np.stack([padded[index][at : at + WINDOW_CONTEXT + WINDOW_SAMPLES] for index in busy])
        probabilities, memories[busy] = detector.probabilities(windows, memories[busy])
        for index, probability in zip(busy, probabilities.tolist(), strict=True):
            window = heard[index].sound[at : at + WINDOW_SAMPLES]
            events[index] += sessions[index].hear(window, [probability])
        recognize()
        watch(at / RATE, sum(session.held for session in sessions))
    for index, session in enumerate(sessions):
        events[index] += session.finish()
    recognize()
    assert all(session.state is State.ENDED for session in sessions)
    texts = [[word.text for event in own if isinstance(event, Final) for word in event.words] for own in events]
    return [" ".join(words) for words in texts], decoded


def as_files(model: Parakeet, heard: Sequence[Speaker]) -> tuple[list[str], float]:
    """The same for recordings."""
    decoded = 0.0

    async def recognize(
        utterances: AsyncIterator[Audio], *, phrases: Phrases, again: bool = False
    ) -> AsyncGenerator[Hypothesis, None]:
        nonlocal decoded
        async for audio in utterances:
            decoded += audio.duration
            yield model.recognize([audio])[0]

    async def here(work: Callable[[], T]) -> T:
        return work()

    async def text(sound: Samples) -> str:
        utterances = Utterances(iter([sound]), SileroDetector().stream(), rules=SpeechRules(), longest=24.0)
        transcription = Transcription(utterances, recognize=recognize, in_thread=here, language="en")
        return " ".join([word.text async for words in transcription.words() for word in words])

    return [asyncio.run(text(one.sound)) for one in heard], decoded


def errors(heard: Sequence[Speaker], texts: Sequence[str]) -> float:
    """The word error rate, in percent, without case and punctuation."""
    wrong = sum(
        int(kaldialign.edit_distance(one.words, plain(text))["total"]) for one, text in zip(heard, texts, strict=True)
    )
    return 100 * wrong / sum(len(one.words) for one in heard)


def continuous(model: Parakeet, hours: float) -> dict[str, float]:
    """One speaker who makes no pause: errors live and as a file, and what it costs at the beginning and at the end."""
    spoken = sentences(int(hours * 3600 / 2.9), 0.3, 31)
    parts = [without_pauses(speech.samples) for speech in spoken]
    sound = np.concatenate(parts).astype(np.float32) / np.float32(32768)
    sound = sound[: len(sound) // WINDOW_SAMPLES * WINDOW_SAMPLES]
    talk = Speaker(sound, [word for speech in spoken for word in plain(speech.text)])
    seconds = len(sound) / RATE
    sixth = seconds / 6
    marks: list[tuple[float, float]] = []  # processor seconds and MB at each sixth
    most = 0

    def watch(now: float, held: int) -> None:
        nonlocal most
        most = max(most, held)
        if now >= len(marks) * sixth:
            marks.append((time.process_time(), psutil.Process().memory_info().rss / 1e6))

    texts, decoded = live(model, [talk], WS, StepRules(), watch=watch)
    marks.append((time.process_time(), psutil.Process().memory_info().rss / 1e6))
    return {
        "seconds": round(seconds),
        "words": len(talk.words),
        "live_errors_percent": round(errors([talk], texts), 2),
        "file_errors_percent": round(errors([talk], as_files(model, [talk])[0]), 2),
        "decoded": round(decoded / seconds, 2),
        "cpu_ms_for_a_second_in_the_first_sixth": round(1000 * (marks[1][0] - marks[0][0]) / sixth, 1),
        "cpu_ms_for_a_second_in_the_last_sixth": round(1000 * (marks[6][0] - marks[5][0]) / sixth, 1),
        "mb_after_a_sixth": round(marks[1][1]),
        "mb_at_the_end": round(marks[6][1]),
        "most_seconds_of_sound_held": round(most / RATE, 1),
    }


def rules_to_try(given: Sequence[str]) -> list[StepRules]:
    """left:right:first:part, each in frames."""
    return [StepRules(*map(int, one.split(":"))) for one in given]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a catalogue name, path or store tag; the bundled model unless given")
    parser.add_argument("--speakers", type=int, default=40, help="each with ten sentences")
    parser.add_argument("--rules", nargs="*", default=[], help="of steps, as left:right:first:part in frames of 80 ms")
    parser.add_argument("--hours", type=float, help="of one speaker without a pause, and no more")
    arguments = parser.parse_args()
    model = Parakeet(catalogue.resolve(arguments.model).path)
    if arguments.hours:
        print(json.dumps(continuous(model, arguments.hours)))
        return
    heard = speakers(arguments.speakers, (0.4, 1.5))
    seconds = sum(len(one.sound) for one in heard) / RATE
    groups = [heard[at : at + TOGETHER] for at in range(0, len(heard), TOGETHER)]
    rows: list[Row] = []
    print(f"{seconds:.0f} s, {sum(len(one.words) for one in heard)} words\n")
    print(f"{'':44} {'WER %':>7} {'decoded':>8}")

    def show(rules: str, parts: list[tuple[list[str], float]]) -> None:
        texts = [text for part, _ in parts for text in part]
        row = Row(rules, round(errors(heard, texts), 2), round(sum(decoded for _, decoded in parts) / seconds, 2))
        rows.append(row)
        print(f"{row.rules:44} {row.errors_percent:7.2f} {row.decoded:8.2f}", flush=True)

    show("as files", [as_files(model, group) for group in groups])
    for name, turns in (("/ws", WS), ("/v1/realtime", REALTIME)):
        for steps in [WHOLE, *(rules_to_try(arguments.rules) or [StepRules()])]:
            spelled = "utterance by utterance" if steps.part is None else (
                f"left {steps.left}, part {steps.part}, right {steps.right}"
            )  # fmt: skip
            show(f"{name}, {spelled}", [live(model, group, replace(turns), steps) for group in groups])
    print(json.dumps([vars(row) for row in rows]))


if __name__ == "__main__":
    main()
