"""Measures what telling speakers apart costs: processor time for a second of audio, and memory.

    python -m scripts.bench.speakers.cost                      # the bundled diarizer
    python -m scripts.bench.speakers.cost --published          # the published size, with random weights

Processor time, not the clock's: other work on the machine changes it little.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from parakeet_stt.audio import SAMPLE_RATE, Audio
from parakeet_stt.engines import catalogue
from parakeet_stt.protocols import SpeakerChunk
from scripts.train.diarizer.sortformer import PUBLISHED, build


def memory_mb() -> float:
    """Memory of this process now."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024


def measure(path: Path, *, rows: list[int], chunks: int) -> None:
    """Print a table. rows: recordings at once. chunks: of each recording."""
    import torch

    from parakeet_stt.engines import nemo_archive  # noqa: F401  # what the recognizer imports anyway
    from parakeet_stt.engines.diarizers.sortformer import Sortformer

    torch.set_num_threads(1)
    before = memory_mb()
    engine = Sortformer(path, device="cpu")
    engine.warm_up()
    print(f"one thread, float32; loading it takes {memory_mb() - before:.0f} MB")
    layout = engine.layout
    noise = np.random.default_rng(0).standard_normal(chunks * layout.chunk + layout.right_context, np.float32)
    noise *= np.float32(0.05)
    for count in rows:
        states: list[object] = [None] * count
        spent = 0.0
        for number in range(chunks):
            done = number * layout.chunk
            start = max(0, done - layout.left_context)
            audio = Audio(noise[start : done + layout.chunk + layout.right_context])
            batch = [SpeakerChunk(audio, done - start, layout.right_context, state) for state in states]
            began = time.process_time()
            results = engine.diarize(batch)
            if number or chunks == 1:  # the first has no cache yet
                spent += time.process_time() - began
            states = [result.state for result in results]
        seconds = count * max(1, chunks - 1) * layout.chunk / SAMPLE_RATE
        print(
            f"{count} recordings at once: {1000 * spent / seconds:.1f} ms for a second of audio; "
            f"memory {memory_mb() - before:.0f} MB",
            flush=True,
        )


def main() -> None:
    """Measure a diarizer."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--diarizer", default="sortformer-tiny", help="a catalogue name, path or store tag")
    parser.add_argument("--published", action="store_true", help="the published size, with random weights")
    parser.add_argument("--rows", type=int, nargs="*", default=[1, 4], help="recordings at once")
    parser.add_argument("--chunks", type=int, default=4, help="of 27 s, of each recording")
    given = parser.parse_args()
    if not given.published:
        measure(catalogue.resolve(given.diarizer, kind=catalogue.DIARIZER).path, rows=given.rows, chunks=given.chunks)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "random.nemo")
        model = build(PUBLISHED)
        print(f"{sum(one.numel() for one in model.parameters()) / 1e6:.0f} M parameters, random weights")
        model.save_to(str(path))
        del model
        measure(path, rows=given.rows, chunks=given.chunks)


if __name__ == "__main__":
    main()
