"""Memory, processor time and open files of all processes of the service, under prometheus_client's own names."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

PROC = Path("/proc")


class ServiceCollector(Collector):
    """Sums over a process and all that it and its children have started. Elsewhere than on Linux it finds nothing.

    Processor time never falls, although the time of a process that has ended is not known any more. The start is the
    first process's, limits are the smallest.
    """

    def __init__(self, first: int) -> None:
        """first: number of the process that has started the others."""
        self._first = first
        self._spent = 0.0

    def collect(self) -> Iterable[Metric]:
        """Called by prometheus_client."""
        values: defaultdict[str, list[float]] = defaultdict(list)
        meanings: dict[str, str] = {}
        for process in descendants(self._first):
            collector = ProcessCollector(registry=CollectorRegistry(), pid=lambda process=process: process)  # type: ignore[misc]
            for metric in collector.collect():
                meanings[metric.name] = metric.documentation
                values[metric.name] += [sample.value for sample in metric.samples]
        for name, found in values.items():
            if name == "process_cpu_seconds":
                self._spent = max(self._spent, sum(found))
                yield CounterMetricFamily(name, meanings[name], self._spent)
            else:
                whole = min(found) if name in ("process_start_time_seconds", "process_max_fds") else sum(found)
                yield GaugeMetricFamily(name, meanings[name], whole)


def descendants(first: int) -> Iterator[int]:
    """The process, its children, their children, and so on."""
    children: defaultdict[int, list[int]] = defaultdict(list)
    for entry in PROC.glob("[0-9]*"):
        try:
            after_name = (entry / "stat").read_text().rpartition(")")[2]
        except OSError:  # it has ended
            continue
        children[int(after_name.split()[1])].append(int(entry.name))
    waiting = [first] if (PROC / str(first)).exists() else []
    while waiting:
        process = waiting.pop()
        yield process
        waiting += children[process]


def service_collector() -> ServiceCollector:
    """Of the service that this front belongs to: its parent has started all processes."""
    return ServiceCollector(os.getppid())
