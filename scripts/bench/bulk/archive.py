"""Makes archives to run over, and reads what came out."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import soundfile
from pyarrow import fs

from parakeet_stt.audio import SAMPLE_RATE
from parakeet_stt.bulk.entries import find_filesystem
from scripts.bench.serving import SAMPLE

BAD = b"ID3\x04" + bytes(range(256)) * 40  # looks like an mp3 file for ten bytes


def make_archive(folder: Path, *, files: int, seconds: float, bad: int = 0) -> Path:
    """`files` recordings of so many seconds, cut from the bundled long sample at other places; every n-th is `bad`."""
    samples, _ = soundfile.read(SAMPLE, dtype="int16")
    size = int(seconds * SAMPLE_RATE)
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(files):
        path = folder / f"{number:05}.flac"
        if bad and number % (files // bad) == 0 and number // (files // bad) < bad:
            path.with_suffix(".mp3").write_bytes(BAD)
        else:
            start = number * 7919 % max(1, len(samples) - size)
            soundfile.write(path, samples[start : start + size], SAMPLE_RATE)
    return folder


def repeat_names(folder: Path, into: Path, times: int) -> Path:
    """The same recordings, each under so many names."""
    into.mkdir(parents=True, exist_ok=True)
    for path in sorted(folder.iterdir()):
        for number in range(times):
            os.link(path, into / f"{number:03}-{path.name}")
    return into


def read_rows(out: Path | str, table: str = "transcripts") -> list[dict[str, Any]]:
    """All rows of a table, as any reader sees them; none if it is not there. out: a folder or an address."""
    system, path = find_filesystem(f"{out}/{table}")
    files = system.get_file_info(fs.FileSelector(path, recursive=True, allow_not_found=True))
    found: list[dict[str, Any]] = (
        pq.read_table(path, filesystem=system).to_pylist() if any(one.extension == "parquet" for one in files) else []
    )
    return found
