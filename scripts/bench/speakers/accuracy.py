"""Measures how well a diarizer tells speakers apart: error rates of frames and of words, and known speakers.

    python -m scripts.bench.speakers.accuracy frames                       # diarization error rate, by pyannote.metrics
    python -m scripts.bench.speakers.accuracy words                        # of words, through a server
    python -m scripts.bench.speakers.accuracy known                        # known speakers
    python -m scripts.bench.speakers.accuracy long                         # two hours, through a server

Each prints a table. Conversations are of espeak-ng's and flite's voices, which have to be installed.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt

from parakeet_stt.audio import Audio, AudioBuffer, Samples
from parakeet_stt.engines import catalogue
from parakeet_stt.offline.diarization import PAUSE_SAMPLES, Diarization, Reference
from parakeet_stt.protocols import SpeakerChunk, SpeakerResult
from parakeet_stt.text.speakers import SILENCE
from scripts.bench.serving import add_server_arguments, describe, read_health, serve, wait_until_ready
from scripts.bench.speakers.talks import (
    FRAME_SECONDS,
    OVERLAP,
    WordErrors,
    count_word_errors,
    make_mixer,
    make_talk,
    overlap_share,
    said_by,
    to_annotation,
    to_wav,
)
from scripts.train.diarizer.conversations import Conversation, Mixer

SECOND = 1  # column of the second speaker
COLLAR = 0.5  # pyannote counts both sides: a quarter of a second on each
EDGE_SECONDS = 600  # at the beginning and the end of a long talk


def load(name: str) -> Any:
    """A diarizer on one thread of the CPU."""
    import torch

    from parakeet_stt.engines.diarizers.sortformer import Sortformer

    torch.set_num_threads(1)
    return Sortformer(catalogue.resolve(name, kind=catalogue.DIARIZER).path, device="cpu")


def diarize(engine: Any, samples: Samples) -> Any:
    """Probabilities of every frame, as the service asks for them: chunk after chunk."""
    layout, state, found = engine.layout, None, []
    for done in range(0, len(samples), layout.chunk):
        start = max(0, done - layout.left_context)
        part = min(layout.chunk, len(samples) - done)
        right = min(layout.right_context, len(samples) - done - part)
        audio = Audio(np.ascontiguousarray(samples[start : done + part + right]))
        (result,) = engine.diarize([SpeakerChunk(audio, done - start, right, state)])
        found.append(result.probabilities)
        state = result.state
    return np.concatenate(found)


def measure_frames(given: argparse.Namespace) -> None:
    """Diarization error rates without a server."""
    from pyannote.metrics.diarization import DiarizationErrorRate

    engine = load(given.diarizer)
    print(f"diarization error rate of {given.diarizer} in %, {given.talks} talks of {given.seconds:.0f} s each")
    print("voices    speakers  overlap  without collar (miss, false, confused)  collar 0.25 s")
    for held_out in (False, True):
        mixer = make_mixer(given.work, held_out=held_out, seed=7)
        for speakers in given.speakers:
            strict, lenient = DiarizationErrorRate(), DiarizationErrorRate(collar=COLLAR)
            overlaps = []
            for _ in range(given.talks):
                talk = make_talk(mixer, given.seconds, speakers)
                overlaps.append(overlap_share(talk))
                truth = to_annotation(talk.speaking > 0.5)
                said = to_annotation(said_by(diarize(engine, talk.samples))[: len(talk.speaking)])
                strict(truth, said)
                lenient(truth, said)
            total = strict["total"]
            parts = ", ".join(
                f"{100 * strict[name] / total:.1f}" for name in ("missed detection", "false alarm", "confusion")
            )
            name = "held out" if held_out else "heard"
            print(
                f"{name:9} {speakers:8}  {100 * np.mean(overlaps):6.0f}%  {100 * abs(strict):6.1f} ({parts})"
                f"  {100 * abs(lenient):6.1f}",
                flush=True,
            )


def transcribe(url: str, samples: Samples, **fields: Any) -> dict[str, Any]:
    """The words and segments of a recording, with speakers."""
    data = {"model": "whisper-1", "response_format": "verbose_json", "speakers": "true",
            "timestamp_granularities[]": ["word", "segment"], **fields}  # fmt: skip
    answer = httpx.post(
        f"{url}/v1/audio/transcriptions", data=data, files={"file": ("talk.wav", to_wav(samples))}, timeout=3600
    )
    answer.raise_for_status()
    body: dict[str, Any] = answer.json()
    return body


def measure_words(url: str, given: argparse.Namespace) -> None:
    """Share of the recognized words that have the wrong speaker."""
    print(f"words with the wrong speaker in %, {given.talks} talks of {given.seconds:.0f} s each")
    for held_out in (False, True):
        mixer = make_mixer(given.work, held_out=held_out, seed=17)
        for speakers in given.speakers:
            errors = []
            for _ in range(given.talks):
                talk = make_talk(mixer, given.seconds, speakers)
                errors.append(count_word_errors(transcribe(url, talk.samples)["words"], talk)[0])
            name = "held out" if held_out else "heard"
            print(f"{name:9} {speakers} speakers: {_share(errors)}", flush=True)


def measure_long(url: str, given: argparse.Namespace) -> None:
    """Whether the labels of the last ten minutes mean the people of the first."""
    mixer = make_mixer(given.work, held_out=True, seed=27)
    talk = make_talk(mixer, given.hours * 3600, 2)
    words = transcribe(url, talk.samples)["words"]
    whole, match = count_word_errors(words, talk)
    print(f"{given.hours:g} hours, two held-out voices: {_share([whole])}")
    for name, start in (("first", 0.0), ("last", given.hours * 3600 - EDGE_SECONDS)):
        part = _cut(talk, start, EDGE_SECONDS)
        own = [
            {**word, "start": word["start"] - start, "end": word["end"] - start}
            for word in words
            if start <= word["start"] < start + EDGE_SECONDS
        ]
        errors, found = count_word_errors(own, part)
        same = "the same people" if found == match else f"other people: {found}, not {match}"
        print(f"{name} ten minutes: {_share([errors])}; labels are {same}")


def measure_known(given: argparse.Namespace) -> None:
    """How often a known speaker gets their name, and nobody the name of somebody who is not there. Without a server.

    Named is who has the name in more than half of the frames in which only they speak, the other one in less than half
    of theirs. Of somebody who is not there, the name may not be in more than a tenth of the frames with speech.
    """
    engine = load(given.diarizer)
    for held_out in (False, True):
        mixer = make_mixer(given.work, held_out=held_out, seed=37)
        named = wrong = 0
        for reference, talk, is_there in _introductions(mixer, given):
            own = asyncio.run(find_named(engine, reference, talk))
            speaking = talk.speaking[: len(own)] > 0.5
            alone = speaking.sum(1) == 1
            if is_there:
                theirs, others = alone & speaking[:, SECOND], alone & ~speaking[:, SECOND]
                named += bool(own[theirs].mean() > 0.5 > own[others].mean())
            else:
                wrong += bool(own[speaking.any(1)].mean() > 0.1)
        name = "held out" if held_out else "heard"
        print(
            f"{name:9}: the known speaker is named in {named} of {given.conversations} talks; somebody who is not "
            f"there is named in {wrong} of {given.conversations}",
            flush=True,
        )


async def find_named(engine: Any, reference: Samples, talk: Conversation) -> npt.NDArray[np.bool_]:
    """For each frame of the talk, whether it has the name of the reference, as the service gives it."""

    async def diarize(chunk: SpeakerChunk) -> SpeakerResult:
        found: SpeakerResult = engine.diarize([chunk])[0]
        return found

    audio = AudioBuffer()
    diarization = Diarization(audio, engine.layout, diarize)
    pause = np.zeros(PAUSE_SAMPLES, np.float32)
    await diarization.introduce(Reference("Known", Audio(np.concatenate([reference, pause])), diarize))
    audio.append(talk.samples)
    await diarization.finish()
    frames = len(diarization.frames)
    means = np.stack([diarization.frames.mean(at * FRAME_SECONDS, (at + 1) * FRAME_SECONDS) for at in range(frames)])
    known = np.isin(means.argmax(1), list(diarization.names))
    named: npt.NDArray[np.bool_] = known & (means.max(1) >= SILENCE)
    return named


def _introductions(mixer: Mixer, given: argparse.Namespace) -> Iterator[tuple[Samples, Conversation, bool]]:
    """References and talks of two: first of somebody who speaks second, then of somebody who is not there."""
    for is_there in (True, False):
        for _ in range(given.conversations):
            first, second, absent = mixer.choose_speakers(3)
            talk = mixer.mix(60, [first, second], overlap=OVERLAP, opening=[0, 1])
            yield mixer.make_reference(second if is_there else absent), talk, is_there


def _cut(talk: Conversation, start: float, seconds: float) -> Conversation:
    first, last = round(start / FRAME_SECONDS), round((start + seconds) / FRAME_SECONDS)
    return Conversation(talk.samples[:0], talk.speaking[first:last], talk.voices)


def _share(errors: list[WordErrors]) -> str:
    words, wrong = sum(one.words for one in errors), sum(one.wrong for one in errors)
    return f"{100 * wrong / max(1, words):.1f} % of {words} words"


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("frames", "words", "known", "long"))
    add_server_arguments(parser)
    parser.add_argument("--diarizer", default="sortformer-tiny", help="a catalogue name, path or store tag")
    parser.add_argument("--work", type=Path, default=Path("build/tiny-diarizer"), help="where voices go")
    parser.add_argument("--talks", type=int, default=4, help="of each kind")
    parser.add_argument("--seconds", type=float, default=300.0, help="of each talk")
    parser.add_argument("--speakers", type=int, nargs="*", default=[1, 2, 3, 4])
    parser.add_argument("--conversations", type=int, default=50, help="with a known speaker")
    parser.add_argument("--hours", type=float, default=2.0, help="of the long talk")
    given = parser.parse_args()
    if given.what in ("frames", "known"):
        {"frames": measure_frames, "known": measure_known}[given.what](given)
        return
    with serve(given.url, given.model, changes={"STT_DIARIZER": given.diarizer}) as url:
        wait_until_ready(url)
        print(describe(read_health(url)), "with", given.diarizer, flush=True)
        {"words": measure_words, "long": measure_long}[given.what](url, given)


if __name__ == "__main__":
    main()
