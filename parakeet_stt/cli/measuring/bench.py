"""`parakeet bench`: servers under load, side by side."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from parakeet_stt.cli.exits import Exit
from parakeet_stt.cli.measuring.options import (
    SERVER,
    ApiKeys,
    AsJson,
    Html,
    command_line,
    parse_numbers,
    parse_servers,
    require_extra,
    show_table,
    to_json,
    write_report,
)

if TYPE_CHECKING:
    from parakeet_stt.measure.api import Target
    from parakeet_stt.measure.benchmark import Benchmark, Plan
    from parakeet_stt.measure.clips import Clip, Pcm, Phrase

LONGEST_AUDIO_SECONDS = 3600  # that is read of --audio
PHRASES = 8  # that live speakers say
PHRASE_SECONDS = (1.5, 8.0)


def bench(  # one for each option
    urls: Annotated[list[str], typer.Argument(metavar=f"{SERVER}...", help="The servers, measured one after another.")],
    api_key: ApiKeys = None,
    audio: Annotated[
        Path | None,
        typer.Option(
            help="Speech to cut clips from: a file, or a folder of files. The samples of a checkout unless given."
        ),
    ] = None,
    clips: Annotated[int, typer.Option(min=1, help="How many clips.")] = 32,
    lengths: Annotated[str, typer.Option(help="Shortest and longest clip, in seconds.")] = "1,30",
    callers: Annotated[
        str, typer.Option(help="Closed loops: callers that send a clip when they have their answer.")
    ] = "1,8,32",
    rates: Annotated[str, typer.Option(help="Open loops: clips a second, which wait for nobody.")] = "",
    shares: Annotated[
        str, typer.Option(help="Open loops too, as parts of the best rate of the server's own closed loops.")
    ] = "0.5,0.8,1.2",
    speakers: Annotated[
        str, typer.Option(help="Live speakers, where there is a realtime socket; empty for none.")
    ] = "1,8",
    seconds: Annotated[float, typer.Option(min=1, help="Of each load; the first quarter does not count.")] = 20.0,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds after which a request has failed.")] = 300.0,
    html: Html = None,
    as_json: AsJson = False,
) -> None:
    """Measure servers that speak OpenAI's audio API under load: speed, delays, errors, changed texts, live delays.

    Exit status: 0; 1 if a server could not be measured; 2 if the command is wrong.
    """
    require_extra()
    from parakeet_stt.measure.benchmark import Plan
    from parakeet_stt.measure.clips import RATE, cut_clips, cut_phrases, join
    from parakeet_stt.measure.pages.report import render_benchmark

    plan = Plan(
        callers=parse_numbers(callers, int, "--callers"),
        rates=parse_numbers(rates, float, "--rates"),
        shares=parse_numbers(shares, float, "--shares"),
        speakers=parse_numbers(speakers, int, "--speakers"),
        seconds=seconds,
        timeout=timeout,
    )
    bounds = parse_numbers(lengths, float, "--lengths")
    if len(bounds) != 2 or bounds[0] > bounds[1]:
        raise typer.BadParameter(f"{lengths!r}: the shortest and the longest, as 1,30", param_hint="--lengths")
    targets = parse_servers(urls, api_key)
    recordings = _read_audio(audio)
    cut = cut_clips(join(recordings), clips, *bounds)
    phrases = [phrase for samples in recordings for phrase in cut_phrases(samples, *PHRASE_SECONDS)][:PHRASES]
    total = sum(clip.seconds for clip in cut)
    said = (
        f"{clips} clips of {bounds[0]:g} to {bounds[1]:g} s, {total / clips:.1f} s in the mean, wav, cut from "
        f"{sum(map(len, recordings)) / RATE:.0f} s of audio; loads of {seconds:g} s, of which the first quarter does "
        f"not count; {len(phrases)} phrases for live speakers"
    )
    measured = asyncio.run(_measure_all(targets, cut, phrases, plan))
    if as_json:
        for one in measured:
            typer.echo(to_json(_describe(one)))
    else:
        typer.echo(said + "\n")
        _show(measured)
    write_report(html, lambda: render_benchmark(measured, said, command_line()))
    if any(one.failure for one in measured):
        raise typer.Exit(Exit.FAILED)


def _read_audio(path: Path | None) -> list[Pcm]:
    """The recordings at a path, up to an hour of them. Raises typer.BadParameter if there are none."""
    import av

    from parakeet_stt.audio import RECORDING_SUFFIXES
    from parakeet_stt.engines.catalogue import BUNDLED_FILE
    from parakeet_stt.measure.clips import RATE, decode

    place = path or BUNDLED_FILE.parent / "samples"
    inside = sorted(file for file in place.rglob("*") if file.suffix.lower() in RECORDING_SUFFIXES)
    files = inside if place.is_dir() else [place]
    recordings: list[Pcm] = []
    for file in files:
        try:
            recordings.append(decode(file.read_bytes()))
        except (OSError, av.FFmpegError, IndexError) as error:
            raise typer.BadParameter(f"{file}: {error}", param_hint="--audio") from None
        if sum(map(len, recordings)) > LONGEST_AUDIO_SECONDS * RATE:
            break
    if not any(map(len, recordings)):
        wanted = "has no audio" if path else "is not here: the samples are only in a checkout; give a file or a folder"
        raise typer.BadParameter(f"{place} {wanted}", param_hint="--audio")
    return recordings


async def _measure_all(
    targets: Sequence[Target], clips: Sequence[Clip], phrases: Sequence[Phrase], plan: Plan
) -> list[Benchmark]:
    from rich.console import Console

    from parakeet_stt.measure.benchmark import measure_server

    measured = []
    console = Console(stderr=True)
    for target in targets:
        with console.status(target.name) as status:

            def say(what: str, target: Target = target) -> None:
                status.update(f"{target.name}: {what}")

            measured.append(await measure_server(target, clips, phrases, plan, say))
    return measured


def _describe(one: Benchmark) -> dict[str, object]:
    """A server for --json."""
    from parakeet_stt.measure.load import percentiles_ms

    def delays(values: Sequence[float]) -> dict[str, float]:
        return dict(zip(("p50_ms", "p95_ms", "p99_ms"), percentiles_ms(values, 50, 95, 99), strict=True))

    loads = [{**asdict(row), "delays": delays(row.delays)} for row in one.loads]
    live = [{name: value for name, value in asdict(row).items() if name != "texts"} for row in one.live]
    return {
        "server": one.target.name, "url": one.target.url, "model": one.target.model, "failure": one.failure or None,
        "unsupported": {name: why for name, why in asdict(one.abilities).items() if why}, "alone": delays(one.alone),
        "loads": loads, "live": live, "notes": one.notes,
    }  # fmt: skip


def _show(measured: Sequence[Benchmark]) -> None:
    from parakeet_stt.measure.load import percentiles_ms
    from parakeet_stt.measure.pages.report import format_number

    def delays(values: Sequence[float]) -> list[str]:
        return [format_number(value) for value in percentiles_ms(values, 50, 95, 99)]

    rows = []
    for one in measured:
        if one.alone:
            rows.append(
                [one.target.name, "each clip alone", str(len(one.alone)), "0", "", *delays(one.alone), "", "", ""]
            )
        for row in one.loads:
            rows.append([
                one.target.name, row.load, str(row.requests), str(row.failed), format_number(row.rtfx, 1),
                *delays(row.delays), str(row.changed), format_number(row.changed_words, 2), str(row.mixed_up),
            ])  # fmt: skip
    show_table(
        "Files; p50, p95, p99 in ms; changed and mixed up: answers that are not the unloaded ones",
        ("server", "load", "requests", "errors", "RTFx", "p50", "p95", "p99", "changed", "words %", "mixed up"),
        rows, names=2,
    )  # fmt: skip
    live = [
        [
            one.target.name, *map(str, (row.speakers, row.phrases, row.failed)),
            *map(format_number, (row.words_p50, row.words_p95, row.final_p50, row.final_p95, row.final_p99, row.drift)),
            *(("", "") if number == 0 else (str(row.changed), str(row.mixed_up))), format_number(row.late),
        ]
        for one in measured
        for number, row in enumerate(one.live)
    ]  # fmt: skip
    if live:
        show_table(
            "Live, ms: first words after speech begins, finals after it ends; late: this client's own sending",
            ("server", "speakers", "phrases", "errors", "words p50", "p95", "final p50", "p95", "p99", "drift",
             "changed", "mixed up", "late"),
            live,
        )  # fmt: skip
    for one in measured:
        lines = [f"nothing was measured: {one.failure}"] if one.failure else []
        lines += [f"no {what}: {why}" for what, why in asdict(one.abilities).items() if why]
        lines += [*one.notes]
        lines += [f"{row.load}: {count} × {error}" for row in one.loads for error, count in row.errors.items()]
        lines += [f"{row.speakers} speakers: {n} × {error}" for row in one.live for error, n in row.errors.items()]
        for line in lines:
            typer.echo(f"{one.target.name}: {line}")
