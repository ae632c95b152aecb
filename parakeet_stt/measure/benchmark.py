"""Measures servers one after another: what they support, unloaded answers, closed and open loops, live speakers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import httpx

from parakeet_stt.measure.api import (
    DEFAULT_MODEL,
    Abilities,
    Answer,
    Clients,
    Target,
    describe,
    find_model,
    has_stream,
    has_word_times,
    transcribe,
)
from parakeet_stt.measure.clips import Clip, Phrase
from parakeet_stt.measure.live_load import LiveLoaded, has_realtime, measure_speakers, prepare
from parakeet_stt.measure.load import Loaded, measure_load


@dataclass(frozen=True)
class Plan:
    """What to measure. callers: of the closed loops. rates: of the open loops, requests a second.

    shares: of open loops too, as parts of the best rate that the server's own closed loops reached. speakers: of the
    live loads; none are measured without. seconds: of each load. timeout: of a request, in seconds.
    """

    callers: tuple[int, ...] = (1, 8, 32)
    rates: tuple[float, ...] = ()
    shares: tuple[float, ...] = (0.5, 0.8, 1.2)
    speakers: tuple[int, ...] = (1, 8)
    seconds: float = 20.0
    timeout: float = 300.0


@dataclass(frozen=True)
class Benchmark:
    """What was measured of a server. alone: seconds of each clip's answer, one after another, nothing else asked.

    failure: why nothing was measured. notes: what was not, and why.
    """

    target: Target
    abilities: Abilities
    alone: tuple[float, ...] = ()
    closed: tuple[Loaded, ...] = ()
    open: tuple[Loaded, ...] = ()
    live: tuple[LiveLoaded, ...] = ()
    notes: tuple[str, ...] = ()
    failure: str = ""

    @property
    def loads(self) -> tuple[Loaded, ...]:
        return (*self.closed, *self.open)

    @property
    def best(self) -> Loaded | None:
        """The closed loop with the highest speed."""
        return max(self.closed, key=lambda row: row.rtfx, default=None)


async def look_at(client: httpx.AsyncClient, target: Target, clip: Clip) -> tuple[Target, Abilities]:
    """What a server supports; a target without a model gets the first that the server lists. clip: with speech."""
    try:
        found, models = await find_model(client, target)
    except httpx.TransportError as error:
        found, models = DEFAULT_MODEL, describe(error)
    target = replace(target, model=target.model or found)
    return target, Abilities(
        models=models,
        words=await has_word_times(client, target, clip),
        stream=await has_stream(client, target, clip),
        realtime=await has_realtime(target),
    )


async def measure_server(
    target: Target, clips: Sequence[Clip], phrases: Sequence[Phrase], plan: Plan, say: Callable[[str], None]
) -> Benchmark:
    """All loads of the plan. say: called with what is measured next. Never raises: a benchmark says what failed."""
    async with Clients(plan.timeout) as clients, clients.one() as client:
        say("what it supports")
        target, abilities = await look_at(client, target, clips[0])
        say("each clip alone")
        answers = [await transcribe(client, target, clip) for clip in clips]
        kept = [number for number, answer in enumerate(answers) if not answer.error]
        if not kept:
            return Benchmark(target, abilities, failure=answers[0].error)
        clips, texts = [clips[number] for number in kept], [answers[number].text for number in kept]
        closed = []
        for callers in plan.callers:
            say(f"{callers} callers")
            closed.append(await measure_load(clients, target, clips, plan.seconds, callers=callers, unloaded=texts))
        mean = sum(clip.seconds for clip in clips) / len(clips)
        best = max((row.rtfx for row in closed), default=0.0) / mean  # requests a second
        opened = []
        for rate in (*plan.rates, *(share * best for share in plan.shares)):
            if rate > 0:
                say(f"{rate:.2g} requests a second")
                opened.append(await measure_load(clients, target, clips, plan.seconds, rate=rate, unloaded=texts))
    return Benchmark(
        target,
        abilities,
        alone=tuple(answers[number].seconds for number in kept),
        closed=tuple(closed),
        open=tuple(opened),
        live=tuple(await _measure_live(target, phrases, plan, say)) if not abilities.realtime else (),
        notes=tuple(_notes(answers, abilities, plan, phrases)),
    )


async def _measure_live(
    target: Target, phrases: Sequence[Phrase], plan: Plan, say: Callable[[str], None]
) -> list[LiveLoaded]:
    """One speaker first, whose answers are the unloaded ones."""
    rows: list[LiveLoaded] = []
    if plan.speakers and phrases:
        spoken = prepare(phrases)
        for count in (1, *(count for count in plan.speakers if count > 1)):
            say(f"{count} speakers")
            texts = rows[0].texts if rows else ()
            rows.append(await measure_speakers(target, spoken, count, plan.seconds, unloaded=texts))
    return rows


def _notes(answers: Sequence[Answer], abilities: Abilities, plan: Plan, phrases: Sequence[Phrase]) -> list[str]:
    notes = []
    failed = [answer.error for answer in answers if answer.error]
    if failed:
        notes.append(f"{len(failed)} of {len(answers)} clips fail already alone and are left out: {failed[0]}")
    if sum(not answer.text.strip() for answer in answers if not answer.error):
        empty = sum(not answer.text.strip() for answer in answers if not answer.error)
        notes.append(f"{empty} clips are answered without words")
    if plan.speakers and abilities.realtime:
        notes.append(f"live speech is not measured: {abilities.realtime}")
    if plan.speakers and not phrases:
        notes.append("live speech is not measured: the audio has no phrase of 1.5 to 8 s between pauses")
    return notes
