"""Measures the speed of the engine, of its parts, and of other runtimes with the same weights.

    python -m scripts.bench.engine [--model NAME] [--precision float32] [--threads 3] [--short]

All contenders decode the same clips of 10 s, cut from the bundled long sample, with the same number of threads: this
engine; the bound, which is the network's bare forward pass and search over batches prepared beforehand; NeMo's own
`model.transcribe()`; and onnx-asr with ONNX Runtime, on an export of the same weights. A contender that can't run has a
row that says why. Each row is the median of passes over all clips, in seconds of audio decoded in one second. Prints a
table, then one JSON line. For accuracy there is scripts/bench/accuracy.py.
"""

from __future__ import annotations

import argparse
import gc
import json
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from functools import cache, partial
from itertools import chain
from pathlib import Path
from statistics import median
from typing import get_args

import torch

from parakeet_stt.audio import SAMPLE_RATE, Audio
from parakeet_stt.detector_stream import DetectorStream
from parakeet_stt.engines import catalogue, devices, nemo_archive
from parakeet_stt.engines.cpu import precision
from parakeet_stt.engines.parakeet import Parakeet
from parakeet_stt.engines.resampling_filters import make_filter
from parakeet_stt.engines.silero_onnx import OnnxDetector
from parakeet_stt.media.demux import decode
from parakeet_stt.vad import WINDOW_SAMPLES
from scripts.bench.serving import ROOT, SAMPLE

CLIP_SECONDS = 10
SIZES = (1, 4, 8, 16)
SHORT_SIZES = (1, 8)
ONNX_SIZES = (1, 4)  # larger batches are no faster there
MAX_RUNS = 9
RANDOM_MARK = "random_weights"  # in the configuration of a model of scripts/bench/random_parakeet.py

Decode = Callable[[Sequence[Audio], int], object]  # decodes clips, in batches of so many


@dataclass(frozen=True, slots=True)
class Row:
    """One contender at one batch size. rtfx: seconds of audio decoded in a second; None where `not_run` says why."""

    contender: str
    precision: str
    batch: int
    rtfx: float | None = None
    not_run: str = ""


@dataclass(frozen=True, slots=True)
class Contender:
    """A runtime to be measured. load: a context manager of a `Decode`, left after the last measurement; may raise."""

    name: str
    precision: str
    sizes: Sequence[int]
    load: Callable[[], AbstractContextManager[Decode]]


@cache
def cut_clips(count: int) -> list[Audio]:
    """`count` clips of 10 s of the bundled long sample, which are repeated if it has fewer."""
    with SAMPLE.open("rb") as file:
        samples = decode(file, max_seconds=1000, make_filter=make_filter).samples
    size = CLIP_SECONDS * SAMPLE_RATE
    cut = [Audio(samples[start : start + size]) for start in range(0, len(samples) - size + 1, size)]
    return [cut[index % len(cut)] for index in range(count)]


def median_seconds(work: Callable[[], object], budget: float) -> float:
    """The median time of as many runs as fit into `budget` seconds; at least one run."""
    times: list[float] = []
    while not times or (len(times) < MAX_RUNS and sum(times) + times[-1] <= budget):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return median(times)


def measure(contender: Contender, clips: Sequence[Audio], budget: float) -> Iterator[Row]:
    """A row for each batch size. The first batch of each is decoded once beforehand and not counted."""
    duration = sum(clip.duration for clip in clips)
    make_row = partial(Row, contender.name, contender.precision)
    left = list(contender.sizes)
    try:
        with contender.load() as work:
            while left:
                work(clips[: left[0]], left[0])
                taken = median_seconds(partial(work, clips, left[0]), budget)
                yield make_row(left.pop(0), duration / taken)
    except Exception as exc:  # a runtime may raise anything; that it can't run is a result
        yield from (make_row(size, not_run=_first_line(exc)) for size in left)
    finally:
        gc.collect()


def split_batches(clips: Sequence[Audio], size: int) -> Iterator[Sequence[Audio]]:
    """The clips in batches of `size`."""
    yield from (clips[start : start + size] for start in range(0, len(clips), size))


@contextmanager
def load_engine(engine: Parakeet) -> Iterator[Decode]:
    """This engine, which is loaded already."""

    def work(clips: Sequence[Audio], size: int) -> None:
        for batch in split_batches(clips, size):
            engine.recognize(batch)

    yield work


@contextmanager
def load_bound(engine: Parakeet) -> Iterator[Decode]:
    """The engine's network alone: tensors in, tensors out; no scoring, no tokens as Python objects."""
    model, dtype, device = engine._model, engine._dtype, engine._device

    @cache
    def pack(count: int) -> tuple[torch.Tensor, torch.Tensor]:
        audio = torch.stack([torch.from_numpy(clip.samples) for clip in cut_clips(count)]).to(device)
        return audio, torch.full((count,), audio.shape[1], device=device)

    def work(clips: Sequence[Audio], size: int) -> None:
        audio, lengths = pack(len(clips))
        with torch.inference_mode():
            for start in range(0, len(clips), size):
                part = slice(start, start + size)
                features, feature_lengths = model.preprocessor(input_signal=audio[part], length=lengths[part])
                encoded, frames = model.encoder(audio_signal=features.to(dtype), length=feature_lengths)
                found, _ = model.decoding.decoding.decoding_computer(x=encoded.transpose(1, 2), out_len=frames)
                found.current_lengths.max().item()  # waits for a GPU

    yield work


@contextmanager
def load_nemo(path: Path, engine: Parakeet) -> Iterator[Decode]:
    """NeMo's `transcribe`, in a second network, because it leaves that in train mode. All clips are one call."""
    model = nemo_archive.restore(path).to(engine.device).to(engine._dtype)

    def work(clips: Sequence[Audio], size: int) -> None:
        found = model.transcribe([clip.samples for clip in clips], batch_size=size, verbose=False)
        assert len(found) == len(clips)

    yield work


@contextmanager
def load_onnx(path: Path, threads: int, device: str) -> Iterator[Decode]:
    """onnx-asr over ONNX Runtime, in float32, on files exported as its documentation says."""
    import onnx_asr
    import onnxruntime  # type: ignore[import-untyped]

    if device != "cpu":
        raise RuntimeError("compared on the CPU only: the installed ONNX Runtime has no GPU support")
    (ROOT / "build").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=ROOT / "build") as name:
        export_onnx(path, Path(name))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        recognizer = onnx_asr.load_model("nemo-conformer-tdt", name, sess_options=options)

        def work(clips: Sequence[Audio], size: int) -> None:
            for batch in split_batches(clips, size):
                recognizer.recognize([clip.samples for clip in batch])

        yield work


def export_onnx(path: Path, folder: Path) -> None:
    """Write the model in `folder` as onnx-asr takes it, in float32."""
    model = nemo_archive.restore(path)
    model.freeze()
    model.eval()
    model.export(str(folder / "model.onnx"), verbose=False)  # as encoder-model.onnx and decoder_joint-model.onnx
    vocabulary = [*model.tokenizer.ids_to_tokens(list(range(model.tokenizer.vocab_size))), "<blk>"]
    (folder / "vocab.txt").write_text("".join(f"{piece} {index}\n" for index, piece in enumerate(vocabulary)))
    described = {"model_type": "nemo-conformer-tdt", "features_size": int(model.cfg.preprocessor.features)}
    (folder / "config.json").write_text(json.dumps({**described, "subsampling_factor": 8}))


def detect_by_window(audio: Audio) -> None:
    """Speech detection with Silero's TorchScript form, one window a call, as most services call it."""
    # After parakeet_stt.engines.silero, which sets torch's threads back to what they were before this import.
    from silero_vad import load_silero_vad

    detector = load_silero_vad()
    wave = torch.from_numpy(audio.samples)
    for start in range(0, len(wave) - WINDOW_SAMPLES, WINDOW_SAMPLES):
        detector(wave[start : start + WINDOW_SAMPLES], SAMPLE_RATE)


def measure_detectors(budget: float) -> Iterator[Row]:
    """A row for each form of the speech detector, on a minute of speech. Each form uses one thread."""
    minute = Audio(torch.cat([torch.from_numpy(clip.samples) for clip in cut_clips(6)]).numpy())
    detector = OnnxDetector()
    for name, work in (
        ("detector", lambda: DetectorStream(detector).push(minute.samples)),
        ("detector, window by window", partial(detect_by_window, minute)),
    ):
        work()
        yield Row(name, "float32", 1, minute.duration / median_seconds(work, budget))


def measure_shares(engine: Parakeet, size: int, budget: float) -> dict[str, float]:
    """The share of each part of the engine in the time of one batch, in percent."""
    batch = cut_clips(size)
    whole = median_seconds(lambda: engine.recognize(batch), budget)
    with torch.inference_mode():
        encoded, frames = engine._encode(batch)
        found, _ = engine._decode(encoded, frames)
        parts: dict[str, Callable[[], object]] = {
            "encoder": lambda: engine._encode(batch),
            "search": lambda: engine._decode(encoded, frames),
            "scoring": lambda: engine._score(encoded, found, engine._likely_width(encoded, found)),
        }
        return {name: 100 * median_seconds(work, budget) / whole for name, work in parts.items()}


def processor_name(engine: Parakeet) -> str:
    """The GPU or the processor that the network runs on, as the system names it."""
    if engine.device != "cpu":
        return torch.cuda.get_device_name(engine.device)
    return precision.processor_name()


def list_contenders(engine: Parakeet, path: Path, threads: int, sizes: Sequence[int]) -> list[Contender]:
    """All runtimes that are compared. threads: of ONNX Runtime; the others use torch's. sizes: of batches."""
    onnx_sizes = [size for size in ONNX_SIZES if size in sizes or size == max(ONNX_SIZES)]
    return [
        Contender("engine", engine.precision, sizes, partial(load_engine, engine)),
        Contender("bound", engine.precision, sizes, partial(load_bound, engine)),
        Contender("NeMo transcribe", engine.precision, sizes, partial(load_nemo, path, engine)),
        Contender("onnx-asr", "float32", onnx_sizes, partial(load_onnx, path, threads, engine.device)),
    ]


def find_best(rows: Sequence[Row]) -> dict[str, float]:
    """The speed of the fastest row of each contender that ran."""
    found: dict[str, float] = {}
    for row in rows:
        if row.rtfx is not None:
            found[row.contender] = max(found.get(row.contender, 0.0), row.rtfx)
    return found


def print_rows(rows: Iterable[Row]) -> list[Row]:
    """Print each row as soon as it is measured; all rows."""
    print(f"{'':30}{'precision':12}{'batch':>6}  x real time", flush=True)
    printed = []
    for row in rows:
        result = f"not run: {row.not_run}" if row.rtfx is None else f"{row.rtfx:11.1f}"
        print(f"{row.contender:30}{row.precision:12}{row.batch:6}  {result}", flush=True)
        printed.append(row)
    return printed


def _first_line(exc: BaseException) -> str:
    return f"{type(exc).__name__}: " + next(iter(str(exc).strip().splitlines()), "")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a catalogue name, path or store tag; the bundled model unless given")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda")
    parser.add_argument("--precision", default="auto", choices=get_args(devices.Precision))
    parser.add_argument("--threads", type=int, default=0, help="on a CPU; one core is left free unless given")
    parser.add_argument("--seconds", type=float, default=10, help="for each measurement; one pass may take longer")
    parser.add_argument("--short", action="store_true", help="under a minute with the bundled model")
    parser.add_argument("--only", help="name of the one contender to measure")
    arguments = parser.parse_args()
    budget: float = min(1.0, arguments.seconds) if arguments.short else arguments.seconds
    sizes = SHORT_SIZES if arguments.short else SIZES
    source = catalogue.resolve(arguments.model)
    engine = Parakeet(source.path, device=arguments.device, precision=arguments.precision, threads=arguments.threads)
    threads = torch.get_num_threads()
    clips = cut_clips(max(SIZES))
    is_random = f"\n{RANDOM_MARK}:" in engine.config
    print(f"{source.name}{' (RANDOM WEIGHTS)' if is_random else ''} in {engine.precision} on {processor_name(engine)}, "
          f"{threads} threads; {len(clips)} clips of {CLIP_SECONDS} s\n", flush=True)  # fmt: skip
    only: str | None = arguments.only
    shares = {} if only else {size: measure_shares(engine, size, budget / 4) for size in (1, 8)}
    chosen = [one for one in list_contenders(engine, source.path, threads, sizes) if only in (None, one.name)]
    rows = print_rows(
        chain(
            *(measure(contender, clips, budget) for contender in chosen),
            measure_detectors(budget / 4) if not only else (),
        )
    )
    for size, parts in shares.items():
        listed = ", ".join(f"{name} {part:.1f} %" for name, part in parts.items())
        print(f"the engine's time, batch {size}: {listed}")
    result = {
        "model": source.name,
        "random_weights": is_random,
        "processor": processor_name(engine),
        "device": engine.device,
        "precision": engine.precision,
        "threads": threads,
        "torch": torch.__version__,
        "clips": len(clips),
        "clip_seconds": CLIP_SECONDS,
        "rows": [asdict(row) for row in rows],
        "best_rtfx": find_best(rows),
        "share_percent": shares,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
