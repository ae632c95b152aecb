"""The part that compares: whether the bundled model gives on this device what it gives on a CPU in float32.

Random weights decide by last digits, so that their tokens say nothing; a trained model's do.
"""

from __future__ import annotations

import dataclasses
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from parakeet_stt.audio import SAMPLE_RATE, Audio
from parakeet_stt.engines.catalogue import BUNDLED_FILE
from parakeet_stt.engines.parakeet import Parakeet
from parakeet_stt.engines.silero_onnx import OnnxDetector
from parakeet_stt.engines.silero_torch import TorchDetector
from parakeet_stt.protocols import DETECTOR_STATE_SHAPE, FRAME_SAMPLES, Chunk
from parakeet_stt.text.phrases import Phrases
from parakeet_stt.text.transcript import Hypothesis, Token
from parakeet_stt.vad import CONTEXT_SAMPLES, frame_windows
from scripts.bench.gpu.engine import PRECISIONS, loaded
from scripts.bench.gpu.plan import Setup
from scripts.bench.serving import SAMPLE

UTTERANCE_SECONDS = (2, 5, 8, 11, 14)  # one after another, over the whole sample
PHRASES: Phrases = ("hello", "tomorrow evening")
STREAMS, CHUNK_FRAMES, LEFT_FRAMES, RIGHT_FRAMES = 8, 10, 60, 5


def cut_utterances() -> list[Audio]:
    """The long sample in pieces of several lengths."""
    samples, _ = soundfile.read(SAMPLE, dtype="float32")
    found: list[Audio] = []
    start = 0
    while start < len(samples):
        size = UTTERANCE_SECONDS[len(found) % len(UTTERANCE_SECONDS)] * SAMPLE_RATE
        found.append(Audio(samples[start : start + size]))
        start += size
    return found


def speak(engine: Parakeet, audios: Sequence[Audio], *, restarts: bool = False) -> list[list[Token]]:
    """The stable tokens of utterances that are spoken at once, chunk by chunk.

    restarts: whether each state comes as from another process, so that its copy is uploaded.
    """
    states: list[Any] = [None] * len(audios)
    found: list[list[Token]] = [[] for _ in audios]
    for part in range(min(audio.length for audio in audios) // FRAME_SAMPLES // CHUNK_FRAMES):
        start = part * CHUNK_FRAMES * FRAME_SAMPLES
        left = min(start, LEFT_FRAMES * FRAME_SAMPLES)
        end = start + (CHUNK_FRAMES + RIGHT_FRAMES) * FRAME_SAMPLES
        batch = [
            Chunk(
                Audio(audio.samples[start - left : end]),
                left,
                max(0, min(end, audio.length) - start - CHUNK_FRAMES * FRAME_SAMPLES),
                state,
            )
            for audio, state in zip(audios, states, strict=True)
        ]
        results = engine.decode_chunks(batch)
        states = [dataclasses.replace(one.state, number=None) if restarts else one.state for one in results]  # type: ignore[type-var]
        for tokens, one in zip(found, results, strict=True):
            tokens += [
                dataclasses.replace(token, start=token.start + (start - left) / SAMPLE_RATE) for token in one.stable
            ]
    return found


def compare(found: Sequence[Sequence[Token]], expected: Sequence[Sequence[Token]]) -> dict[str, Any]:
    """How many utterances have the same tokens at the same times, and how far their log-probabilities are apart."""
    pairs = [(list(one), list(other)) for one, other in zip(found, expected, strict=True)]
    same = [[token.id for token in one] == [token.id for token in other] for one, other in pairs]
    times = [
        [token.start for token in one] == [token.start for token in other]
        for (one, other), is_same in zip(pairs, same, strict=True)
        if is_same
    ]
    apart = [
        abs(token.logprob - own.logprob)
        for (one, other), is_same in zip(pairs, same, strict=True)
        if is_same
        for token, own in zip(one, other, strict=True)
    ]
    return {
        "utterances": len(pairs),
        "tokens": sum(len(other) for _, other in pairs),
        "same_tokens": sum(same),
        "same_times": sum(times),
        "logprobs_apart": round(max(apart, default=0.0), 5),
    }


def _tokens(results: Sequence[Hypothesis]) -> list[list[Token]]:
    return [list(one.tokens) for one in results]


def compare_engines(setup: Setup, precision: str, expected: dict[str, list[list[Token]]]) -> dict[str, Any]:
    """This device in one precision beside `expected`: files, files one by one, with phrases, live, and from copies."""
    audios = cut_utterances()
    bundled = dataclasses.replace(setup, model=Path(BUNDLED_FILE))
    with loaded(bundled, precision) as engine:
        engine.warm_up(16, 14.0)
        together = _tokens(engine.recognize(audios))
        alone = [_tokens(engine.recognize([audio]))[0] for audio in audios]
        pending = [engine.launch(audios[start : start + 4]) for start in range(0, len(audios), 4)]
        ahead = [tokens for one in pending for tokens in _tokens(one.result())]
        phrases = _tokens(engine.recognize(audios, [PHRASES] * len(audios)))
        live = speak(engine, _streams())
        copies = speak(engine, _streams(), restarts=True)
    return {
        "files": compare(together, expected["files"]),
        "files, one by one and together": compare(alone, together),
        "files, launched ahead and together": compare(ahead, together),
        "with phrases": compare(phrases, expected["phrases"]),
        "live": compare(live, expected["live"]),
        "live, states kept and uploaded": compare(copies, live),
    }


def _streams() -> list[Audio]:
    samples, _ = soundfile.read(SAMPLE, dtype="float32")
    size = len(samples) // STREAMS
    return [Audio(samples[index * size : (index + 1) * size]) for index in range(STREAMS)]


def compare_detectors(device: str) -> dict[str, Any]:
    """The detector of this device beside that of a CPU, over the long sample and over parts of it at once."""
    samples, _ = soundfile.read(SAMPLE, dtype="float32")
    windows = frame_windows(np.concatenate([np.zeros(CONTEXT_SAMPLES, np.float32), samples]))
    streams = [windows, windows[:100], windows[1000:1400]]
    states = np.zeros((len(streams), *DETECTOR_STATE_SHAPE), np.float32)
    expected, _ = OnnxDetector().detect(streams, states)
    detector = TorchDetector(device)
    found, _ = detector.detect(streams, states)
    began = time.perf_counter()
    detector.detect(streams[:1], states[:1])
    taken = time.perf_counter() - began
    return {
        "windows": sum(map(len, streams)),
        "apart": float(max(np.abs(one - own).max() for one, own in zip(found, expected, strict=True))),
        "other_side_of_half": int(
            sum(((one > 0.5) != (own > 0.5)).sum() for one, own in zip(found, expected, strict=True))
        ),
        "rtfx_of_one_stream": round(len(samples) / SAMPLE_RATE / taken),
    }


def measure_agreement(setup: Setup, seconds: float) -> dict[str, Any]:
    """The part `agreement`: tokens, times and log-probabilities of every precision beside a CPU's float32."""
    audios = cut_utterances()
    reference = Parakeet(Path(BUNDLED_FILE), device="cpu", precision="float32")
    expected = {
        "files": _tokens(reference.recognize(audios)),
        "phrases": _tokens(reference.recognize(audios, [PHRASES] * len(audios))),
        "live": speak(reference, _streams()),
    }
    precisions: Sequence[str] = ("float32",) if setup.short or not setup.is_gpu else PRECISIONS
    found: dict[str, Any] = {}
    for precision in precisions:
        try:
            found[precision] = compare_engines(setup, precision, expected)
        except Exception as exc:  # the other precisions are still worth comparing
            traceback.print_exc()
            found[precision] = {"failed": f"{type(exc).__name__}: {exc}"[:500]}
    return {"recognizer": found, "detector": compare_detectors(setup.device)}
