"""One run over an archive, from its settings to its summary: what the command `parakeet bulk` calls, usable alone."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Protocol

import ray
from ray.exceptions import RayTaskError

from parakeet_stt.bulk import pipeline
from parakeet_stt.bulk.destination import Destination, Form
from parakeet_stt.bulk.entries import Shard
from parakeet_stt.bulk.pipeline import Actors, Archive, Job, Totals
from parakeet_stt.bulk.recognition import PartDecoder, load_decoder
from parakeet_stt.bulk.settings import BulkSettings
from parakeet_stt.errors import SpeechError
from parakeet_stt.measure.manifests import BadManifest
from parakeet_stt.server import settings as service_settings


class Incomplete(SpeechError):
    """Some recordings of the archive have no row, though the run has ended."""


class Watcher(Protocol):
    """Sees how far a run is. Threads may call."""

    def begin(self, finished: int, actors: Actors) -> None:
        """So many recordings were finished before; so many recognizers are at work."""

    def count(self, recordings: int) -> None:
        """So many recordings are to be done."""

    def advance(self, totals: Totals) -> None:
        """So much is done by this run."""


@dataclass(frozen=True, slots=True)
class BulkRun:
    """An archive, and what is to become of it.

    source: see `entries.read_entries`. out: see `destination.Destination`. max_failures, subtitles, load: see
    `pipeline.Job`. actors: 0 to choose. address: of a Ray cluster; None for that of RAY_ADDRESS, or for a Ray of its
    own. cpus: of this machine for that. settings: None for those of the environment, as the service reads them.
    """

    source: str
    out: str
    form: Form = "parquet"
    shard: Shard = field(default_factory=Shard)
    max_failures: float = 0.1
    subtitles: tuple[str, ...] = ()
    actors: int = 0
    address: str | None = None
    cpus: int | None = None
    settings: BulkSettings | None = None
    load: Callable[[BulkSettings], PartDecoder] = load_decoder

    def execute(self, watcher: Watcher) -> Totals:
        """Transcribe what is not finished; what this run has done.

        Raises StartupError, BadManifest, DestinationError, TooManyFailures, and Incomplete where another run may help.
        """
        settings = self.settings or BulkSettings.of(service_settings.load())
        with closing(Destination(self.out, self.form, self.shard)) as destination:
            finished = frozenset().union(*destination.finished().values())
            archive = Archive(self.source, self.shard, finished)
            if next(archive.entries(), None) is None:
                watcher.count(0)
                return Totals()
            is_connected = ray.is_initialized()
            if not is_connected:
                pipeline.connect(self.address, cpus=self.cpus)
            try:
                return self._run(archive, settings, destination, watcher)
            except RayTaskError as exc:
                if isinstance(exc.cause, SpeechError | BadManifest):
                    raise exc.cause from exc
                raise
            finally:
                if not is_connected:
                    ray.shutdown()

    def _run(self, archive: Archive, settings: BulkSettings, destination: Destination, watcher: Watcher) -> Totals:
        actors = Actors.for_cluster(settings.threads, self.actors)
        if not actors.gpus:
            settings = replace(settings, threads=int(actors.cpus))
        job = Job(settings, actors, self.max_failures, self.subtitles, self.load)
        watcher.begin(len(archive.finished), job.actors)
        counted: list[int] = []

        def count() -> None:
            counted.append(len({one.key for one in archive.entries()}))
            watcher.count(counted[0])

        counting = threading.Thread(target=count, daemon=True)
        counting.start()
        totals = pipeline.run(archive, job, destination, watcher.advance)
        counting.join()
        if missing := sum(counted) - totals.transcribed - totals.failed:
            raise Incomplete(f"{missing} recordings have no row: the same command goes on with them")
        return totals
