"""A live session: audio and speech probabilities in, events out. No clock, thread, detector or model.

A session is two machines over one audio buffer: the endpointer finds utterances, the chunk decoder finds their words.
`Turns` makes of their events those of what the client gets as one item. The states that go together:

    endpointer \\ decoder   EMPTY                PENDING                  DECODING
    SILENCE                 nothing to do        an utterance waits       a chunk is with the recognizer
    SPEECH                  -                    one is open              one is open, a chunk is with the recognizer
    CLOSED                  over                 finals are due           finals are due

The same audio gives the same events and the same chunks, however it was divided into messages.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from parakeet_stt.audio import AudioStore
from parakeet_stt.protocols import FRAME_SAMPLES, Chunk, ChunkResult
from parakeet_stt.streaming.chunk_decoder import NO_RESULT, ChunkDecoder, ChunkRules, ChunkState
from parakeet_stt.streaming.endpointer import Endpointer, EndpointRules, EndpointState, Opened, Paused, TooLong
from parakeet_stt.streaming.turns import Event, SpeechStarted, SpeechStopped, Turns
from parakeet_stt.vad import CONTEXT_SAMPLES

JOINT_STATES = {
    (EndpointState.SILENCE, ChunkState.EMPTY),
    (EndpointState.SILENCE, ChunkState.PENDING),
    (EndpointState.SILENCE, ChunkState.DECODING),
    (EndpointState.SPEECH, ChunkState.PENDING),
    (EndpointState.SPEECH, ChunkState.DECODING),
    (EndpointState.CLOSED, ChunkState.EMPTY),
    (EndpointState.CLOSED, ChunkState.PENDING),
    (EndpointState.CLOSED, ChunkState.DECODING),
}
OVER = (EndpointState.CLOSED, ChunkState.EMPTY)


class Session:
    """One stream of audio on its way to text."""

    def __init__(self, endpoint_rules: EndpointRules, chunk_rules: ChunkRules, audio: AudioStore) -> None:
        """audio: of the stream; it is appended to elsewhere, before `receive_audio`, and discarded here."""
        self._audio = audio
        self._endpointer = Endpointer(endpoint_rules, chunk_rules.right_context * FRAME_SAMPLES)
        self._decoder = ChunkDecoder(chunk_rules, self._audio)
        self._turns = Turns()

    @property
    def state(self) -> tuple[EndpointState, ChunkState]:
        """One of `JOINT_STATES`."""
        return self._endpointer.state, self._decoder.state

    @property
    def is_over(self) -> bool:
        """Whether the stream has ended and all of it is decoded."""
        return self.state == OVER

    @property
    def endpoint_rules(self) -> EndpointRules:
        return self._endpointer.rules

    @property
    def chunk_rules(self) -> ChunkRules:
        return self._decoder.rules

    @property
    def received(self) -> int:
        """Samples received."""
        return self._decoder.received

    @property
    def backlog(self) -> int:
        """Samples that wait to be decoded."""
        return self._decoder.backlog

    @property
    def open_samples(self) -> int:
        """Length of the open turn; 0 if none is open."""
        return 0 if self._turns.start is None else self.received - self._turns.start

    @property
    def buffered(self) -> int:
        """Samples since the last turn ended, or was cleared."""
        return self.received - self._turns.floor

    def configure(self, endpoint_rules: EndpointRules, chunk_rules: ChunkRules) -> list[Event]:
        """Change the rules for the audio that follows. A turn that waits for its commit in a pause ends here."""
        self._endpointer.rules = endpoint_rules
        self._endpointer.lookback_samples = chunk_rules.right_context * FRAME_SAMPLES
        self._decoder.rules = chunk_rules
        is_paused = self._turns.start is not None and self._endpointer.state is EndpointState.SILENCE
        return list(self._turns.end(self.received)) if is_paused and not endpoint_rules.by_commits else []

    def receive_audio(self, count: int, probabilities: Sequence[float]) -> list[Event]:
        """So many more samples, and the probability of speech in each window that they complete. None after the end."""
        if self._endpointer.state is EndpointState.CLOSED:
            return []
        events: list[Event] = []
        self._decoder.received += count
        for probability in probabilities:
            self._turns.push(probability >= self.endpoint_rules.onset)
            events += self._join(self._detect(probability))
        self._discard()
        return events

    def commit(self) -> list[Event]:
        """End the open turn here, if there is one."""
        events: list[Event] = []
        if self._endpointer.state is EndpointState.SPEECH:
            self._endpointer.commit(self.received)
            events = self._join(self._stop(self.received, known_at=self.received))
        return [*events, *self._turns.end(self.received)]

    def clear(self) -> None:
        """Forget the open turn, and speech that may have begun. Raises KeyError after the end."""
        is_open = self._endpointer.state is EndpointState.SPEECH
        self._endpointer.clear(self.received)
        if is_open:
            self._decoder.drop_open()
        self._turns.clear(self.received)

    def finish(self) -> list[Event]:
        """The stream ends. Raises KeyError if it has ended before."""
        is_open = self._endpointer.state is EndpointState.SPEECH
        self._endpointer.finish(self.received)
        self._decoder.finish()
        events = self._join(self._stop(self.received, known_at=self.received)) if is_open else []
        return [*events, *self._turns.end(self.received)]

    def next_chunk(self, *, hurry: bool = False) -> Chunk | None:
        """The next chunk to decode; None while one is being decoded, or more audio is needed.

        hurry: take all audio that there is, because decoding has fallen behind.
        """
        return self._decoder.next_chunk(hurry=hurry)

    def receive_result(self, result: ChunkResult) -> list[Event]:
        """The recognizer's answer to `next_chunk`."""
        events = self._join(self._decoder.receive(result))
        self._discard()
        return events

    def receive_failure(self) -> list[Event]:
        """The recognizer has failed on `next_chunk`."""
        return self.receive_result(NO_RESULT)

    def _detect(self, probability: float) -> list[Event]:
        match self._endpointer.push(probability, earliest=self._audio.first):
            case Opened(start):
                return [SpeechStarted(self._decoder.open(start), start)]
            case Paused(end):
                return self._stop(end, known_at=self._endpointer.position)
            case TooLong(at):
                start = self._endpointer.start
                end, following = self._decoder.cut(at, known_at=self._endpointer.position)
                self._endpointer.resume(end)
                stopped = SpeechStopped(following - 1, start, end)
                return [stopped, SpeechStarted(following, end), *self._decoder.settle()]
        return []

    def _stop(self, end: int, *, known_at: int) -> list[Event]:
        """The open utterance ends at `end`."""
        item = self._decoder.close(end, known_at=known_at)
        return [SpeechStopped(item, self._endpointer.start, end), *self._decoder.settle()]

    def _join(self, events: Iterable[Event]) -> list[Event]:
        """Events of utterances as those of turns."""
        by_commits, has_partials = self.endpoint_rules.by_commits, self.chunk_rules.length is not None
        return list(self._turns.join(events, by_commits=by_commits, has_partials=has_partials))

    def _discard(self) -> None:
        """Free the audio that neither the decoder, nor a later utterance, nor the detector's next window needs."""
        needed = self._decoder.needs_from
        needed = self._endpointer.needs_from if needed is None else needed
        self._audio.discard_before(max(0, min(needed, self._endpointer.position - CONTEXT_SAMPLES)))
