"""Knows what is counted, and under which names Prometheus reads it. Does not know who counts."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

from parakeet_stt.audio import Samples
from parakeet_stt.protocols import SpeechStream

disable_created_metrics()  # type: ignore[no-untyped-call] # a second series for every first one, which nothing reads
NAMESPACE = "stt"
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250, 500)
ITEMS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1)


class Metrics:
    """The metrics of one process. Every label takes values from a small fixed set: routes are templates."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._rows: list[str] = []  # of the table
        ProcessCollector(registry=self._registry)
        self.requests = self._counter("requests", "Requests answered.", "route", "method", "code")
        self.request_seconds = self._histogram("request_seconds", "From the request to its answer.", SECONDS, "route")
        self.audio_seconds = self._counter("audio_seconds", "Audio received, in seconds, after decoding.")
        self.decode_seconds = self._histogram("decode_seconds", "Decoding an upload into samples.", SECONDS)
        self.decoder_failures = self._counter(
            "decoder_failures", "Files whose decoder crashed, or was ended for its time or memory."
        )
        self.detect_seconds = self._histogram("detect_seconds", "Finding speech in a recording.", SECONDS)
        self.queue_seconds = self._histogram("queue_seconds", "An utterance's wait for the device.", SECONDS)
        self.inference_seconds = self._histogram("inference_seconds", "The recognizer's time for a batch.", SECONDS)
        self.batch_items = self._histogram("batch_items", "Utterances in a batch.", ITEMS)
        self.batch_fill = self._histogram("batch_fill", "Real over padded seconds of a batch.", SHARES)
        self.inference_audio_seconds = self._counter("inference_audio_seconds", "Audio recognized, in seconds.")
        self.recognition_errors = self._counter("recognition_errors", "Utterances that the model failed on.")
        self._rescues = self._counter(
            "rescues", "Stretches of speech without a word, tried again with other cuts, by whether that gave one.",
            "found",
        )  # fmt: skip
        self.out_of_memory = self._counter("out_of_memory", "Batches that did not fit into the device's memory.")
        self.refused = self._counter("refused", "Requests refused because too much was waiting.")
        self.device_restarts = self._counter("device_restarts", "Ends of the device's thread, which began again.")
        self.sessions = self._gauge("sessions", "Live sessions that are open.")
        self.sessions_refused = self._counter("sessions_refused", "Live sessions that were not let in.")
        self.sessions_dropped = self._counter(
            "sessions_dropped", "Live sessions that the service ended: slow reader, idle, failed.", "reason"
        )
        self.final_seconds = self._histogram(
            "final_seconds", "From the end of a live utterance being noticed to its final text.", SECONDS
        )
        self.rtfx = self._gauge("rtfx", "Seconds of audio recognized in a second, in the latest batch.")
        self.queue_audio_seconds = self._gauge("queue_audio_seconds", "Audio that has no answer yet, in seconds.")
        self.batch_budget_seconds = self._gauge("batch_budget_seconds", "Padded seconds that a batch may hold now.")
        self.device_memory_bytes = self._gauge("device_memory_bytes", "Memory in use on the device.")

    def batch(self, *, items: int, real: float, padded: float, seconds: float) -> None:
        """Count a batch: how many utterances, their audio without and with padding, and the time it took."""
        self.batch_items.observe(items)
        self.batch_fill.observe(real / padded)
        self.inference_seconds.observe(seconds)
        self.inference_audio_seconds.inc(real)
        self.rtfx.set(real / seconds)

    def rescue(self, found: bool) -> None:
        """Count a stretch of speech that was tried again."""
        self._rescues.labels("yes" if found else "no").inc()

    def exposition(self) -> tuple[bytes, str]:
        """Everything in Prometheus' text format, and its media type."""
        return generate_latest(self._registry), CONTENT_TYPE_LATEST

    def table(self) -> str:
        """The service's own metrics as a Markdown table, for docs/operations.md."""
        return "\n".join(["| metric | type | labels | meaning |", "|---|---|---|---|", *self._rows]) + "\n"

    def _counter(self, name: str, meaning: str, *labels: str) -> Counter:
        self._describe(f"{name}_total", "counter", meaning, labels)
        return Counter(name, meaning, labels, namespace=NAMESPACE, registry=self._registry)

    def _gauge(self, name: str, meaning: str) -> Gauge:
        self._describe(name, "gauge", meaning)
        return Gauge(name, meaning, namespace=NAMESPACE, registry=self._registry)

    def _histogram(self, name: str, meaning: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        self._describe(name, "histogram", meaning, labels)
        return Histogram(name, meaning, labels, namespace=NAMESPACE, registry=self._registry, buckets=buckets)

    def _describe(self, name: str, kind: str, meaning: str, labels: tuple[str, ...] = ()) -> None:
        shown = ", ".join(f"`{label}`" for label in labels)
        self._rows.append(f"| `{NAMESPACE}_{name}` | {kind} | {shown} | {meaning} |")


def timed(blocks: Iterator[Samples], histogram: Histogram) -> Iterator[Samples]:
    """The same; the time that making them took is counted once they end."""
    seconds = 0.0
    try:
        while True:
            began = time.perf_counter()
            block = next(blocks, None)
            seconds += time.perf_counter() - began
            if block is None:
                break
            yield block
    finally:
        histogram.observe(seconds)


class TimedStream:
    """A detector's stream; the time that it took is counted at its end."""

    def __init__(self, stream: SpeechStream, histogram: Histogram) -> None:
        self._stream = stream
        self._histogram = histogram
        self._seconds = 0.0

    def probabilities(self, samples: Samples) -> npt.NDArray[np.float32]:
        """See `parakeet_stt.protocols.SpeechStream`."""
        began = time.perf_counter()
        found = self._stream.probabilities(samples)
        self._seconds += time.perf_counter() - began
        return found

    def rest(self) -> npt.NDArray[np.float32]:
        """See `parakeet_stt.protocols.SpeechStream`."""
        found = self._stream.rest()
        self._histogram.observe(self._seconds)
        return found
