"""Knows a live session: sound and speech probabilities in, events out. Knows no clock, threads, detector or model.

A session hears windows of sound in order. Speech opens an utterance, a pause or a commit ends it, and one that lasts
too long is cut where speech is least likely, without the recognizer noticing: its memory goes on in the next one. What
is to be recognized is asked of `next_step`, and what was found is told to `stepped`; utterances are recognized one
after the other. Which input is legal when is `TRANSITIONS`; nothing else changes the state.

The same sound gives the same events and the same steps, however it was divided into frames.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from itertools import takewhile

import numpy as np

from parakeet_stt.audio import SAMPLE_RATE, Audio, Samples
from parakeet_stt.offline.vad_segments import WINDOW_SAMPLES
from parakeet_stt.protocols import FRAME_SAMPLES, Memory, Step, Stepped
from parakeet_stt.rolling_buffer import Held
from parakeet_stt.text.alignment import WORD_START, words_of
from parakeet_stt.text.transcript import Token, Word

MS = SAMPLE_RATE // 1000  # samples


class State(Enum):
    """Where a session stands."""

    LISTENING = auto()  # nobody speaks
    SPEAKING = auto()  # an utterance is open
    ENDING = auto()  # nothing more will be heard; what was heard is being recognized
    ENDED = auto()


class Input(Enum):
    """What changes that."""

    SPEECH = auto()
    PAUSE = auto()  # or a commit
    CUT = auto()  # of an utterance that lasts too long
    CLEAR = auto()
    END = auto()  # of the stream
    DONE = auto()  # with all that was heard


TRANSITIONS = {
    (State.LISTENING, Input.SPEECH): State.SPEAKING,
    (State.SPEAKING, Input.PAUSE): State.LISTENING,
    (State.SPEAKING, Input.CUT): State.SPEAKING,
    (State.SPEAKING, Input.CLEAR): State.LISTENING,
    (State.LISTENING, Input.CLEAR): State.LISTENING,
    (State.SPEAKING, Input.END): State.ENDING,
    (State.LISTENING, Input.END): State.ENDING,
    (State.ENDING, Input.DONE): State.ENDED,
}


@dataclass(frozen=True, slots=True)
class TurnRules:
    """When an utterance begins and ends.

    detects: False if only commits end utterances, and everything is heard as speech. onset, offset: thresholds to
    enter and to leave speech. silence_ms: of a pause that ends an utterance. pad_ms: of sound kept before speech, and
    after it as far as the pause allows. min_speech_ms: of speech before it counts. longest_ms: of an utterance.
    """

    detects: bool = True
    onset: float = 0.6
    offset: float = 0.45
    silence_ms: int = 250
    pad_ms: int = 120
    min_speech_ms: int = 64
    longest_ms: int = 8000


@dataclass(frozen=True, slots=True)
class StepRules:
    """How much is recognized at once, in frames of `FRAME_SAMPLES`.

    left, right: what is heard around each part. part: None for a whole utterance in one step, once it has ended.
    first: how often the beginning is looked at before the first part and what is heard after it are there: all of its
    words may still change then.
    """

    left: int = 63
    right: int = 8
    first: int = 5
    part: int | None = 10


_NOTHING = Stepped((), (), None)
LONGEST_PART = 300  # frames; what a step may take at most


@dataclass(frozen=True, slots=True)
class Started:
    """Speech was heard: an utterance is open. at: in samples, with the padding."""

    item: int
    at: int


@dataclass(frozen=True, slots=True)
class Stopped:
    """The utterance is over, and will be recognized to its end. start, end: in samples."""

    item: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Spoken:
    """More words of an utterance, which will not change. stable: these. unstable: what may follow them."""

    item: int
    stable: tuple[Word, ...]
    unstable: tuple[Word, ...]


@dataclass(frozen=True, slots=True)
class Final:
    """All words of an utterance; nothing more is said of it. rest: those that no `Spoken` has had."""

    item: int
    start: int
    end: int
    words: tuple[Word, ...]
    rest: tuple[Word, ...]


@dataclass(frozen=True, slots=True)
class Failed:
    """Instead of a `Final`: the recognizer has failed on a part of the utterance."""

    item: int


Event = Started | Stopped | Spoken | Final | Failed


@dataclass(slots=True, eq=False)
class _Utterance:
    """An utterance that is not final. Places are in samples of the session.

    origin: where its grid of frames begins, and what the recognizer has heard of it. reached: up to where it is
    recognized. known: how much had been heard when its end was known. is_cut: whether the next one goes on with its
    memory.
    """

    item: int
    start: int
    origin: int
    reached: int
    end: int | None = None
    known: int = 0
    is_cut: bool = False
    looks: int = 0  # before its first part
    memory: Memory | None = None
    tokens: list[Token] = field(default_factory=list)
    told: int = 0  # words
    skips: bool = False  # whether its first tokens belong to the word before
    is_failed: bool = False


class Session:
    """One stream of sound on its way to text."""

    def __init__(self, turns: TurnRules, steps: StepRules) -> None:
        self.turns = turns
        self.steps = steps
        self.state = State.LISTENING
        self._sound = Held()
        self._heard = 0  # samples whose windows have been looked at
        self._items = 0
        self._waiting: deque[_Utterance] = deque()  # the last one is open while somebody speaks
        self._floor = 0  # before which nothing belongs to an utterance to come
        self._speech = 0  # windows of speech in a row, while listening
        self._quiet: int | None = None  # since when there may be no speech
        self._likely: list[float] = []  # speech, in the windows of the open utterance
        self._at: _Utterance | None = None  # what the step belongs to that is being made
        self._step: Step | None = None

    @property
    def heard(self) -> int:
        """Samples that have come."""
        return self._sound.length

    @property
    def backlog(self) -> int:
        """Samples that wait for the recognizer."""
        return self.heard - self._waiting[0].reached if self._waiting else 0

    @property
    def held(self) -> int:
        """Samples that are kept."""
        return self._sound.kept

    @property
    def open_samples(self) -> int:
        """Length of the utterance that is open; 0 if none is."""
        return self.heard - self._waiting[-1].start if self.state is State.SPEAKING else 0

    # What is heard, and when it ends.

    def hear(self, samples: Samples, probabilities: Sequence[float]) -> list[Event]:
        """More sound, and the probability of speech in each window of `WINDOW_SAMPLES` that it completes.

        After the end it is not heard any more.
        """
        events: list[Event] = []
        if self.state in (State.ENDING, State.ENDED):
            return events
        self._sound.add(samples)
        if not self.turns.detects:
            self._heard += len(probabilities) * WINDOW_SAMPLES
            if len(samples) and self.state is State.LISTENING:
                events += self._open(self._floor)
            return events
        for probability in probabilities:
            self._heard += WINDOW_SAMPLES
            events += self._speaking(probability) if self.state is State.SPEAKING else self._listening(probability)
        self._forget()
        return events

    def commit(self) -> list[Event]:
        """End the open utterance here, if there is one."""
        return self._close(self.heard, self.heard, Input.PAUSE) if self.state is State.SPEAKING else []

    def clear(self) -> None:
        """Forget the open utterance, and what may have begun."""
        if self.state is State.SPEAKING:
            gone = self._waiting.pop()
            if gone is self._at:
                self._at = None
            if self._waiting:
                self._waiting[-1].is_cut = False  # nothing goes on with its memory any more
        self._go(Input.CLEAR)
        self._begin_anew(self.heard)

    def finish(self) -> list[Event]:
        """Nothing more will be heard."""
        events = self._close(self.heard, self.heard, Input.END) if self.state is State.SPEAKING else []
        if self.state is not State.ENDING:
            self._go(Input.END)
        return events + self._done()

    # What is recognized.

    def next_step(self, *, hurry: bool = False) -> Step | None:
        """What is to be recognized next; None if a step is under way, or nothing is to be done yet.

        hurry: take all that is there, since there is more than is recognized in time.
        """
        if self._at or not self._waiting:
            return None
        now = self._waiting[0]
        after = self._after(now, hurry=hurry)
        if after is None:
            return None
        end, right = after
        start = max(now.origin, now.reached - self.steps.left * FRAME_SAMPLES)
        audio = Audio(self._sound.cut(start, end + right))
        now.looks += end == now.reached
        self._at, self._step = now, Step(audio, now.reached - start, right, now.memory)
        return self._step

    def stepped(self, found: Stepped) -> list[Event]:
        """What the step has found that was asked for."""
        now, step = self._at, self._step
        self._at = self._step = None
        if now is None or step is None:  # it was cleared
            return []
        offset = (now.reached - step.before) / SAMPLE_RATE
        length = len(step.audio.samples) - step.before - step.after
        now.reached += length
        if length:
            now.memory = found.memory
            now.is_failed |= found is _NOTHING
        part = _later(found.part, offset)
        if now.skips:
            part = part[len(_continuation(part)) :]
            now.skips = not part
        now.tokens += part
        tail = _later(found.tail, offset)
        if now.end is not None and now.reached >= now.end:
            return self._final(now, tail)
        self._forget()
        if self.steps.part is None:
            return []
        end = now.reached + step.after
        words = _words(now, now.tokens, end)
        stable = words[now.told : max(now.told, len(words) - 1)]
        now.told += len(stable)
        return [Spoken(now.item, stable, _words(now, [*now.tokens, *tail], end)[now.told :])]

    def failed(self) -> list[Event]:
        """The step that was asked for could not be made."""
        return self.stepped(_NOTHING)

    # The rest is its own.

    def _go(self, given: Input) -> None:
        self.state = TRANSITIONS[self.state, given]

    def _begin_anew(self, floor: int) -> None:
        self._floor, self._speech, self._quiet, self._likely = floor, 0, None, []

    def _listening(self, probability: float) -> list[Event]:
        if probability < (self.turns.offset if self._speech else self.turns.onset):
            self._speech = 0
            return []
        self._speech += 1
        if self._speech * WINDOW_SAMPLES < self.turns.min_speech_ms * MS:
            return []
        begun = self._heard - self._speech * WINDOW_SAMPLES
        events = self._open(max(self._floor, begun - self.turns.pad_ms * MS))
        self._likely = [1.0] * self._speech
        return events

    def _speaking(self, probability: float) -> list[Event]:
        self._likely.append(probability)
        length, longest = self._heard - self._waiting[-1].start, self.turns.longest_ms * MS
        if probability >= self.turns.offset:
            dip, self._quiet = self._quiet, None
            if dip is not None and length >= longest * 2 / 3:  # speech goes on: better here than in a word
                return self._cut((dip + self._heard - WINDOW_SAMPLES) // 2)
        elif self._quiet is None:
            self._quiet = self._heard - WINDOW_SAMPLES
        if self._quiet is not None and self._heard - self._quiet >= self.turns.silence_ms * MS:
            end = min(self._quiet + self.turns.pad_ms * MS, self._heard)
            return self._close(max(end, self._waiting[-1].start), self._heard, Input.PAUSE)
        if length >= longest:
            recent = self._likely[-max(1, self.steps.right * FRAME_SAMPLES // WINDOW_SAMPLES) :]
            windows = len(recent) - int(np.argmin(recent))  # since the one in which speech is least likely
            return self._cut(self._heard - windows * WINDOW_SAMPLES + WINDOW_SAMPLES // 2)
        return []

    def _open(self, start: int) -> list[Event]:
        self._go(Input.SPEECH)
        start = max(start, self._sound.first)  # the rules may have changed since sound was let go
        self._waiting.append(_Utterance(self._items, start, start, start))
        self._items += 1
        return [Started(self._items - 1, start)] if self.turns.detects else []

    def _close(self, end: int, known: int, given: Input) -> list[Event]:
        now = self._waiting[-1]
        now.end, now.known = end, known
        self._go(given)
        self._begin_anew(end)
        return [Stopped(now.item, now.start, end), *self._settled()]

    def _cut(self, at: int) -> list[Event]:
        """End the utterance at the frame before `at`, or where the recognizer is already, and go on with another."""
        now = self._waiting[-1]
        now.end = max(now.reached, at - (at - now.origin) % FRAME_SAMPLES)
        now.known, now.is_cut = self._heard, True
        self._go(Input.CUT)
        self._waiting.append(_Utterance(self._items, now.end, now.origin, now.end))
        self._items += 1
        self._likely = []
        return [Stopped(now.item, now.start, now.end), Started(self._items - 1, now.end), *self._settled()]

    def _after(self, now: _Utterance, *, hurry: bool) -> tuple[int, int] | None:
        """Where the next step's part ends, and how much is heard after it; None if it is to be waited for."""
        right = self.steps.right * FRAME_SAMPLES
        part = (self.steps.part or LONGEST_PART) * FRAME_SAMPLES
        there = self.heard if now.end is None else min(self.heard, now.known)
        if (look := self._look(now, there, part + right)) and not hurry:
            return now.reached, look
        if hurry and self.steps.part:
            part = max(part, min(LONGEST_PART * FRAME_SAMPLES, (there - right - now.reached) // part * part))
        end = now.reached + part
        if end + right <= there and (now.end is None or not now.is_cut or end < now.end):
            return end, right
        if now.end is None:
            return None
        if not now.is_cut:
            return now.end, 0
        rest = min(right, self.heard - now.end)
        is_all = self.state in (State.ENDING, State.ENDED) or (
            len(self._waiting) > 1 and self._waiting[1].end is not None
        )
        return (now.end, rest) if rest and (rest == right or is_all) else (now.end, 0) if is_all else None

    def _look(self, now: _Utterance, there: int, enough: int) -> int:
        """How much of the beginning is to be looked at now, if anything. enough: for the first part."""
        if self.steps.part is None or now.reached > now.origin:
            return 0
        length = (now.looks + 1) * self.steps.first * FRAME_SAMPLES
        if length >= enough or now.origin + length > there:
            return 0
        return length

    def _final(self, now: _Utterance, tail: Sequence[Token] = ()) -> list[Event]:
        """The head of the queue is recognized to its end."""
        self._waiting.popleft()
        if now.is_cut and self._waiting:
            taken = _continuation(tail)
            now.tokens += taken
            following = self._waiting[0]
            following.memory, following.skips = now.memory, bool(taken)
            following.reached = max(following.reached, now.reached)
        assert now.end is not None
        words = _words(now, now.tokens, now.end)
        self._forget()
        final = Failed(now.item) if now.is_failed else Final(now.item, now.start, now.end, words, words[now.told :])
        return [final, *self._settled(), *self._done()]

    def _settled(self) -> list[Event]:
        """Finals of utterances that were recognized to their end before it was known."""
        now = self._waiting[0] if self._waiting else None
        if now and now is not self._at and now.end is not None and now.reached >= now.end:
            return self._final(now)
        return []

    def _done(self) -> list[Event]:
        if self.state is State.ENDING and not self._waiting:
            self._go(Input.DONE)
        return []

    def _forget(self) -> None:
        """Sound that neither the recognizer nor an utterance to come needs."""
        if self._waiting:
            first = self._waiting[0]
            need = max(first.origin, first.reached - self.steps.left * FRAME_SAMPLES)
        else:
            before = (self.turns.pad_ms + self.turns.min_speech_ms) * MS + WINDOW_SAMPLES
            need = max(self._floor, self._heard - before)
        self._sound.forget(need)


def _words(now: _Utterance, tokens: Sequence[Token], end: int) -> tuple[Word, ...]:
    """The words of these tokens, in an utterance that reaches up to `end`."""
    start = now.start / SAMPLE_RATE
    words = words_of(_later(tokens, -start), end / SAMPLE_RATE - start)
    return tuple(word.shifted(start) for word in words)


def _later(tokens: Sequence[Token], seconds: float) -> tuple[Token, ...]:
    return tuple(dataclasses.replace(one, start=one.start + seconds, end=one.end + seconds) for one in tokens)


def _continuation(tokens: Sequence[Token]) -> list[Token]:
    """The first tokens, as far as they go on with a word that has begun before."""
    return list(takewhile(lambda token: not token.piece.startswith(WORD_START), tokens))
