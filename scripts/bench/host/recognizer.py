"""A recognizer that answers at once, with words at fixed places: what remains is the cost of everything around it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from parakeet_stt.audio import SAMPLE_RATE, Audio
from parakeet_stt.protocols import FRAME_SAMPLES, Chunk, ChunkResult, Done, Pending
from parakeet_stt.text.phrases import Phrases
from parakeet_stt.text.transcript import Hypothesis, TokenArrays

PIECES = ["▁the", "▁quick", "▁brown", "▁fox", "."]
TOKENS_PER_SECOND = 3


def tokens_of(start: float, end: float) -> TokenArrays:
    """Tokens at fixed places of the audio from start to end, in seconds."""
    numbers = np.arange(int(np.ceil(start * TOKENS_PER_SECOND)), int(end * TOKENS_PER_SECOND))
    times = numbers / TOKENS_PER_SECOND
    logprobs = np.full(len(numbers), -0.1, np.float32)
    return TokenArrays(PIECES, (numbers % len(PIECES)).astype(np.int32), times, times + 0.24, logprobs)


class EndlessRecognizer:
    """A recognizer that answers at once; see `protocols.Recognizer`."""

    device, precision, precision_reason, config = "endless", "none", "it has no weights", "endless: true"
    frame_samples, vocabulary = FRAME_SAMPLES, PIECES

    def warm_up(self, max_items: int, max_seconds: float) -> None:
        """There is nothing to warm up."""

    def recognize(self, batch: Sequence[Audio], phrases: Sequence[Phrases] = ()) -> list[Hypothesis]:
        """Three tokens a second for each utterance."""
        return [Hypothesis(tokens_of(0, audio.duration)) for audio in batch]

    def decode_chunks(self, batch: Sequence[Chunk], phrases: Sequence[Phrases] = ()) -> list[ChunkResult]:
        """Three tokens a second for each chunk, divided where its right context begins."""
        results = []
        for chunk in batch:
            start = chunk.left_context / SAMPLE_RATE
            end = (chunk.audio.length - chunk.right_context) / SAMPLE_RATE
            results.append(ChunkResult(tokens_of(start, end), tokens_of(end, chunk.audio.duration), STATE))
        return results

    def launch(self, batch: Sequence[Audio], phrases: Sequence[Phrases] = ()) -> Pending[list[Hypothesis]]:
        """Done at once."""
        return Done(self.recognize(batch, phrases))

    def launch_chunks(self, batch: Sequence[Chunk], phrases: Sequence[Phrases] = ()) -> Pending[list[ChunkResult]]:
        """Done at once."""
        return Done(self.decode_chunks(batch, phrases))

    def capacity_seconds(self) -> float | None:
        """Without limit."""
        return None

    def memory_bytes(self) -> float:
        """None."""
        return 0.0


STATE = [np.zeros((2, 640), np.float32)] * 2 + [np.zeros((1, 640), np.float32)]  # of the size of the real model's
