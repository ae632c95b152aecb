"""The pipeline on Ray: entries → parts, in tasks → words, in actors → rows, in tasks → files, which the driver writes.

Ray Data moves the first three, streaming, and starts again what is lost with a process or a machine. The driver sees
words, never audio: it puts the parts of each recording together, and has other tasks make the rows.
"""

from __future__ import annotations

import atexit
import logging
import os
import pickle
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # before Ray reads it: nothing here calls home

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, DataContext, Dataset, Datasource, ReadTask
from ray.data.block import BlockMetadata

from parakeet_stt.bulk.destination import Destination, DestinationError, write_whole
from parakeet_stt.bulk.entries import Entry, Shard, find_filesystem, group_entries, read_entries
from parakeet_stt.bulk.losses import Losses
from parakeet_stt.bulk.parts import (
    DecodedPart,
    Gathering,
    Part,
    from_decoded_table,
    from_table,
    to_decoded_table,
    to_table,
)
from parakeet_stt.bulk.reading import Reader
from parakeet_stt.bulk.recognition import PartDecoder, load_decoder
from parakeet_stt.bulk.rows import Rows, make_rows
from parakeet_stt.bulk.settings import BulkSettings
from parakeet_stt.errors import DeviceLost, SpeechError, StartupError
from parakeet_stt.media.filters import USUAL_RATES
from parakeet_stt.server.files.spoken_language import LanguageDetector

# Of one process: no leak lasts. Ray Data also would have the actors read, if the two were not asked for differently.
TASKS_A_READER = 1000
BLOCK_BYTES = 32 << 20  # of audio that goes to an actor at once: eight minutes, several batches of a GPU
MADE_AT_ONCE = 64  # tasks that make rows; above it the driver waits
CONNECT_TRIES = 3  # Ray gives its processes 30 s to start, which a machine that is very busy may not do
LEAST_CORES = 2  # that Ray is told of: one for a recognizer, and one for reading; a machine with one core shares it
LEAST_FINISHED = 50  # recordings before a share of failures counts
GROUPS = pa.schema([("entries", pa.large_binary())])  # pickled lists of entries, read by the program that wrote them
STORE_BYTES_A_CPU, LEAST_STORE_BYTES = 4 * BLOCK_BYTES, 512 << 20  # of a Ray that is started here, for what waits
Filters = dict[int, npt.NDArray[np.float32]]


class TooManyFailures(SpeechError):
    """More recordings have no transcript than the caller allows."""


@dataclass(frozen=True, slots=True)
class Archive:
    """What is transcribed. source: a manifest, folder or file; see `entries.read_entries`."""

    source: str
    shard: Shard
    finished: frozenset[str] = frozenset()

    def entries(self) -> Iterator[Entry]:
        """Its entries that are not finished."""
        return (one for one in read_entries(self.source, self.shard) if one.key not in self.finished)


@dataclass(frozen=True, slots=True)
class Actors:
    """count: of recognizers. cpus, gpus: of each."""

    count: int
    cpus: float
    gpus: float = 0

    @classmethod
    def for_cluster(cls, threads: int, count: int = 0) -> Actors:
        """Those of the cluster that this program is connected to; see `for_machines`."""
        machines = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
        return cls.for_machines(machines, int(ray.cluster_resources().get("GPU", 0)), threads, count)

    @classmethod
    def for_machines(cls, cores: Sequence[int], gpus: int, threads: int, count: int = 0) -> Actors:
        """One a GPU; without GPUs one for every four cores of a machine, one of which is left for reading.

        cores: of each machine. gpus: of all. threads: of each actor on a CPU, or fewer where there are fewer cores for
        each; 0 to choose. count: of actors; 0 to choose. Raises StartupError if they leave no core for reading, which
        would wait for ever.
        """
        cpus = 1 if gpus else threads or max(1, min(4, max(cores)) - 1)
        count = count or gpus or max(1, sum(machine // (cpus + 1) for machine in cores))

        def fits() -> bool:
            return sum(machine // cpus for machine in cores) >= count and sum(cores) > count * cpus

        while cpus > 1 and not fits():
            cpus -= 1
        if not fits():
            raise StartupError(
                f"{count} recognizers leave none of {sum(cores)} cores for reading: ask for fewer (--actors)"
            )
        return cls(count, cpus, 1 if gpus else 0)


@dataclass(frozen=True, slots=True)
class Job:
    """What is done with an archive. max_failures: share of recordings without a transcript above which it stops.

    load: makes the recognizer in each actor. subtitles: formats that are written beside the recordings.
    """

    settings: BulkSettings
    actors: Actors
    max_failures: float = 1.0
    subtitles: Sequence[str] = ()
    load: Callable[[BulkSettings], PartDecoder] = load_decoder


def connect(address: str | None = None, *, cpus: int | None = None) -> None:
    """Connect to the cluster at `address`, or at RAY_ADDRESS; or else start Ray on this machine, for this process.

    cpus: of this machine that Ray may use; None for all.
    """
    is_there = address or "RAY_ADDRESS" in os.environ
    cpus = cpus or max(LEAST_CORES, os.cpu_count() or 1)
    own = {"num_cpus": cpus, "object_store_memory": max(LEAST_STORE_BYTES, cpus * STORE_BYTES_A_CPU)}
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    for tries in range(CONNECT_TRIES):
        try:
            ray.init(
                address=address, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR,
                **({} if is_there else own),
            )  # fmt: skip
            break
        except Exception:  # Ray raises no class of its own
            ray.shutdown()
            if is_there or tries == CONNECT_TRIES - 1:
                raise
    context = DataContext.get_current()
    context.enable_progress_bars = False  # the command has its own
    context.print_on_execution_start = False
    context.target_max_block_size = BLOCK_BYTES


class _EntrySource(Datasource):  # type: ignore[misc]
    """Reads an archive's entries as they are needed, in one task."""

    def __init__(self, archive: Any) -> None:
        self._archive = archive  # in Ray's store

    def estimate_inmemory_data_size(self) -> None:
        return None

    def get_read_tasks(self, parallelism: int, *_: Any, **__: Any) -> list[ReadTask]:
        archive = self._archive

        def read() -> Iterator[Any]:
            yield GROUPS.empty_table()
            for group in group_entries(ray.get(archive).entries()):
                yield pa.Table.from_pylist([{"entries": pickle.dumps(group)}], GROUPS)

        return [ReadTask(read, BlockMetadata(num_rows=None, size_bytes=None, input_files=None, exec_stats=None))]


class _Readers:
    """The reader of this process, made at its first use and ended with it."""

    reader: Reader | None = None

    @classmethod
    def get(cls, settings: BulkSettings, filters: Any) -> Reader:
        if cls.reader is None:

            def make_filter(rate: int) -> npt.NDArray[np.float32]:
                usual: Filters = ray.get(filters)
                return usual[rate] if rate in usual else _make_filter(rate)

            cls.reader = Reader(settings, make_filter=make_filter)
            atexit.register(cls.reader.close)
        return cls.reader


def _read(groups: Any, settings: BulkSettings, filters: Any, losses: Losses) -> Iterator[Any]:
    reader = _Readers.get(settings, filters)
    for group in groups["entries"]:
        entries: list[Entry] = pickle.loads(group.as_py())  # noqa: S301
        with losses.holding("read", *(entry.key for entry in entries)) as lost:
            for entry in entries:
                for part in _read_alone(reader, entry, losses) if lost else reader.read(entry):
                    yield to_table([part])


def _read_alone(reader: Reader, entry: Entry, losses: Losses) -> Iterator[Part]:
    with losses.holding("read alone", entry.key) as lost:
        failure = losses.explain(lost, "read")
        yield from [Part(entry, 0, failure=failure)] if failure else reader.read(entry)


class _Decode:
    """An actor: one recognizer, and all that it decodes."""

    def __init__(self, settings: BulkSettings, load: Callable[[BulkSettings], PartDecoder], losses: Losses) -> None:
        self._decoder = load(settings)
        self._losses = losses

    def __call__(self, table: Any) -> Any:
        parts = list(from_table(table))
        try:
            with self._losses.holding("decode", *((part.entry.key, part.number) for part in parts)) as lost:
                return to_decoded_table(map(self._decode_alone, parts) if lost else self._decoder.decode(parts))
        except DeviceLost:
            os._exit(1)  # Ray starts another, which decodes these parts again; after its own exit_actor it starts none

    def _decode_alone(self, part: Part) -> DecodedPart:
        with self._losses.holding("decode alone", part.entry.key, part.number) as lost:
            if failure := self._losses.explain(lost, "decoded"):
                part = replace(part, utterances=(), end=None, failure=failure)
            return self._decoder.decode([part])[0]


def make_dataset(archive: Archive, job: Job) -> Dataset:
    """The decoded parts of an archive's recordings, in tables of `parts.DECODED`, as a Ray Dataset that streams."""
    filters, losses = _FILTERS_TASK.remote(), Losses()
    groups = ray.data.read_datasource(_EntrySource(ray.put(archive)), override_num_blocks=1)
    parts = groups.repartition(target_num_rows_per_block=1).map_batches(
        partial(_read, settings=job.settings, filters=filters, losses=losses),
        batch_size=None,
        batch_format="pyarrow",
        num_cpus=1,
        max_calls=TASKS_A_READER,
    )
    return parts.map_batches(
        _Decode,
        fn_constructor_args=(job.settings, job.load, losses),
        batch_size=None,
        batch_format="pyarrow",
        compute=ActorPoolStrategy(size=job.actors.count),
        num_cpus=job.actors.cpus,
        num_gpus=job.actors.gpus or None,
    )


@dataclass(slots=True)
class Totals:
    """What is done so far in one run. seconds: of audio; of speech: speech_seconds."""

    transcribed: int = 0
    failed: int = 0
    truncated: int = 0
    seconds: float = 0.0
    speech_seconds: float = 0.0
    words: int = 0

    def add(self, rows: Rows) -> None:
        """More is done."""
        self.transcribed += len(rows.transcripts)
        self.failed += len(rows.errors)
        for row in rows.transcripts:
            self.truncated += row["truncated"]
            self.seconds += row["duration"]
            self.speech_seconds += row["speech_seconds"]
            self.words += len(row["words"])


def run(archive: Archive, job: Job, destination: Destination, watch: Callable[[Totals], None]) -> Totals:
    """Transcribe what is not finished. watch: called as it goes on.

    Raises TooManyFailures, DestinationError; what is done by then is kept, as after a KeyboardInterrupt.
    """
    totals, gathering = Totals(), Gathering(set(archive.finished))
    making: deque[Any] = deque()

    def keep(waiting: int) -> None:
        while len(making) > waiting:
            rows: Rows = ray.get(making.popleft())
            destination.add(rows)
            totals.add(rows)
            watch(totals)
            _check_failures(totals, job.max_failures, LEAST_FINISHED)

    try:
        for complete in _gather(make_dataset(archive, job), gathering):
            making.append(_ROWS_TASK.remote(complete, job.settings, tuple(job.subtitles)))
            ready, _ = ray.wait(list(making), num_returns=len(making), timeout=0)
            done = next((at for at, one in enumerate(making) if one not in ready), len(making))
            keep(min(len(making) - done, MADE_AT_ONCE))
        keep(0)
        _check_failures(totals, job.max_failures, 1)
    finally:
        destination.flush()
    return totals


def _gather(dataset: Dataset, gathering: Gathering) -> Iterator[list[list[DecodedPart]]]:
    """Recordings of which all parts are there, some at a time."""
    for table in dataset.iter_batches(batch_size=None, batch_format="pyarrow"):
        complete = [found for part in from_decoded_table(table) if (found := gathering.add(part))]
        if complete:
            yield complete


def _check_failures(totals: Totals, share: float, least: int) -> None:
    finished = totals.transcribed + totals.failed
    if finished >= least and totals.failed > share * finished:
        raise TooManyFailures(
            f"{totals.failed} of {finished} recordings have no transcript, more than a share of {share:g}: "
            "the errors table says why"
        )


def _make_rows(recordings: Sequence[Sequence[DecodedPart]], settings: BulkSettings, subtitles: Sequence[str]) -> Rows:
    languages, detector = _Languages.get(settings)
    rows = make_rows(
        recordings,
        languages=languages,
        detect_language=detector.detect,
        onset=settings.rules.onset,
        subtitles=subtitles,
    )
    for address, written in rows.subtitles.items():
        system, path = find_filesystem(address)
        for one, text in written.items():
            try:
                write_whole(system, f"{path}.{one}", text.encode(errors="replace"))
            except OSError as exc:
                raise DestinationError(f"{path}.{one} can't be written: {exc}") from exc
    rows.subtitles = {}
    return rows


class _Languages:
    """The languages of the model, and what tells them apart, in this process."""

    found: tuple[Sequence[str], LanguageDetector] | None = None

    @classmethod
    def get(cls, settings: BulkSettings) -> tuple[Sequence[str], LanguageDetector]:
        if cls.found is None:
            languages = settings.find_model().languages
            cls.found = languages, LanguageDetector(languages)
        return cls.found


def _make_filters() -> Filters:
    return {rate: _make_filter(rate) for rate in USUAL_RATES}


def _make_filter(rate: int) -> npt.NDArray[np.float32]:
    from parakeet_stt.engines.resampling_filters import make_filter

    return make_filter(rate)


_ROWS_TASK: Any = ray.remote(num_cpus=0.25, max_retries=-1)(_make_rows)
_FILTERS_TASK: Any = ray.remote(num_cpus=0, max_calls=1)(_make_filters)  # its process ends: it has imported torch
