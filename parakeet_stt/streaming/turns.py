"""Turns: what clients get as one item. With detection a turn is an utterance; otherwise all between two commits.

The endpointer finds utterances in either case, so that the recognizer gets no silence but their padding: models invent
words for silence. Utterances are final in order, and so are turns.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from parakeet_stt.audio import Span
from parakeet_stt.streaming.chunk_decoder import Failed, Final, Partial
from parakeet_stt.text.coverage import compare
from parakeet_stt.text.transcript import SpeechCoverage, Word
from parakeet_stt.vad import WINDOW_SAMPLES

MOST_BEFORE = 64  # windows with speech that are kept while no turn is open: two seconds, the longest padding


@dataclass(frozen=True, slots=True)
class SpeechStarted:
    """An utterance is open; to clients: a turn. at: its start in samples, padding included."""

    item: int
    at: int


@dataclass(frozen=True, slots=True)
class SpeechStopped:
    """The utterance or turn has ended, and will be decoded to its end. start, end: in samples."""

    item: int
    start: int
    end: int


Event = SpeechStarted | SpeechStopped | Partial | Final | Failed


@dataclass(slots=True, eq=False)
class _Turn:
    """A turn that is not final. waiting: number of its utterances that are not. rest: words that no Partial had."""

    item: int
    start: int
    end: int | None = None
    waiting: int = 0
    words: list[Word] = field(default_factory=list)
    rest: list[Word] = field(default_factory=list)
    has_failed: bool = False


class _Speech:
    """The windows with speech of the turns that are not final."""

    def __init__(self) -> None:
        self._count = 0  # of all windows
        self._windows = array("q")  # numbers of those with speech
        self._before: tuple[Word, ...] = ()  # the last word of the last turn: after a cut it may reach into the next

    def push(self, is_speech: bool) -> None:
        """The next window of the stream."""
        if is_speech:
            self._windows.append(self._count)
        self._count += 1

    def take(self, start: int, end: int, words: Sequence[Word]) -> SpeechCoverage:
        """How much of the speech of a turn has words. Forgets it, and what is before it. start, end: in samples."""
        within = Span(_window_after(start), _window_after(end))
        windows = np.array(self._windows, np.int64)
        first, last = np.searchsorted(windows, (within.start, within.end)).tolist()
        times = np.array([(word.start, word.end) for word in (*self._before, *words)], np.float64).reshape(-1, 2)
        del self._windows[:last]
        self._before = tuple(words[-1:]) or self._before
        return compare(windows[first:last], within, times)

    def forget_old(self) -> None:
        """Forget what no turn has that begins later."""
        del self._windows[:-MOST_BEFORE]

    def forget_from(self, start: int) -> None:
        """Forget what follows a place in samples."""
        while self._windows and self._windows[-1] >= _window_after(start):
            self._windows.pop()


def _window_after(place: int) -> int:
    return -(-place // WINDOW_SAMPLES)


class Turns:
    """Makes events of turns from events of utterances."""

    def __init__(self) -> None:
        self._speech = _Speech()
        self._items = 0
        self._open: _Turn | None = None
        self._turn_of: dict[int, _Turn] = {}  # by utterance; of none that was cleared
        self._floor = 0

    @property
    def floor(self) -> int:
        """End of the last turn, or of what was cleared, in samples."""
        return self._floor

    @property
    def start(self) -> int | None:
        """Start of the open turn in samples; None if none is open."""
        return self._open.start if self._open else None

    def push(self, is_speech: bool) -> None:
        """Whether the next window of the stream has speech; before the events of it."""
        self._speech.push(is_speech)
        if self._open is None and not self._turn_of:
            self._speech.forget_old()

    def join(self, events: Iterable[Event], *, by_commits: bool, has_partials: bool) -> Iterator[Event]:
        """Events of utterances as events of turns.

        by_commits: whether only `end` ends a turn. has_partials: whether words are given out before that.
        """
        for event in events:
            match event:
                case SpeechStarted(utterance, at):
                    yield from self._start(utterance, at, by_commits=by_commits)
                case SpeechStopped(_, _, end) if not by_commits:
                    yield from self.end(end)
                case SpeechStopped():
                    pass
                case Partial() | Final() | Failed() if event.item in self._turn_of:
                    yield from self._receive(self._turn_of[event.item], event, has_partials=has_partials)

    def end(self, at: int) -> Iterator[Event]:
        """The open turn ends, if there is one. at: in samples."""
        turn, self._open = self._open, None
        self._floor = at
        if turn:
            turn.end = at
            yield SpeechStopped(turn.item, turn.start, at)
            if not turn.waiting:
                yield self._finalize(turn, at)

    def clear(self, at: int) -> None:
        """Forget the open turn, and what its utterances still give. at: in samples."""
        self._turn_of = {utterance: turn for utterance, turn in self._turn_of.items() if turn is not self._open}
        self._open = None
        self._speech.forget_from(self._floor)
        self._floor = at

    def _start(self, utterance: int, at: int, *, by_commits: bool) -> Iterator[Event]:
        if self._open is None:
            self._open = _Turn(self._items, self._floor if by_commits else at)
            self._items += 1
            if not by_commits:
                yield SpeechStarted(self._open.item, at)
        self._open.waiting += 1
        self._turn_of[utterance] = self._open

    def _receive(self, turn: _Turn, event: Partial | Final | Failed, *, has_partials: bool) -> Iterator[Event]:
        match event:
            case Partial(_, stable, unstable):
                turn.words += stable
                yield Partial(turn.item, stable, unstable)
                return
            case Final(_, _, _, _, rest):
                turn.words += rest
                turn.rest += rest
            case Failed():
                turn.has_failed = True
        del self._turn_of[event.item]
        turn.waiting -= 1
        if turn.end is not None and not turn.waiting:
            yield self._finalize(turn, turn.end)
        elif has_partials and turn.rest:
            yield Partial(turn.item, tuple(turn.rest), ())
            turn.rest.clear()

    def _finalize(self, turn: _Turn, end: int) -> Final | Failed:
        """All words of a turn that has ended, and whose utterances are all final."""
        speech = self._speech.take(turn.start, end, turn.words)
        if turn.has_failed:
            return Failed(turn.item)
        return Final(turn.item, turn.start, end, tuple(turn.words), tuple(turn.rest), speech)
