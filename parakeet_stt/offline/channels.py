"""Merges the transcripts of a recording's channels: each channel is one speaker."""

from __future__ import annotations

import heapq
import string
from array import array
from collections.abc import Iterator, Sequence

import numpy as np

from parakeet_stt.text.lazy_sequence import LazySequence
from parakeet_stt.text.transcript import (
    Recording,
    Said,
    Segment,
    SpeechCoverage,
    Transcript,
    WordList,
    WordSpeakers,
)
from parakeet_stt.vad import Probabilities

MAX_CHANNELS = 8  # more than any telephony or interview has; each is transcribed on its own


def merge_channels(recordings: Sequence[Recording]) -> Recording:
    """One recording of several, each of one channel. Speaker A is the first channel.

    Sentences are in the order of their starts, the lower channel first; the words of a sentence stay together, though
    somebody else may speak meanwhile.
    """
    words, speakers, starts = WordList(), WordSpeakers(string.ascii_uppercase.__getitem__), array("q")
    for _, channel, _, segment in heapq.merge(*map(_numbered, range(len(recordings)), recordings)):
        starts.append(len(words))
        words.extend(segment.words)
        for _ in segment.words:
            speakers.append(Said(channel))

    def segment_at(number: int) -> Segment:
        start = starts[number]
        end = starts[number + 1] if number + 1 < len(starts) else len(words)
        return Segment(tuple(words[start:end]), speakers.of(start))

    transcripts = [one.transcript for one in recordings]
    duration = max(transcript.duration for transcript in transcripts)
    transcript = Transcript(
        words, LazySequence(len(starts), segment_at), duration, transcripts[0].language, speakers=speakers
    )
    return Recording(
        transcript,
        _loudest([one.probabilities for one in recordings]),
        any(one.is_truncated for one in recordings),
        _add_up([one.speech for one in recordings]),
    )


def _numbered(channel: int, recording: Recording) -> Iterator[tuple[float, int, int, Segment]]:
    """The segments of a channel, such that those of all channels can be ordered."""
    for number, segment in enumerate(recording.transcript.segments):
        yield segment.start, channel, number, segment


def _add_up(speech: Sequence[SpeechCoverage]) -> SpeechCoverage:
    """The speech of all channels, and the spans without words of each."""
    uncovered = sorted((span for one in speech for span in one.uncovered), key=lambda span: span.start)
    return SpeechCoverage(
        sum(one.seconds for one in speech), sum(one.covered_seconds for one in speech), tuple(uncovered)
    )


def _loudest(probabilities: Sequence[Probabilities]) -> Probabilities:
    """In each window the probability that anybody speaks: the highest."""
    found = np.zeros(max(map(len, probabilities)), np.float32)
    for one in probabilities:
        np.maximum(found[: len(one)], one, out=found[: len(one)])
    return found
