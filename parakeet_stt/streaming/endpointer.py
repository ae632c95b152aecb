"""The endpointer: speech probabilities → speech started, paused, or lasted too long. No audio, clock, thread or model.

States and what moves between them (`TRANSITIONS`; nothing else changes the state):

    SILENCE ── SPEECH ──→ SPEECH ── PAUSE, COMMIT, CLEAR ──→ SILENCE
    SPEECH ── CUT ──→ SPEECH            an utterance that lasts too long is cut in two
    SILENCE, SPEECH ── FINISH ──→ CLOSED

`session.py` says which states of the endpointer and the chunk decoder go together.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

import numpy as np

from parakeet_stt.audio import SAMPLE_RATE
from parakeet_stt.vad import WINDOW_SAMPLES

MS_SAMPLES = SAMPLE_RATE // 1000  # samples of a millisecond
CUT_AFTER = 2 / 3  # of the longest utterance; from there on it is cut at the first dip in the speech


class EndpointState(Enum):
    """Where the endpointer stands."""

    SILENCE = auto()  # no utterance is open
    SPEECH = auto()  # an utterance is open
    CLOSED = auto()  # the stream has ended


class EndpointInput(Enum):
    """What changes the state."""

    SPEECH = auto()
    PAUSE = auto()
    COMMIT = auto()
    CUT = auto()
    CLEAR = auto()
    FINISH = auto()


TRANSITIONS = {
    (EndpointState.SILENCE, EndpointInput.SPEECH): EndpointState.SPEECH,
    (EndpointState.SPEECH, EndpointInput.PAUSE): EndpointState.SILENCE,
    (EndpointState.SPEECH, EndpointInput.COMMIT): EndpointState.SILENCE,
    (EndpointState.SPEECH, EndpointInput.CUT): EndpointState.SPEECH,
    (EndpointState.SPEECH, EndpointInput.CLEAR): EndpointState.SILENCE,
    (EndpointState.SILENCE, EndpointInput.CLEAR): EndpointState.SILENCE,
    (EndpointState.SPEECH, EndpointInput.FINISH): EndpointState.CLOSED,
    (EndpointState.SILENCE, EndpointInput.FINISH): EndpointState.CLOSED,
}


@dataclass(frozen=True, slots=True)
class EndpointRules:
    """When an utterance begins and ends.

    by_commits: whether only commits end a turn, in which there may then be several utterances (`turns.py`). onset,
    offset: thresholds to enter and to leave speech. silence_ms: of a pause that ends an utterance. pad_ms: of audio
    kept before speech, and after speech as far as the pause allows. min_speech_ms: of speech before it counts.
    longest_ms: of an utterance. The defaults are those of the original wrapper's socket.
    """

    by_commits: bool = False
    onset: float = 0.6
    offset: float = 0.45
    silence_ms: int = 250
    pad_ms: int = 120
    min_speech_ms: int = 64
    longest_ms: int = 8000


@dataclass(frozen=True, slots=True)
class Opened:
    """Speech has started. start: of the utterance, in samples, padding included."""

    start: int


@dataclass(frozen=True, slots=True)
class Paused:
    """A pause has ended the utterance. end: in samples, padding included."""

    end: int


@dataclass(frozen=True, slots=True)
class TooLong:
    """The utterance is to be cut. at: the best place, in samples."""

    at: int


class Endpointer:
    """Finds where utterances begin and end. All places are in samples from the start of the stream."""

    def __init__(self, rules: EndpointRules, lookback_samples: int) -> None:
        """lookback_samples: from the newest window back, in which a cut without a pause may lie."""
        self.rules = rules
        self.lookback_samples = lookback_samples
        self.state = EndpointState.SILENCE
        self._position = 0  # end of the last window
        self._start = 0  # of the open utterance
        self._floor = 0  # no later utterance begins before it
        self._speech_windows = 0  # in a row, while the state is SILENCE
        self._dip: int | None = None  # where a pause may have begun
        self._recent: list[float] = []  # probabilities of the open utterance

    @property
    def position(self) -> int:
        """End of the last window."""
        return self._position

    @property
    def start(self) -> int:
        """Start of the open utterance."""
        return self._start

    @property
    def floor(self) -> int:
        """End of the last utterance, or of what was cleared."""
        return self._floor

    @property
    def needs_from(self) -> int:
        """First sample that an utterance which begins later may include."""
        before = (self.rules.pad_ms + self.rules.min_speech_ms) * MS_SAMPLES + WINDOW_SAMPLES
        return max(self._floor, self._position - before)

    def push(self, probability: float, *, earliest: int) -> Opened | Paused | TooLong | None:
        """The probability of the next window. earliest: first sample that is still in memory."""
        self._position += WINDOW_SAMPLES
        if self.state is EndpointState.SPEECH:
            return self._push_speech(probability)
        if probability < (self.rules.offset if self._speech_windows else self.rules.onset):
            self._speech_windows = 0
            return None
        self._speech_windows += 1
        if self._speech_windows * WINDOW_SAMPLES < self.rules.min_speech_ms * MS_SAMPLES:
            return None
        speech = self._position - self._speech_windows * WINDOW_SAMPLES
        opened = self.open(max(speech - self.rules.pad_ms * MS_SAMPLES, earliest))
        self._recent = [1.0] * self._speech_windows
        return opened

    def open(self, start: int) -> Opened:
        """An utterance begins at `start`, or at the end of the last one if that is later."""
        self._move(EndpointInput.SPEECH)
        self._start = max(start, self._floor)
        return Opened(self._start)

    def commit(self, end: int) -> None:
        """The client ends the open utterance at `end`."""
        self._close(end, EndpointInput.COMMIT)

    def resume(self, start: int) -> None:
        """The utterance was cut at `start`, where the next one begins."""
        self._move(EndpointInput.CUT)
        self._start, self._recent = start, []

    def clear(self, end: int) -> None:
        """Forget all speech before `end`."""
        self._close(end, EndpointInput.CLEAR)

    def finish(self, end: int) -> None:
        """The stream ends at `end`."""
        self._close(end, EndpointInput.FINISH)

    def _push_speech(self, probability: float) -> Paused | TooLong | None:
        self._recent.append(probability)
        length, longest = self._position - self._start, self.rules.longest_ms * MS_SAMPLES
        if probability >= self.rules.offset:
            dip, self._dip = self._dip, None
            if dip is not None and length >= longest * CUT_AFTER:  # speech goes on: a cut here divides no word
                return TooLong((dip + self._position - WINDOW_SAMPLES) // 2)
        elif self._dip is None:
            self._dip = self._position - WINDOW_SAMPLES
        if self._dip is not None and self._position - self._dip >= self.rules.silence_ms * MS_SAMPLES:
            end = max(min(self._dip + self.rules.pad_ms * MS_SAMPLES, self._position), self._start)
            self._close(end, EndpointInput.PAUSE)
            return Paused(end)
        if length >= longest:
            recent = self._recent[-max(1, self.lookback_samples // WINDOW_SAMPLES) :]
            windows = len(recent) - int(np.argmin(recent))  # from the lowest probability to the newest window
            return TooLong(self._position - windows * WINDOW_SAMPLES + WINDOW_SAMPLES // 2)
        return None

    def _close(self, end: int, given: EndpointInput) -> None:
        self._move(given)
        self._floor, self._speech_windows, self._dip, self._recent = end, 0, None, []

    def _move(self, given: EndpointInput) -> None:
        self.state = TRANSITIONS[self.state, given]
