"""`parakeet evaluate`: word error rates of servers on anybody's own recordings."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from parakeet_stt.cli.exits import Exit
from parakeet_stt.cli.measuring.options import (
    SERVER,
    ApiKeys,
    AsJson,
    Html,
    command_line,
    parse_servers,
    require_extra,
    show_table,
    to_json,
    write_report,
)
from parakeet_stt.cli.server import DEFAULT_URL

if TYPE_CHECKING:
    from parakeet_stt.measure.api import Target
    from parakeet_stt.measure.clips import Clip
    from parakeet_stt.measure.evaluation import Outcome, Result, Rules
    from parakeet_stt.measure.manifests import Manifest

Manifests = Annotated[
    list[Path],
    typer.Argument(
        metavar="MANIFEST...",
        help="Recordings and what is said in them: .jsonl or .json as NeMo and Hugging Face have them, .csv, .tsv, "
        ".parquet, or a folder with a .txt beside each recording.",
    ),
]


def evaluate(  # one for each option
    manifests: Manifests,
    url: Annotated[
        list[str],
        typer.Option(
            "--url", envvar="OPENAI_BASE_URL", metavar=SERVER, help="A server; again for more.", show_envvar=True
        ),
    ] = [DEFAULT_URL],  # noqa: B006  (typer reads it, nothing changes it)
    api_key: ApiKeys = None,
    normalizer: Annotated[
        Literal["english", "plain", "none"],
        typer.Option(
            help="What is compared: words as Whisper's English normalizer writes them; in lower case without "
            "punctuation; as they stand."
        ),
    ] = "english",
    concurrency: Annotated[int, typer.Option("--concurrency", "-n", min=1, help="Requests at once.")] = 8,
    language: Annotated[str, typer.Option(help="The language to ask for, as en.")] = "",
    limit: Annotated[int, typer.Option(min=0, help="Only the first so many recordings of each manifest.")] = 0,
    audio_field: Annotated[str | None, typer.Option(help="The manifest's field that has the audio.")] = None,
    text_field: Annotated[str | None, typer.Option(help="The manifest's field that has the text.")] = None,
    html: Html = None,
    worst: Annotated[int, typer.Option(min=0, help="How many of the worst recordings the report has.")] = 20,
    details: Annotated[Path | None, typer.Option(help="Write each recording's result here, as JSON lines.")] = None,
    as_json: AsJson = False,
) -> None:
    """Measure how many words servers get wrong, on your own recordings.

    Exit status: 0; 1 if a recording has no transcript; 2 if the command or a manifest is wrong; 3 if a server is away.
    """
    require_extra()
    from parakeet_stt.measure.evaluation import Rules, load_again
    from parakeet_stt.measure.manifests import BadManifest, Fields, find_manifests
    from parakeet_stt.measure.normalizers import NORMALIZERS
    from parakeet_stt.measure.pages.report import render_evaluation

    rules = Rules(NORMALIZERS[normalizer], concurrency, language, limit)
    lists = find_manifests(manifests, Fields(audio_field, text_field))
    try:
        results = asyncio.run(_evaluate_all(lists, parse_servers(url, api_key), rules))
        clips: dict[str, dict[int, Clip]] = {}
        for manifest in lists if html else ():
            own = [result for result in results if result.manifest == manifest.name]
            chosen = _find_worst(own, worst)
            loaded = load_again(manifest, chosen)
            clips[manifest.name] = {index: loaded[index] for index in chosen if index in loaded}
    except BadManifest as error:
        raise typer.BadParameter(str(error), param_hint="MANIFEST") from None
    if as_json:
        for result in results:
            typer.echo(to_json(_summarize(result, normalizer)))
    else:
        _show(results, normalizer)
    lines = (to_json(_describe(result, one)) + "\n" for result in results for one in result.outcomes)
    write_report(details, lambda: "".join(lines))
    write_report(html, lambda: render_evaluation(results, clips, command_line(), normalizer))
    if any(result.failures for result in results):
        raise typer.Exit(Exit.FAILED)


async def _evaluate_all(manifests: Sequence[Manifest], targets: Sequence[Target], rules: Rules) -> list[Result]:
    """Each manifest at each server, one after another, so that their speeds can be compared."""
    import httpx
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from parakeet_stt.measure.api import describe, find_model
    from parakeet_stt.measure.evaluation import evaluate as measure

    counts = [len(manifest) for manifest in manifests]  # a wrong manifest is told before a server is asked
    found = []
    async with httpx.AsyncClient(timeout=30) as client:
        for target in targets:
            try:
                listed, _ = await find_model(client, target)
            except httpx.TransportError as error:
                typer.echo(f"parakeet: {target.url} can't be reached: {describe(error)}", err=True)
                raise typer.Exit(Exit.NO_SERVER) from None
            found.append(replace(target, model=target.model or listed))
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    results = []
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        for manifest, count in zip(manifests, counts, strict=True):
            for target in found:
                total = min(count, rules.limit or count)
                task = progress.add_task(f"{manifest.name}, {target.name}", total=total)

                def advance(outcome: Outcome, task: object = task) -> None:
                    progress.advance(task)  # type: ignore[arg-type]

                results.append(await measure(manifest, target, rules, advance))
    return results


def _find_worst(results: Sequence[Result], count: int) -> list[int]:
    """The numbers of the recordings with the most errors at all servers together, worst first."""
    errors: dict[int, int] = {}
    for result in results:
        for one in result.outcomes:
            wrong = len(one.said.split()) if one.failure else one.errors.total
            errors[one.index] = errors.get(one.index, 0) + wrong
    chosen = sorted((index for index in errors if errors[index]), key=lambda index: -errors[index])
    return chosen[:count]


def _describe(result: Result, one: Outcome) -> dict[str, object]:
    """A recording for --details."""
    return {
        "manifest": result.manifest, "server": result.target.name, "name": one.name, "seconds": one.seconds,
        "text": one.said, "found": one.found, **asdict(one.errors), "wer": one.errors.rate, "took": one.took,
        "failure": one.failure or None,
    }  # fmt: skip


def _summarize(result: Result, normalizer: str) -> dict[str, object]:
    """A result for --json."""
    return {
        "manifest": result.manifest, "server": result.target.name, "url": result.target.url,
        "model": result.target.model, "normalizer": normalizer, "recordings": len(result.counted),
        "failed": len(result.failures), **asdict(result.errors), "wer": result.errors.rate, "wer_95": result.interval,
        "seconds": result.seconds, "rtfx": result.rtfx, "times": asdict(result.times) if result.times else None,
        "notes": result.notes,
    }  # fmt: skip


def _show(results: Sequence[Result], normalizer: str) -> None:
    from parakeet_stt.measure.pages.report import differences, format_number, mean_rates

    show_table(
        f"Word error rate, words compared as “{normalizer}”, with 95 % intervals",
        ("manifest", "server", "WER %", "from", "to", "words", "errors", "sub", "del", "ins", "clips", "hours", "RTFx"),
        [
            (
                one.manifest, one.target.name, format_number(one.errors.rate, 2),
                *(format_number(bound, 2) for bound in one.interval),
                *map(str, (one.errors.words, one.errors.total, one.errors.substitutions, one.errors.deletions,
                           one.errors.insertions, len(one.counted))),
                format_number(one.seconds / 3600, 2), format_number(one.rtfx, 1),
            )
            for one in results
        ],
        names=2,
    )  # fmt: skip
    if timed := [one for one in results if one.times]:
        show_table(
            "Word times, ms",
            ("manifest", "server", "words", "start p50", "p95", "end p50", "p95"),
            [(one.manifest, one.target.name, *map(str, asdict(one.times).values())) for one in timed if one.times],
            names=2,
        )
    if len({one.manifest for one in results}) > 1:
        for name, rate in mean_rates(results).items():
            typer.echo(f"{name}: mean of the manifests {format_number(rate, 2)} %")
    for one, (low, high) in differences(results):
        first = next(other.target.name for other in results if other.manifest == one.manifest)
        typer.echo(f"{one.manifest}: {one.target.name} less {first}: {low:+.2f} to {high:+.2f} points (95 %)")
    for one in results:
        for note in one.notes:
            typer.echo(f"{one.manifest}, {one.target.name}: {note}")
