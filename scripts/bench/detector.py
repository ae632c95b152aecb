"""Compares the forms of the speech detector: results, processor time, memory; and what an energy gate would save.

    python -m scripts.bench.detector [--seconds 3600]

The audio is the bundled samples, whose pauses are 0.15 s and longer, again and again at other levels and in other
noise. Times are of the processor, per second of audio. The gate skips windows below a level, so that the detector does
not see them: they get probability 0. Prints tables, then one JSON line.

There is no gate in the service. Over an hour, 12 % of it digital silence, on an AMD EPYC, with the packaged ONNX
files, which take 2.9 ms per second of audio: a gate for digital silence saves 0.35 ms of them and moves 165 of 513
spans; one that waits for 480 ms of silence saves 0.23 ms and moves 51. The detector carries its state from window to
window, so that windows after a gap get other probabilities; and its probability falls some windows after speech ends,
not at once.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
import soundfile
import torch

from parakeet_stt.audio import SAMPLE_RATE, Samples, Span
from parakeet_stt.engines.catalogue import BUNDLED_FILE
from parakeet_stt.engines.silero_onnx import OnnxDetector
from parakeet_stt.engines.silero_torch import TorchDetector
from parakeet_stt.offline.vad_segments import SpeechRules, utterance_spans
from parakeet_stt.protocols import DETECTOR_STATE_SHAPE, DetectorStates, SpeechDetector
from parakeet_stt.vad import WINDOW_SAMPLES, Probabilities, WindowFramer, Windows

CLIPS = ("two-minutes.flac", "two-sentences.flac", "short.flac")
LEVELS_DB = (-30.0, 0.0)  # of a clip, against the sample's own
NOISES_DB = (-90.0, -35.0)  # against full scale
PLAIN_SHARE = 0.25  # of the clips get no noise: their pauses are the synthesizer's
LIVE_STREAMS = 50
GATES_DB = (-200.0, -90.0, -70.0, -60.0, -50.0)  # against full scale; the first skips digital silence only
HELD_WINDOWS = 15  # 480 ms

# What a forked media worker has of its own, and the time to get there. Run in a new process; prints JSON.
FOOTPRINT = """
import json, os, time
import numpy as np

def private_kb():
    with open("/proc/self/smaps_rollup") as file:
        return sum(int(line.split()[1]) for line in file if line.startswith("Private_"))

def report(write):
    os.write(write, json.dumps(private_kb()).encode())
    os._exit(0)

def forked(work):
    read, write = os.pipe()
    if os.fork() == 0:
        work()
        report(write)
    os.wait()
    return json.loads(os.read(read, 100))

began, before = time.perf_counter(), private_kb()
from parakeet_stt.engines.silero_onnx import OnnxDetector
imported, at_import = time.perf_counter(), private_kb()
detector = OnnxDetector()
loaded, at_load = time.perf_counter(), private_kb()
windows, states = np.zeros((512, 576), np.float32), np.zeros((1, 2, 128), np.float32)
bare = forked(lambda: None)
used = forked(lambda: detector.detect([windows], states))
print(json.dumps({
    "import_seconds": imported - began, "import_kb": at_import - before,
    "load_seconds": loaded - imported, "load_kb": at_load - at_import, "child_kb": used - bare,
}))
"""


@dataclass(frozen=True)
class Change:
    """How two lists of speech spans differ. moved: spans that only begin or end elsewhere."""

    spans: int
    moved: int
    missing: int
    added: int


@dataclass(frozen=True)
class Gated:
    """What a gate at a level saves and changes. changed: windows that are speech only with it, or only without."""

    level_db: float
    form: str
    skipped: float
    largest: float
    changed: int
    change: Change


def assemble_audio(seconds: float, seed: int = 0) -> Samples:
    """Speech that does not repeat itself: the bundled samples from random places, each at a level and in a noise."""
    rng = np.random.default_rng(seed)
    folder = BUNDLED_FILE.parent / "samples"
    clips: list[Samples] = [soundfile.read(folder / name, dtype="float32")[0] for name in CLIPS]
    parts: list[Samples] = []
    left = round(seconds * SAMPLE_RATE)
    while left > 0:
        clip = clips[rng.integers(len(clips))]
        clip = clip[rng.integers(len(clip) // 2) :] * np.float32(10 ** (rng.uniform(*LEVELS_DB) / 20))
        if rng.random() > PLAIN_SHARE:
            noise = 10 ** (rng.uniform(*NOISES_DB) / 20)
            clip = clip + rng.standard_normal(len(clip), np.float32) * np.float32(noise)
        silence = np.zeros(rng.integers(3 * SAMPLE_RATE), np.float32)  # as a muted microphone gives it
        parts += [clip[:left], silence[: max(0, left - len(clip))]]
        left -= len(parts[-1]) + len(parts[-2])
    return np.concatenate(parts).clip(-1, 1)


def cut_windows(samples: Samples) -> Windows:
    """All windows of a recording."""
    framer = WindowFramer()
    return np.concatenate([framer.push(samples), framer.flush()])


def new_states(streams: int) -> DetectorStates:
    """The states of streams that begin."""
    return np.zeros((streams, *DETECTOR_STATE_SHAPE), np.float32)


def detect_all(detector: SpeechDetector, windows: Windows) -> Probabilities:
    """One stream in one call."""
    return detector.detect([windows], new_states(1))[0][0]


def detect_live(detector: SpeechDetector, windows: Windows) -> Probabilities:
    """The recording as `LIVE_STREAMS` streams, of which each call takes one window each."""
    count = len(windows) // LIVE_STREAMS
    streams = windows[: count * LIVE_STREAMS].reshape(LIVE_STREAMS, count, -1)
    states, parts = new_states(LIVE_STREAMS), []
    for place in range(count):
        found, states = detector.detect(list(streams[:, place : place + 1]), states)
        parts.append(np.concatenate(found))
    return np.concatenate(parts)


def measure_ms(work: Callable[[], Probabilities], seconds: float) -> tuple[Probabilities, float]:
    """What it returns, and the milliseconds of processor time, of all threads, that it takes per second of audio."""
    began = time.process_time()
    found = work()
    return found, (time.process_time() - began) * 1000 / seconds


def speech_spans(probabilities: Probabilities) -> list[Span]:
    """The spans of utterances by the rules for files."""
    found = utterance_spans([probabilities], SpeechRules(), 24.0 * SAMPLE_RATE)
    return [stretch.span for stretch in found if stretch and stretch.span.length]


def compare_spans(before: list[Span], after: list[Span]) -> Change:
    """Spans match that overlap."""

    def unmatched(spans: list[Span], others: list[Span]) -> int:
        return sum(not any(one.start < other.end and other.start < one.end for other in others) for one in spans)

    same = len(set(before) & set(after))
    missing, added = unmatched(before, after), unmatched(after, before)
    return Change(len(before), len(before) - missing - same, missing, added)


def levels_db(windows: Windows) -> npt.NDArray[np.float32]:
    """The root mean square of each window's own samples, in dB against full scale."""
    own = windows[:, -WINDOW_SAMPLES:]
    with np.errstate(divide="ignore"):
        levels: npt.NDArray[np.float32] = 10 * np.log10(np.square(own).mean(1))
    return levels


def measure_gates(detector: SpeechDetector, windows: Windows, plain: Probabilities) -> Iterator[Gated]:
    """Each level and form of the gate.

    Forms: after skipped windows the detector goes on from its last state; from a new state; from its last state, and
    only windows are skipped before which `HELD_WINDOWS` are below the level too.
    """
    levels, spans = levels_db(windows), speech_spans(plain)
    for level in GATES_DB:
        loud = levels > level
        held = np.convolve(loud, np.ones(HELD_WINDOWS + 1))[: len(loud)] > 0
        for form, kept in (("at once", loud), ("new state", loud), ("held", held)):
            edges = np.flatnonzero(np.diff(kept, prepend=False, append=False)).reshape(-1, 2)
            runs = [windows[start:end] for start, end in edges]
            streams = runs if form == "new state" else [windows[kept]]
            gated = np.zeros_like(plain)
            gated[kept] = np.concatenate(detector.detect(streams, new_states(len(streams)))[0])
            onset = SpeechRules().onset
            yield Gated(
                level_db=level,
                form=form,
                skipped=float(1 - kept.mean()),
                largest=float(np.abs(gated - plain).max()),
                changed=int(((gated >= onset) != (plain >= onset)).sum()),
                change=compare_spans(spans, speech_spans(gated)),
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--seconds", type=float, default=3600.0, help="length of the audio")
    seconds = parser.parse_args().seconds
    windows = cut_windows(assemble_audio(seconds))
    torch.set_num_threads(1)  # as ONNX Runtime has it here
    onnx, network = OnnxDetector(), TorchDetector("cpu")
    for detector in (onnx, network):
        detect_all(detector, windows[:512])
    plain, sequence_ms = measure_ms(lambda: detect_all(onnx, windows), seconds)
    live, single_ms = measure_ms(lambda: detect_live(onnx, windows), seconds)
    other, torch_ms = measure_ms(lambda: detect_all(network, windows), seconds)
    live_torch, live_torch_ms = measure_ms(lambda: detect_live(network, windows), seconds)
    print(f"{seconds:.0f} s of audio, {(plain >= SpeechRules().onset).mean():.0%} of its windows speech")
    print("form                                        ms of processor time per second of audio")
    for name, cost in (
        ("ONNX, one stream", sequence_ms),
        (f"ONNX, {LIVE_STREAMS} streams, a window each", single_ms),
        ("torch on a CPU, one stream", torch_ms),
        (f"torch on a CPU, {LIVE_STREAMS} streams, a window each", live_torch_ms),
    ):
        print(f"{name:44}{cost:8.2f}")
    largest = float(np.abs(other - plain).max())
    change = compare_spans(speech_spans(plain), speech_spans(other))
    print(f"torch against ONNX: at most {largest:.1e} apart, live {np.abs(live - live_torch).max():.1e}; {change}")
    footprint = json.loads(subprocess.run([sys.executable, "-c", FOOTPRINT], stdout=subprocess.PIPE, check=True).stdout)
    print("a new process:", ", ".join(f"{name} {value:.4g}" for name, value in footprint.items()))
    print("gate at dBFS   form         skipped   saves ms/s   largest difference   windows changed   spans changed")
    gates = list(measure_gates(onnx, windows, plain))
    for one in gates:
        saved = f"{one.skipped:9.1%} {one.skipped * sequence_ms:12.3f}"
        print(f"{one.level_db:12.0f}   {one.form:9} {saved} {one.largest:20.3f} {one.changed:17}   {one.change}")
    print(
        json.dumps(
            {
                "seconds": seconds,
                "onnx_sequence_ms": sequence_ms,
                "onnx_single_ms": single_ms,
                "torch_cpu_ms": torch_ms,
                "torch_cpu_single_ms": live_torch_ms,
                "largest_difference": largest,
                "spans": asdict(change),
                "footprint": footprint,
                "gates": [asdict(one) for one in gates],
            },
            default=str,
        )
    )


if __name__ == "__main__":
    main()
