"""Writes what was measured as one HTML file that needs nothing else: no network, audio and plots lie in it."""

from __future__ import annotations

import base64
import mimetypes
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from itertools import groupby
from statistics import fmean

import jinja2

from parakeet_stt.measure.benchmark import Benchmark
from parakeet_stt.measure.clips import Clip
from parakeet_stt.measure.evaluation import Outcome, Result
from parakeet_stt.measure.load import Loaded, percentiles_ms
from parakeet_stt.measure.pages.plots import Axis, Series, draw
from parakeet_stt.measure.word_errors import bootstrap_difference

CURVE_POINTS = 101  # of a distribution
LARGEST_AUDIO_BYTES = 8_000_000  # of a recording that is put into the page


@cache
def _pages() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("parakeet_stt.measure.pages"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(number=format_number, percentiles=percentiles_ms)
    return environment


def format_number(value: float, digits: int = 0) -> str:
    """A figure for a table: thousands apart, and a dash for what there is none of."""
    return "–" if value != value else f"{value:,.{digits}f}"


def differences(results: Sequence[Result]) -> list[tuple[Result, tuple[float, float]]]:
    """95 % intervals of each other server's word error rate less the first's on the same manifest, in percent.

    Only the recordings that count at both are compared.
    """
    found = []
    for _, group in groupby(results, key=lambda result: result.manifest):
        first, *others = group
        own = {one.index: one.errors for one in first.counted}
        for other in others:
            pairs = [(own[one.index], one.errors) for one in other.counted if one.index in own]
            interval = bootstrap_difference([pair[0] for pair in pairs], [pair[1] for pair in pairs])
            found.append((other, interval))
    return found


def mean_rates(results: Sequence[Result]) -> dict[str, float]:
    """The mean of the manifests' word error rates, for each server, in percent: the Open ASR Leaderboard's average."""
    servers = dict.fromkeys(result.target.name for result in results)
    return {name: fmean(one.errors.rate for one in results if one.target.name == name) for name in servers}


def render_evaluation(
    results: Sequence[Result], clips: Mapping[str, Mapping[int, Clip]], command: str, normalizer: str
) -> str:
    """The page of `parakeet evaluate`. clips: of each manifest, by their numbers, those to listen to, worst first."""
    worst = [
        {
            "name": outcomes[0].name,
            "seconds": outcomes[0].seconds,
            "audio": _data_url(clip),
            "outcomes": list(zip(names, outcomes, strict=True)),
        }
        for manifest, own in clips.items()
        for number, clip in own.items()
        for names, outcomes in [_outcomes(results, manifest, number)]
    ]
    return _pages().get_template("evaluation.html").render(
        results=results, differences=differences(results), means=mean_rates(results), worst=worst,
        command=command, normalizer=normalizer, when=_now(),
    )  # fmt: skip


def _outcomes(results: Sequence[Result], manifest: str, number: int) -> tuple[list[str], list[Outcome]]:
    own = [
        (result.target.name, outcome)
        for result in results
        if result.manifest == manifest
        for outcome in result.outcomes
        if outcome.index == number
    ]
    return [name for name, _ in own], [outcome for _, outcome in own]


def _data_url(clip: Clip) -> str:
    """The file as part of a page; empty if it is too large."""
    if len(clip.data) > LARGEST_AUDIO_BYTES:
        return ""
    kind = mimetypes.guess_type(clip.filename)[0] or "audio/wav"
    return f"data:{kind};base64,{base64.b64encode(clip.data).decode()}"


def render_benchmark(measured: Sequence[Benchmark], audio: str, command: str) -> str:
    """The page of `parakeet bench`. audio: what was sent, in words."""
    names = [one.target.name for one in measured]
    callers = Axis("callers", is_log=True)

    def lines(axis: Axis, value: str) -> object:
        series = [
            Series(one.target.name, tuple((row.callers, _read(row, value)) for row in one.closed)) for one in measured
        ]
        return draw(axis.label, callers, axis, series)

    curves = [Series(one.target.name, _curve(one.best)) for one in measured]
    plots = {
        "Speed of closed loops": lines(Axis("seconds of audio a second"), "rtfx"),
        "95 % of answers within, closed loops": lines(Axis("ms", is_log=True), "p95"),
        "Answers within a time, in the closed loop with the highest speed": draw(
            "answers within a time", Axis("ms", is_log=True), Axis("% of answers"), curves
        ),
        "95 % of live finals within, after the end of speech": draw(
            "live finals", Axis("speakers", is_log=True), Axis("ms"),
            [Series(one.target.name, tuple((row.speakers, row.final_p95) for row in one.live)) for one in measured],
        ),
    }  # fmt: skip
    return _pages().get_template("benchmark.html").render(
        measured=measured, plots=plots, names=names, audio=audio, command=command, when=_now()
    )  # fmt: skip


def _read(row: Loaded, value: str) -> float:
    return row.rtfx if value == "rtfx" else percentiles_ms(row.delays, 95)[0]


def _curve(row: Loaded | None) -> tuple[tuple[float, float], ...]:
    """Which share of answers came within which time, in percent and ms."""
    if row is None or not row.delays:
        return ()
    shares = [100 * step / (CURVE_POINTS - 1) for step in range(CURVE_POINTS)]
    return tuple(zip(percentiles_ms(row.delays, *shares), shares, strict=True))


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
