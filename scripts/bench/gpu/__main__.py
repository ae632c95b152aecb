"""Measures everything that needs a GPU, with one command of at most ten minutes, on a machine without a network.

    python -m scripts.bench.gpu [--out gpu.json] [--seconds 600] [--parts engine nemo] [--model FILE.nemo]
    python -m scripts.bench.gpu --device cpu --short --tiny    # shows that it works, before a GPU is at hand

Parts, each independent of the others: `agreement` (the bundled model's tokens beside a CPU's), `matrix` (how fast the
GPU multiplies the encoder's own sizes), `engine` (batch 1 to 256, 10 and 24 s, bfloat16, float16, float32 with TF32),
`nemo` (its `transcribe()`), `memory` (too large a batch), `stages` (what a batch's time goes to), `profile` (one
second, by kernel), `graphs` (small batches with and without the encoder's CUDA graphs), `served` (over HTTP) and `live`
(the most sessions). A part that fails or takes too long is reported with its reason. Writes one JSON document, and
prints the rows of docs/benchmarks.md. Unless --model names one, the model is that of scripts/bench/random_parakeet.py:
the 0.6B architecture with random weights, which is made here in about a minute.

What to carry to such a machine: this repository, and wheels of what it lacks. A usual GPU image has Python 3.12, torch,
torchaudio, numpy and CUDA, and no NeMo. On a machine with a network:

    pip download --only-binary=:all: --no-deps --python-version 3.12 --dest wheels -r missing.txt
    pip wheel --no-deps --wheel-dir wheels antlr4-python3-runtime    # and what else has no wheel on PyPI

with missing.txt the lines of requirements.lock that `pip list` does not show on the GPU's machine (NeMo, BentoML,
silero-vad, lhotse and about 90 more; 65 MB), and of those that it shows in another version lightning, with which NeMo
is particular. There: `pip install --no-index --no-deps wheels/*`, into the environment of that Python. Where the image
says PYTHONDONTWRITEBYTECODE, unset it: else every process compiles all of NeMo. Nothing is downloaded at run time. The
service's log is build/gpu-service.log.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scripts.bench.gpu.plan import Outcome, Part, Setup, run_all, to_json
from scripts.bench.gpu.report import render

ROOT = Path(__file__).parents[3]
TINY_MODEL = ROOT / "models" / "parakeet-tdt-tiny" / "parakeet-tdt-tiny.nemo"
_HERE = "scripts.bench.gpu"
PARTS = (
    Part("machine", 5, "engine", f"{_HERE}.arithmetic:describe_machine"),
    Part("agreement", 40, "engine", f"{_HERE}.agreement:measure_agreement"),
    Part("matrix", 15, "engine", f"{_HERE}.arithmetic:measure_matrices"),
    Part("engine", 170, "engine", f"{_HERE}.engine:measure_engine"),
    Part("nemo", 50, "engine", f"{_HERE}.engine:measure_nemo"),
    Part(
        "memory",
        30,
        "engine",
        f"{_HERE}.engine:measure_memory",
        gpu_only="a CPU's memory is the machine's: taking all of it would end other processes",
    ),
    Part("stages", 25, "engine", f"{_HERE}.engine:measure_stages"),
    Part("profile", 25, "engine", f"{_HERE}.engine:measure_profile"),
    Part("graphs", 20, "engine", f"{_HERE}.engine:measure_graphs", gpu_only="a CPU has no CUDA graphs"),
    Part("served", 110, "service", f"{_HERE}.service:measure_served"),
    Part("live", 120, "service", f"{_HERE}.service:measure_live"),
)
RANDOM_MODEL = ROOT / "build" / "parakeet-0.6b-random.nemo"


def find_model(arguments: argparse.Namespace) -> Path:
    """The model's file; made if it is the random one and not there. Raises SubprocessError if that fails."""
    if arguments.tiny:
        return TINY_MODEL
    if arguments.model:
        return Path(arguments.model)
    if not RANDOM_MODEL.is_file():
        command = [sys.executable, "-m", "scripts.bench.random_parakeet", "--out", str(RANDOM_MODEL)]
        subprocess.run(command, cwd=ROOT, check=True, timeout=arguments.seconds / 2, stdout=sys.stderr)
    return RANDOM_MODEL


def about(arguments: argparse.Namespace, device: str, model: Path) -> dict[str, Any]:
    """What is measured, and how."""
    return {
        "command": f"python -m scripts.bench.gpu {shlex.join(sys.argv[1:])}".strip(),
        "device": device,
        "model": model.stem,
        "random_weights": model == RANDOM_MODEL,
        "short": arguments.short,
    }


def parse(given: Sequence[str] | None = None) -> argparse.Namespace:
    """The arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [part.name for part in PARTS]
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "gpu.json", help="where the JSON goes")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--seconds", type=float, default=600, help="for everything, with making the model")
    parser.add_argument("--model", help="a .nemo file")
    parser.add_argument("--tiny", action="store_true", help="the bundled model")
    parser.add_argument("--short", action="store_true", help="as little of each part as shows that it works")
    parser.add_argument("--parts", nargs="*", choices=names, default=names, metavar="PART", help=" ".join(names))
    return parser.parse_args(given)


def main() -> None:
    """Measure, write and print."""
    began = time.monotonic()
    arguments = parse()
    device: str = arguments.device
    model = find_model(arguments)
    described = about(arguments, device, model)
    parts = [part for part in PARTS if part.name == "machine" or part.name in arguments.parts]
    outcomes: dict[str, Outcome] = {}
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    setup = Setup(model, device, arguments.short)
    for name, outcome in run_all(parts, setup, arguments.seconds - (time.monotonic() - began)):
        outcomes[name] = outcome
        print(f"{name}: {outcome.status} {outcome.reason} ({outcome.seconds} s)", file=sys.stderr, flush=True)
        arguments.out.write_text(to_json(outcomes, described))  # whatever comes, what is known is kept
    print(render(described, outcomes))


if __name__ == "__main__":
    main()
