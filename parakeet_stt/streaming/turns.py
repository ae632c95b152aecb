"""Turns: what clients get as one item. With detection a turn is an utterance; otherwise all between two commits.

The endpointer finds utterances in either case, so that the recognizer gets no silence but their padding: models invent
words for silence. Utterances are final in order, and so are turns.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from parakeet_stt.streaming.chunk_decoder import Failed, Final, Partial
from parakeet_stt.text.transcript import Word


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


class Turns:
    """Makes events of turns from events of utterances."""

    def __init__(self) -> None:
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

    @staticmethod
    def _finalize(turn: _Turn, end: int) -> Final | Failed:
        """All words of a turn that has ended, and whose utterances are all final."""
        if turn.has_failed:
            return Failed(turn.item)
        return Final(turn.item, turn.start, end, tuple(turn.words), tuple(turn.rest))
