"""The metrics of the service, and their names for Prometheus.

All processes of the service keep theirs in files of one folder (prometheus_client's multiprocess mode), and each front
answers with the sum of all.
"""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Literal, TypeVar

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector

from parakeet_stt.device.reports import BatchReport, DeviceEvent, DiarizeReport, Report, WaitReport
from parakeet_stt.ipc.limits import is_running
from parakeet_stt.server.monitoring.process_metrics import service_collector
from parakeet_stt.text.transcript import SpeechCoverage

disable_created_metrics()  # type: ignore[no-untyped-call] # or each counter has a second series, which nothing reads
NAMESPACE = "stt"
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250, 500)
ITEMS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1)

T = TypeVar("T")
LIVE_FILE = re.compile(r"gauge_live\w*_(\d+)\.db")  # of a process of this number


DROP_REASONS = ("slow_reader", "idle", "failed")
GaugeMode = Literal["livesum", "livemostrecent"]


class Metrics:
    """The metrics of one process. Every label takes values from a small fixed set: routes are templates."""

    def __init__(self, folder: Path | None = None) -> None:
        """folder: that the processes share, as in PROMETHEUS_MULTIPROC_DIR; None for metrics of this process only."""
        self._folder = folder
        self.on_exposition: Callable[[], object] = lambda: None  # called before each
        self._processes = service_collector()
        self._registry = CollectorRegistry()
        self._rows: list[str] = []  # of the table
        self.requests = self._counter("requests", "Requests answered.", "route", "method", "code")
        self.request_seconds = self._histogram("request_seconds", "From a request to its answer.", SECONDS, "route")
        self.audio_seconds = self._counter("audio_seconds", "Audio received, in seconds, after decoding.")
        self.decode_seconds = self._histogram("decode_seconds", "Decoding an upload into samples.", SECONDS)
        self.decoder_failures = self._counter(
            "decoder_failures", "Files whose media worker crashed, or was ended for its time or memory."
        )
        self.detect_seconds = self._histogram(
            "detect_seconds", "Finding speech in a part of a recording, where the device does it.", SECONDS
        )
        self.queue_seconds = self._histogram(
            "queue_seconds", "Time of an utterance in the queue of the device.", SECONDS
        )
        self.inference_seconds = self._histogram("inference_seconds", "Decoding a batch.", SECONDS)
        self.batch_items = self._histogram("batch_items", "Utterances in a batch.", ITEMS)
        self.batch_fill = self._histogram("batch_fill", "Real over padded seconds of a batch.", SHARES)
        self.inference_audio_seconds = self._counter("inference_audio_seconds", "Audio decoded, in seconds.")
        self.recognition_errors = self._counter("recognition_errors", "Utterances that the model failed on.")
        self.diarize_seconds = self._histogram("diarize_seconds", "Telling speakers apart in a batch.", SECONDS)
        self.diarized_audio_seconds = self._counter(
            "diarized_audio_seconds", "Audio whose speakers were told apart, in seconds, context included."
        )
        self._retries = self._counter(
            "retries", "Spans of speech without words that were decoded again, by whether that found words.", "found"
        )
        self._speech_seconds = self._counter(
            "speech_seconds", "Speech in files and live turns, by the detector, in seconds."
        )
        self._uncovered_seconds = self._counter(
            "uncovered_speech_seconds", "Speech in files and live turns in which no words were found, in seconds."
        )
        self._rescues = self._counter("rescues", "The same as stt_retries, until version 0.3.", "found")
        self.out_of_memory = self._counter("out_of_memory", "Batches that did not fit into the device's memory.")
        self.refused = self._counter("refused", "Recordings refused because too much audio was waiting.")
        self.device_restarts = self._counter("device_restarts", "Restarts of a device process.")
        self.sessions = self._gauge("sessions", "Live sessions that are open.")
        self.sessions_refused = self._counter("sessions_refused", "Live sessions that were refused.")
        self.sessions_dropped = self._counter(
            "sessions_dropped", "Live sessions that the service ended: slow reader, idle, failed.", "reason"
        )
        self.final_seconds = self._histogram(
            "final_seconds", "From the end of a live utterance to its final text.", SECONDS
        )
        self.rtfx = self._gauge("rtfx", "Seconds of audio decoded in a second, in the latest batch.", "livemostrecent")
        self.queue_audio_seconds = self._gauge(
            "queue_audio_seconds", "Audio that has no answer yet, in seconds.", "livemostrecent"
        )
        self.batch_budget_seconds = self._gauge("batch_budget_seconds", "Padded seconds that a batch may hold now.")
        self.device_memory_bytes = self._gauge("device_memory_bytes", "Memory in use on the device.")

        for reason in DROP_REASONS:  # so that they are there, as 0, before the first
            self.sessions_dropped.labels(reason)
        for found in ("yes", "no"):
            self._retries.labels(found)
            self._rescues.labels(found)

    def record(self, report: Report) -> None:
        """Count what a device reports. Any thread may call."""
        match report:
            case WaitReport(seconds):
                for one in seconds:
                    self.queue_seconds.observe(one)
            case BatchReport():
                self.batch_items.observe(report.items)
                self.batch_fill.observe(report.audio / report.padded)
                self.inference_seconds.observe(report.seconds)
                self.inference_audio_seconds.inc(report.audio)
                self.rtfx.set(report.audio / report.seconds)
            case DiarizeReport():
                self.diarize_seconds.observe(report.seconds)
                self.diarized_audio_seconds.inc(report.audio)
            case DeviceEvent.OUT_OF_MEMORY:
                self.out_of_memory.inc()
            case DeviceEvent.RECOGNITION_ERROR:
                self.recognition_errors.inc()

    def count_retry(self, found: bool) -> None:
        """Count a span of speech that was decoded again."""
        for counter in (self._retries, self._rescues):
            counter.labels("yes" if found else "no").inc()

    def count_speech(self, speech: SpeechCoverage) -> None:
        """Count the speech of a recording or a live turn, and that of it in which no words were found."""
        self._speech_seconds.inc(speech.seconds)
        self._uncovered_seconds.inc(speech.uncovered_seconds)

    def exposition(self) -> tuple[bytes, str]:
        """Everything in Prometheus' text format, of all processes, and its media type."""
        self.on_exposition()
        if self._folder is None:
            return generate_latest(self._registry), CONTENT_TYPE_LATEST
        _forget_dead(self._folder)
        registry = CollectorRegistry()
        MultiProcessCollector(registry, str(self._folder))  # type: ignore[no-untyped-call]
        registry.register(self._processes)
        return generate_latest(registry), CONTENT_TYPE_LATEST

    def table(self) -> str:
        """The service's own metrics as a Markdown table, for docs/operations.md."""
        return "\n".join(["| metric | type | labels | meaning |", "|---|---|---|---|", *self._rows]) + "\n"

    def _counter(self, name: str, meaning: str, *labels: str) -> Counter:
        self._describe(f"{name}_total", "counter", meaning, labels)
        return Counter(name, meaning, labels, namespace=NAMESPACE, registry=self._registry)

    def _gauge(self, name: str, meaning: str, mode: GaugeMode = "livesum") -> Gauge:
        self._describe(name, "gauge", meaning)
        return Gauge(name, meaning, namespace=NAMESPACE, registry=self._registry, multiprocess_mode=mode)

    def _histogram(self, name: str, meaning: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        self._describe(name, "histogram", meaning, labels)
        return Histogram(name, meaning, labels, namespace=NAMESPACE, registry=self._registry, buckets=buckets)

    def _describe(self, name: str, kind: str, meaning: str, labels: tuple[str, ...] = ()) -> None:
        shown = ", ".join(f"`{label}`" for label in labels)
        self._rows.append(f"| `{NAMESPACE}_{name}` | {kind} | {shown} | {meaning} |")


def _forget_dead(folder: Path) -> None:
    """Remove the gauges of processes that have ended: they count what is open now."""
    for file in folder.glob("gauge_live*.db"):
        found = LIVE_FILE.fullmatch(file.name)
        if found and not is_running(int(found[1])):
            file.unlink(missing_ok=True)


async def time_iteration(items: AsyncIterator[T], histogram: Histogram) -> AsyncIterator[T]:
    """The same items; observes the time that making them took, once they end."""
    seconds = 0.0
    try:
        while True:
            began = time.perf_counter()
            try:
                item = await anext(items)
            except StopAsyncIteration:
                break
            finally:
                seconds += time.perf_counter() - began
            yield item
    finally:
        histogram.observe(seconds)
