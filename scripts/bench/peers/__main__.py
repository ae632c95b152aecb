"""Measures this engine on a CPU beside other runtimes on the same weights, in turn.

    python -m scripts.bench.random_parakeet
    python -m scripts.bench.peers.export
    python -m scripts.bench.peers [--threads 1 2] [--batches 1 4] [--seconds 100] [--contenders ours:int8 onnx-asr:int8]
    python -m scripts.bench.peers --contenders ours:int8 sherpa-onnx:int8 transcribe-cpp:Q8_0   # see others.py

Every contender is a process of its own, and they decode the same clips of 10 s one after another: a round is one batch
of each, so that what else the machine does slows all down alike. Speed is by processor time, × real time a core, and by
the clock; both of the median round. The ratio is the first contender's speed by another's, the median of the rounds'.
`encoder` leaves out the search, whose work depends on the tokens that are found: the same for all with the model of
`export`; nan of a runtime that can't. Prints a table, then one JSON line.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from parakeet_stt.engines.cpu.precision import processor_name
from scripts.bench.engine import CLIP_SECONDS
from scripts.bench.peers.contenders import Contender, Job, OnnxAsr, Ours, Runtime, Turn, start
from scripts.bench.peers.export import FOLDER, MODEL
from scripts.bench.peers.others import PEERS, CrispAsr, NanoParakeet, OpenVino, SherpaOnnx, TranscribeCpp

MIN_ROUNDS = 3
RUNTIMES: dict[str, Callable[[Job], Runtime]] = {
    "ours": Ours,
    "onnx-asr": OnnxAsr,
    "sherpa-onnx": SherpaOnnx,
    "transcribe-cpp": TranscribeCpp,
    "crispasr": CrispAsr,
    "openvino": OpenVino,
    "nano-parakeet": NanoParakeet,
}


@dataclass(frozen=True, slots=True)
class Row:
    """One contender at one batch size. The first three are × real time, the ratios the first contender's by its own.

    tokens: in a second of audio.
    """

    contender: str
    threads: int
    batch: int
    rounds: int
    process: float
    wall: float
    encoder: float
    process_ratio: float
    wall_ratio: float
    encoder_ratio: float
    tokens: float


def measure(contenders: Sequence[Contender], threads: int, batch: int, seconds: float) -> list[Row]:
    """A row for each contender, of as many rounds as fit into `seconds`. The first round is not counted."""
    for contender in contenders:
        contender.take_turn(batch)
    rounds: list[list[Turn]] = []
    began = time.monotonic()
    while len(rounds) < MIN_ROUNDS or time.monotonic() - began < seconds:
        rounds.append([contender.take_turn(batch) for contender in contenders])
    audio = CLIP_SECONDS * batch
    rows = []
    for place, contender in enumerate(contenders):
        own, first = [turns[place] for turns in rounds], [turns[0] for turns in rounds]

        def speed(name: str, own: Sequence[Turn] = own) -> float:
            return round(audio / float(median(getattr(turn, name) for turn in own)), 2)

        def ratio(name: str, own: Sequence[Turn] = own, first: Sequence[Turn] = first) -> float:
            pairs = zip(own, first, strict=True)
            return round(float(median(getattr(turn, name) / getattr(other, name) for turn, other in pairs)), 2)

        rows.append(
            Row(
                contender.job.name,
                threads,
                batch,
                len(rounds),
                speed("process"),
                speed("wall"),
                speed("encoder"),
                ratio("process"),
                ratio("wall"),
                ratio("encoder"),
                round(own[0].tokens / audio, 2),
            )
        )
    return rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=FOLDER / MODEL, help="the .nemo file")
    parser.add_argument("--onnx", type=Path, default=FOLDER, help="folder of its export")
    parser.add_argument("--peers", type=Path, default=PEERS, help="folder of what others.py needs")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--seconds", type=float, default=100, help="for each batch size and number of threads")
    parser.add_argument(
        "--contenders", nargs="+", default=["ours:int8", "onnx-asr:int8", "ours:float32", "onnx-asr:float32"],
        help=f"runtime:precision; runtimes: {', '.join(RUNTIMES)}",
    )  # fmt: skip
    arguments = parser.parse_args()
    print(f"{processor_name()}; clips of {CLIP_SECONDS} s; × real time\n")
    print(f"{'':22}{'threads':>8}{'batch':>6}{'a core':>8}{'÷':>6}{'clock':>8}{'÷':>6}{'encoder':>9}{'÷':>6}"
          f"{'tokens/s':>9}")  # fmt: skip
    rows: list[Row] = []
    for threads in arguments.threads:
        with ExitStack() as stack:
            contenders = []
            for name in arguments.contenders:
                runtime, _, precision = name.partition(":")
                job = Job(runtime, precision, threads, arguments.model, arguments.onnx, arguments.peers)
                contenders.append(stack.enter_context(start(job, RUNTIMES[runtime])))
            for batch in arguments.batches:
                for row in measure(contenders, threads, batch, arguments.seconds):
                    rows.append(row)
                    print(f"{row.contender:22}{threads:8}{batch:6}{row.process:8.2f}{row.process_ratio:6.2f}"
                          f"{row.wall:8.2f}{row.wall_ratio:6.2f}{row.encoder:9.2f}{row.encoder_ratio:6.2f}"
                          f"{row.tokens:9.2f}", flush=True)  # fmt: skip
    print(json.dumps({"processor": processor_name(), "rows": [asdict(row) for row in rows]}))


if __name__ == "__main__":
    main()
