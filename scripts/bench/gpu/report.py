"""The benchmark's outcomes as Markdown: the rows of docs/benchmarks.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from scripts.bench.gpu.plan import Outcome


def render(about: Mapping[str, Any], outcomes: Mapping[str, Outcome]) -> str:
    """All sections, with the reason in place of those that failed."""
    weights = " (**random weights**)" if about["random_weights"] else ""
    machine = outcomes["machine"].result if "machine" in outcomes else None
    on = f"{machine['processor']}, torch {machine['torch']}, " if machine else ""
    lines = [f"{on}{about['model']}{weights}: `{about['command']}`", ""]
    renderers = {"agreement": _agreement, "stages": _stages, "engine": _engine, "nemo": _nemo, "graphs": _graphs,
                 "memory": _memory, "profile": _profile, "served": _served, "live": _live}  # fmt: skip
    for name, outcome in outcomes.items():
        if outcome.status != "ok":
            lines += [f"{name}: {outcome.status}, {outcome.reason}", ""]
        elif name in renderers:
            lines += [*renderers[name](outcome.result, outcomes), ""]
    return "\n".join(lines)


def table(headings: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    """A Markdown table."""
    lines = [headings, ["---"] * len(headings), *rows]
    return [f"| {' | '.join(str(cell) for cell in line)} |" for line in lines]


def rate_share(cell: Mapping[str, Any], matrix: Outcome | None) -> str:
    """The share of the measured matrix rate that a cell's speed is, in percent; empty if that was not measured."""
    if matrix is None or matrix.status != "ok" or cell["precision"] not in matrix.result["tflops"]:
        return ""
    tflops = matrix.result["tflops"][cell["precision"]]["layer"]
    work: Mapping[Any, float] = matrix.result["gflop_per_second_of_audio"]
    gflop = min(work.items(), key=lambda item: abs(float(item[0]) - cell["clip_seconds"]))[1]
    return f"{100 * cell['rtfx'] * gflop / 1000 / tflops:.1f} %"


def _engine(result: Mapping[str, Any], outcomes: Mapping[str, Outcome]) -> list[str]:
    lines = table(
        ["precision", "clips", "batch", "× real time", "of the matrix rate", "ms for a batch alone", "graph for", "GB"],
        [
            (cell["precision"], f"{cell['clip_seconds']} s", cell["batch"], cell["rtfx"],
             rate_share(cell, outcomes.get("matrix")), cell["latency_ms"], cell["captured"], cell["memory_gb"])
            for cell in result["cells"]
        ],
    )  # fmt: skip
    return [*lines, *(f"not run: {reason}" for reason in result["not_run"])]


def _nemo(result: Mapping[str, Any], outcomes: Mapping[str, Outcome]) -> list[str]:
    ours = outcomes["engine"].result if "engine" in outcomes and outcomes["engine"].status == "ok" else {"cells": []}
    speed = {(cell["precision"], cell["clip_seconds"], cell["batch"]): cell["rtfx"] for cell in reversed(ours["cells"])}
    return table(
        ["NeMo's `transcribe()`", "clips", "batch", "× real time", "this engine"],
        [
            (cell["precision"], f"{cell['clip_seconds']} s", cell["batch"], cell["rtfx"],
             speed.get((cell["precision"], cell["clip_seconds"], cell["batch"]), ""))
            for cell in result["cells"]
        ],
    )  # fmt: skip


def _agreement(result: Mapping[str, Any], _: Mapping[str, Outcome]) -> list[str]:
    rows: list[tuple[object, ...]] = []
    for precision, compared in result["recognizer"].items():
        for name, own in compared.items():
            if isinstance(own, str):
                rows.append((precision, name, own, "", "", ""))
            else:
                rows.append((precision, name, own["utterances"], own["same_tokens"], own["same_times"],
                             own["logprobs_apart"]))  # fmt: skip
    own = result["detector"]
    headings = ("precision", "the bundled model", "utterances", "same tokens", "and times", "log-probabilities apart")
    said = (
        f"detector: {own['windows']} windows within {own['apart']:.1e} of the CPU's, {own['other_side_of_half']} on "
        f"the other side of a half; {own['rtfx_of_one_stream']} × real time for one stream"
    )
    return [*table(headings, rows), "", said]


def _stages(result: Mapping[str, Any], _: Mapping[str, Outcome]) -> list[str]:
    names = list(result["rows"][0]["steps"]) if result["rows"] else []
    rows = [
        (f"{row['batch']} × {row['clip_seconds']} s",
         *(f"{row['steps'][name]['ms']} ({row['steps'][name]['host_ms']})" for name in names))
        for row in result["rows"]
    ]  # fmt: skip
    return table(("batch: ms (until queued)", *names), rows)


def _graphs(result: Mapping[str, Any], _: Mapping[str, Outcome]) -> list[str]:
    rows = [
        (mode, f"{cell['clip_seconds']} s", cell["batch"], cell["latency_ms"], cell["rtfx"], own["seconds"])
        for mode, own in result.items()
        for cell in own["cells"]
    ]
    return table(["encoder", "clips", "batch", "ms", "× real time", "s of the warm-up"], rows)


def _memory(result: Mapping[str, Any], _: Mapping[str, Outcome]) -> list[str]:
    return [
        f"too large a batch: {result['outcome']}; the batch in flight "
        f"{'survived' if result['in_flight_survived'] else 'WAS LOST'}, the next one "
        f"{'works' if result['next_batch_survived'] else 'FAILS'}; "
        f"{result['capacity_seconds'] or 0:.0f} padded seconds fit into one batch"
    ]


def _profile(result: Mapping[str, Any], _: Mapping[str, Outcome]) -> list[str]:
    head = (
        f"{result['batches']} batches of {result['batch']} × {result['clip_seconds']} s in {result['wall_ms']} ms, "
        f"kernels busy for {100 * result['busy']:.0f} %:"
    )
    rows = [(f"`{one['name'][:60]}`", one["ms"], f"{one['percent']} %", one["calls"]) for one in result["kernels"]]
    return [head, "", *table(["kernel", "ms", "of the time", "calls"], rows)]


def _served(result: Mapping[str, Any], _: Mapping[str, Outcome]) -> list[str]:
    names = ("load", "requests", "errors", "rtfx", "share_of_engine", "p50_ms", "p95_ms", "fill", "items")
    rows = [[row[name] for name in names] for row in result["rows"]]
    headings = ("over HTTP", "requests", "errors", "× real time", "÷ engine", "p50 ms", "p95 ms", "fill", "items")
    return table(headings, rows)


def _live(result: Mapping[str, Any], _: Mapping[str, Outcome]) -> list[str]:
    rows = [
        [row[name] for name in ("speakers", "errors", "finals", "final_p50", "final_p95", "first_partial_p50",
                                "device_busy", "speakers_behind_p99")]
        for row in result["rows"]
    ]  # fmt: skip
    headings = ("sessions", "errors", "finals", "p50 ms", "p95 ms", "first partial ms", "busy", "speakers late, ms")
    said = f"at most {result['at_most']} sessions with 95 % of finals within {result['limit_ms']:.0f} ms"
    return [*table(headings, rows), "", said]
