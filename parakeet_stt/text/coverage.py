"""How much of the speech of a recording, or of a live turn, has words: the speech detector against the final words.

Listed is speech without words that lasts a second between two words, pauses up to a second left out; or a quarter of a
second where no word is near it, or where a retry has left it. Less than that beside a word is the word's: word times
are not more exact, and a drawn-out vowel is one token.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from parakeet_stt.audio import Span
from parakeet_stt.text.transcript import SpeechCoverage, Uncovered, WordList
from parakeet_stt.vad import WINDOW_SAMPLES, WINDOW_SECONDS, Probabilities

MISSED_SECONDS = 1.0  # of speech between, before or after words: more than a drawn-out vowel or a breath
MISSED_ALL_SECONDS = 0.25  # of speech in an utterance without words: less than a short word
NEAR_SECONDS = 0.2  # around a word: its own times are not more exact
SECTION_SECONDS = 1.0  # of silence, which divides the speech between two words into sections
ISLAND_SECONDS = 0.1  # of silence, which divides a section into islands: the shortest pause between two words
LOGGED_SPANS = 5
Windows = npt.NDArray[np.int64]  # numbers of windows with speech, rising
Times = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Lost:
    """Speech that retries have left without words. span: in samples of the recording. tries: times it was decoded."""

    span: Span
    tries: int


@dataclass(slots=True)
class LoggedSpans:
    """Spans as a log line names them: the first few, and how many more there are."""

    first: list[Uncovered] = field(default_factory=list)
    count: int = 0

    def add(self, spans: Sequence[Uncovered]) -> None:
        """More of them."""
        self.first += spans[: LOGGED_SPANS - len(self.first)]
        self.count += len(spans)

    def __str__(self) -> str:
        places = ", ".join(f"{one.start:.2f} to {one.end:.2f} s" for one in self.first)
        more = self.count - len(self.first)
        return places + (f", and {more} more" if more else "")


def measure_coverage(
    probabilities: Probabilities, words: WordList, lost: Sequence[Lost], onset: float
) -> SpeechCoverage:
    """Compare a recording's speech with its words. Takes 0.1 ms for a minute of speech, 70 ms for ten hours.

    probabilities: of speech, of all windows. onset: lowest probability that counts as speech.
    """
    return compare(np.flatnonzero(probabilities >= onset), Span(0, len(probabilities)), words.times, lost)


def compare(speech: Windows, within: Span, times: Times, lost: Sequence[Lost] = ()) -> SpeechCoverage:
    """Compare speech with words. speech: its windows, all of them in `within`, also in windows.

    times: start and end of each word in seconds, rising, shape (words, 2); words outside of `within` may be among them.
    """
    begin, end = within.start * WINDOW_SECONDS, within.end * WINDOW_SECONDS
    afters, befores = np.append(begin, times[:, 1]), np.append(times[:, 0], end)
    near = np.full(len(afters), NEAR_SECONDS)
    near[0] = 0  # there is no word before the first gap, and none after the last
    firsts = np.searchsorted(speech, np.ceil((afters + near) / WINDOW_SECONDS))
    lasts = np.searchsorted(speech, np.floor((befores - near[::-1]) / WINDOW_SECONDS))
    gaps = np.flatnonzero((lasts - firsts) * WINDOW_SECONDS >= MISSED_ALL_SECONDS)
    found: list[tuple[Windows, int]] = []
    for gap in gaps.tolist():
        free = Span(int(firsts[gap]), int(lasts[gap]))
        whole = speech[slice(*np.searchsorted(speech, _round(afters[gap], befores[gap])))]
        found += _find_in_gap(whole, speech[free.start : free.end], lost)
    uncovered = tuple(
        Uncovered(int(windows[0]) * WINDOW_SECONDS, (int(windows[-1]) + 1) * WINDOW_SECONDS, tries)
        for windows, tries in found
    )
    missing = sum(len(windows) for windows, _ in found)
    return SpeechCoverage(len(speech) * WINDOW_SECONDS, (len(speech) - missing) * WINDOW_SECONDS, uncovered)


def _round(after: float, before: float) -> tuple[int, int]:
    """The windows that lie between two times."""
    return int(np.ceil(after / WINDOW_SECONDS - 1e-6)), int(np.floor(before / WINDOW_SECONDS + 1e-6))


def _find_in_gap(whole: Windows, free: Windows, lost: Sequence[Lost]) -> Iterator[tuple[Windows, int]]:
    """The spans to list between two words, and their tries. whole: its speech. free: of it, what is near neither."""
    for section in _split(whole, SECTION_SECONDS):
        left = [one for one in lost if _overlaps(one.span, section)]
        tries = max((one.tries for one in left), default=1)
        seconds = np.count_nonzero(np.isin(section, free, assume_unique=True)) * WINDOW_SECONDS
        if seconds >= (MISSED_ALL_SECONDS if left else MISSED_SECONDS):
            yield section, tries
            continue
        for island in _split(section, ISLAND_SECONDS):
            if len(island) * WINDOW_SECONDS >= MISSED_ALL_SECONDS and np.isin(island, free).all():
                yield island, tries


def _split(windows: Windows, seconds: float) -> list[Windows]:
    """Split where so many seconds, or more, have no speech."""
    if not len(windows):
        return []
    return np.split(windows, np.flatnonzero((np.diff(windows) - 1) * WINDOW_SECONDS >= seconds) + 1)


def _overlaps(span: Span, windows: Windows) -> bool:
    return span.start < (int(windows[-1]) + 1) * WINDOW_SAMPLES and span.end > int(windows[0]) * WINDOW_SAMPLES
