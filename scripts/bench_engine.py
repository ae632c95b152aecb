"""Knows what each part of the engine costs: detector, encoder, search, scoring. Does not know the server.

    .venv/bin/python scripts/bench_engine.py [--model NAME]

Decodes the bundled long sample in pieces of 10 s. Prints a table, then one JSON line.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

sys.path.append(str(Path(__file__).parents[1]))

import torch

from models import catalogue
from models.parakeet import Parakeet
from models.silero import SileroDetector
from stt.audio import SAMPLE_RATE, Audio
from stt.server.decoding import decode
from stt.speech import WINDOW_SAMPLES

SAMPLE = Path(__file__).parents[1] / "models" / "parakeet-tdt-tiny" / "samples" / "two-minutes.flac"
PIECE_SECONDS = 10
RUNS = 5


def seconds(work: Callable[[], object]) -> float:
    """The median time of a few runs, after one that is not counted."""
    work()
    times = []
    for _ in range(RUNS):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return median(times)


def window_by_window(audio: Audio) -> None:
    """Silero's TorchScript form, as most services call it."""
    from silero_vad import load_silero_vad  # after models.silero, which mends what its import does to torch

    detector = load_silero_vad()
    wave = torch.from_numpy(audio.samples)
    for start in range(0, len(wave) - WINDOW_SAMPLES, WINDOW_SAMPLES):
        detector(wave[start : start + WINDOW_SAMPLES], SAMPLE_RATE)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a catalogue name, path or store tag; the bundled model unless given")
    source = catalogue.resolve(parser.parse_args().model)
    engine = Parakeet(source.path)
    with SAMPLE.open("rb") as file:
        audio = decode(file, max_seconds=1000)
    piece = PIECE_SECONDS * SAMPLE_RATE
    pieces = [Audio(audio.samples[start : start + piece]) for start in range(0, len(audio.samples) - piece + 1, piece)]
    detector = SileroDetector()
    minute = Audio(audio.samples[: 60 * SAMPLE_RATE])
    rows: dict[str, float] = {
        "detector, sequence form": 60 / seconds(lambda: detector.probabilities(minute)),
        "detector, window by window": 60 / seconds(lambda: window_by_window(minute)),
    }
    shares: dict[str, float] = {}
    for size in (1, 8):
        batch = pieces[:size]
        heard = sum(part.duration for part in batch)
        whole = seconds(lambda batch=batch: engine.recognize(batch))  # type: ignore[misc]
        with torch.inference_mode():
            encoded, frames = engine._encode(batch)
            found = engine._decode(encoded, frames)
            parts = {
                "encoder": seconds(lambda batch=batch: engine._encode(batch)),  # type: ignore[misc]
                "search": seconds(lambda e=encoded, f=frames: engine._decode(e, f)),  # type: ignore[misc]
                "scoring": seconds(lambda e=encoded, f=found: engine._score(e, *f)),  # type: ignore[misc]
            }
        rows[f"engine, batch {size}"] = heard / whole
        shares.update({f"{name}, batch {size}": 100 * part / whole for name, part in parts.items()})
    print(f"{source.name} on {engine.device} in {engine.precision}, {torch.get_num_threads()} threads\n")
    for name, rtfx in rows.items():
        print(f"{name:30} {rtfx:8.0f} x real time")
    for name, share in shares.items():
        print(f"{name:30} {share:8.1f} % of the engine's time")
    print(json.dumps({"model": source.name, "device": engine.device, "rtfx": rows, "share_percent": shares}))


if __name__ == "__main__":
    main()
