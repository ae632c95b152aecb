"""The chunk decoder: utterances → chunks for the recognizer → words. No clock, thread or model.

Utterances are decoded one after another; one chunk at a time is with the recognizer. A cut utterance passes its decoder
state on to the next one, so that the recognizer does not notice the cut.

States and what moves between them (`TRANSITIONS`; nothing else changes the state):

    EMPTY ── OPENED ──→ PENDING ── SENT ──→ DECODING ── ANSWERED ──→ PENDING ── DRAINED ──→ EMPTY
    PENDING, DECODING ── OPENED ──→ the same          another utterance waits

`session.py` says which states of the endpointer and the chunk decoder go together.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from itertools import takewhile

from parakeet_stt.audio import SAMPLE_RATE, AudioStore
from parakeet_stt.protocols import FRAME_SAMPLES, Chunk, ChunkResult, DecoderState
from parakeet_stt.text.alignment import WORD_START, join_tokens, last_word
from parakeet_stt.text.transcript import SpeechCoverage, Token, Word

LONGEST_CHUNK = 300  # frames of a chunk's own part, at most
NO_RESULT = ChunkResult((), (), None)  # of a chunk that the recognizer failed on


class ChunkState(Enum):
    """Where the chunk decoder stands."""

    EMPTY = auto()  # there is no utterance
    PENDING = auto()  # there are utterances, and no chunk is with the recognizer
    DECODING = auto()  # a chunk is with the recognizer


class ChunkInput(Enum):
    """What changes the state."""

    OPENED = auto()
    SENT = auto()
    ANSWERED = auto()
    DRAINED = auto()  # the last utterance is final, or was dropped


TRANSITIONS = {
    (ChunkState.EMPTY, ChunkInput.OPENED): ChunkState.PENDING,
    (ChunkState.PENDING, ChunkInput.OPENED): ChunkState.PENDING,
    (ChunkState.DECODING, ChunkInput.OPENED): ChunkState.DECODING,
    (ChunkState.PENDING, ChunkInput.SENT): ChunkState.DECODING,
    (ChunkState.DECODING, ChunkInput.ANSWERED): ChunkState.PENDING,
    (ChunkState.PENDING, ChunkInput.DRAINED): ChunkState.EMPTY,
}


@dataclass(frozen=True, slots=True)
class ChunkRules:
    """How utterances are divided into chunks, in frames of `FRAME_SAMPLES`.

    left_context, right_context: around each chunk's own part. length: of the part; None for a whole utterance in one
    chunk, once it has ended. preview: frames between two decodings of the beginning, before the first part and its
    right context are there; all words may still change then.
    """

    left_context: int = 63
    right_context: int = 8
    preview: int = 5
    length: int | None = 10


@dataclass(frozen=True, slots=True)
class Partial:
    """More words of an utterance. stable: they will not change. unstable: what may follow them."""

    item: int
    stable: tuple[Word, ...]
    unstable: tuple[Word, ...]


@dataclass(frozen=True, slots=True)
class Final:
    """All words of an utterance, the last event about it. start, end: in samples. rest: words that no Partial had.

    speech: how much of a turn's speech has words; times from the start of the stream. Of utterances it is not known.
    """

    item: int
    start: int
    end: int
    words: tuple[Word, ...]
    rest: tuple[Word, ...]
    speech: SpeechCoverage | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """Instead of a `Final`: the recognizer has failed on a chunk of the utterance."""

    item: int


Result = Partial | Final | Failed


@dataclass(slots=True, eq=False)
class _Utterance:
    """An utterance that is not final. Places are in samples of the stream, times of words and tokens too.

    origin: where the frames are counted from, and what the recognizer's context begins with. reached: end of the last
    part that was decoded. end_known_at: samples received when the end was decided. is_cut: the next utterance goes on
    with its decoder state. words: given out as stable. tokens: those after `words`.
    """

    item: int
    start: int
    origin: int
    reached: int
    end: int | None = None
    end_known_at: int = 0
    is_cut: bool = False
    previews: int = 0
    state: DecoderState | None = None
    words: list[Word] = field(default_factory=list)
    tokens: list[Token] = field(default_factory=list)
    skips_continuation: bool = False  # the first tokens belong to the last word of the utterance before
    has_failed: bool = False

    def join_tokens(self, tokens: Sequence[Token], end: int) -> tuple[Word, ...]:
        """Words after `words`. end: of the audio that the tokens are from."""
        start = self.start / SAMPLE_RATE
        earliest = self.words[-1].end - start if self.words else 0.0
        words = join_tokens(
            [token.shift(-start) for token in tokens],
            end / SAMPLE_RATE - start,
            earliest=earliest,
            before=self.words[-1].text if self.words else "",
        )
        return tuple(word.shift(start) for word in words)


class ChunkDecoder:
    """Decides what the recognizer decodes next, and makes words of its answers."""

    def __init__(self, rules: ChunkRules, audio: AudioStore) -> None:
        """audio: of the stream; it is read here, appended to and discarded elsewhere."""
        self.received = audio.length  # samples of the audio that count; more may be there already
        self.rules = rules
        self.state = ChunkState.EMPTY
        self._audio = audio
        self._items = 0
        self._utterances: deque[_Utterance] = deque()  # the last one may be open
        self._decoding: _Utterance | None = None  # what the chunk belongs to; None if it was dropped meanwhile
        self._chunk: Chunk | None = None
        self._is_finished = False

    @property
    def backlog(self) -> int:
        """Samples that wait to be decoded."""
        return self.received - self._utterances[0].reached if self._utterances else 0

    @property
    def needs_from(self) -> int | None:
        """First sample that later chunks need; None if there is no utterance."""
        if not self._utterances:
            return None
        first = self._utterances[0]
        return max(first.origin, first.reached - self.rules.left_context * FRAME_SAMPLES)

    def open(self, start: int) -> int:
        """An utterance begins. Returns its number."""
        self._append(_Utterance(self._items, start, start, start))
        return self._utterances[-1].item

    def close(self, end: int, *, known_at: int) -> int:
        """The open utterance ends. known_at: samples received when that was decided. Returns its number."""
        last = self._utterances[-1]
        last.end, last.end_known_at = end, known_at
        return last.item

    def cut(self, at: int, *, known_at: int) -> tuple[int, int]:
        """End the open utterance at the frame before `at`, or where decoding is already, and begin the next there.

        known_at: samples received when the cut was decided. Returns the place, and the number of the next utterance.
        """
        last = self._utterances[-1]
        end = max(last.reached, at - (at - last.origin) % FRAME_SAMPLES)
        last.end, last.end_known_at, last.is_cut = end, known_at, True
        self._append(_Utterance(self._items, end, last.origin, end))
        return end, self._utterances[-1].item

    def drop_open(self) -> None:
        """Forget the open utterance. The answer about its chunk is ignored, if one is with the recognizer."""
        dropped = self._utterances.pop()
        if dropped is self._decoding:
            self._decoding = None
        if self._utterances:
            self._utterances[-1].is_cut = False  # no utterance goes on with its decoder state any more
        self._drain()

    def finish(self) -> None:
        """No audio follows."""
        self._is_finished = True

    def next_chunk(self, *, hurry: bool) -> Chunk | None:
        """The next chunk to decode; None while one is with the recognizer, or more audio is needed.

        hurry: take all audio that there is, because decoding has fallen behind.
        """
        if self.state is not ChunkState.PENDING:
            return None
        now = self._utterances[0]
        planned = self._plan(now, hurry=hurry)
        if planned is None:
            return None
        end, right = planned
        start = max(now.origin, now.reached - self.rules.left_context * FRAME_SAMPLES)
        now.previews += end == now.reached
        self._move(ChunkInput.SENT)
        self._decoding = now
        self._chunk = Chunk(self._audio.clip(start, end + right), now.reached - start, right, now.state)
        return self._chunk

    def receive(self, result: ChunkResult) -> list[Result]:
        """The recognizer's answer; `NO_RESULT` if it failed."""
        now, chunk = self._decoding, self._chunk
        assert chunk is not None
        self._decoding = self._chunk = None
        self._move(ChunkInput.ANSWERED)
        if now is None:
            self._drain()
            return []
        offset = (now.reached - chunk.left_context) / SAMPLE_RATE
        length = chunk.audio.length - chunk.left_context - chunk.right_context
        now.reached += length
        if length:
            now.state = result.state
            now.has_failed |= result is NO_RESULT
        stable = [token.shift(offset) for token in result.stable]
        if now.skips_continuation:
            stable = stable[len(_continuation(stable)) :]
            now.skips_continuation = not stable
        now.tokens += stable
        unstable = [token.shift(offset) for token in result.unstable]
        if now.end is not None and now.reached >= now.end:
            return self._finalize(now, unstable)
        return [] if self.rules.length is None else [self._partial(now, unstable, now.reached + chunk.right_context)]

    def settle(self) -> list[Result]:
        """Finals of utterances that were decoded to their end before the end was known."""
        now = self._utterances[0] if self._utterances else None
        if now and now is not self._decoding and now.end is not None and now.reached >= now.end:
            return self._finalize(now, [])
        return []

    def _plan(self, now: _Utterance, *, hurry: bool) -> tuple[int, int] | None:
        """Where the next part ends, and its right context in samples; None if more audio is needed."""
        right = self.rules.right_context * FRAME_SAMPLES
        part = (self.rules.length or LONGEST_CHUNK) * FRAME_SAMPLES
        received = self.received
        available = received if now.end is None else min(received, now.end_known_at)
        if (preview := self._preview(now, available, part + right)) and not hurry:
            return now.reached, preview
        if hurry and self.rules.length:
            part = max(part, min(LONGEST_CHUNK * FRAME_SAMPLES, (available - right - now.reached) // part * part))
        end = now.reached + part
        if end + right <= available and (now.end is None or not now.is_cut or end < now.end):
            return end, right
        if now.end is None:
            return None
        if not now.is_cut:
            return now.end, 0
        rest = min(right, received - now.end)
        is_all = self._is_finished or (len(self._utterances) > 1 and self._utterances[1].end is not None)
        return (now.end, rest) if rest and (rest == right or is_all) else (now.end, 0) if is_all else None

    def _preview(self, now: _Utterance, available: int, enough: int) -> int:
        """Length of the preview to decode now, in samples; 0 if none is due. enough: for the first part."""
        if self.rules.length is None or now.reached > now.origin:
            return 0
        length = (now.previews + 1) * self.rules.preview * FRAME_SAMPLES
        return 0 if length >= enough or now.origin + length > available else length

    def _partial(self, now: _Utterance, unstable: Sequence[Token], end: int) -> Partial:
        words = now.join_tokens(now.tokens, end)
        stable = words[:-1]  # the last word may go on
        if stable:
            now.words += stable
            now.tokens = list(last_word(now.tokens))
        return Partial(now.item, stable, now.join_tokens([*now.tokens, *unstable], end))

    def _finalize(self, now: _Utterance, unstable: Sequence[Token]) -> list[Result]:
        """The first utterance is decoded to its end."""
        self._utterances.popleft()
        if now.is_cut and self._utterances:
            continuation = _continuation(unstable)
            now.tokens += continuation
            following = self._utterances[0]
            following.state, following.skips_continuation = now.state, bool(continuation)
            following.reached = max(following.reached, now.reached)
        assert now.end is not None
        rest = now.join_tokens(now.tokens, now.end)
        self._drain()
        final = Final(now.item, now.start, now.end, (*now.words, *rest), rest)
        return [Failed(now.item) if now.has_failed else final, *self.settle()]

    def _append(self, utterance: _Utterance) -> None:
        self._move(ChunkInput.OPENED)
        self._utterances.append(utterance)
        self._items += 1

    def _drain(self) -> None:
        if self.state is ChunkState.PENDING and not self._utterances:
            self._move(ChunkInput.DRAINED)

    def _move(self, given: ChunkInput) -> None:
        self.state = TRANSITIONS[self.state, given]


def _continuation(tokens: Sequence[Token]) -> list[Token]:
    """The first tokens, as far as they go on with a word that began before them."""
    return list(takewhile(lambda token: not token.piece.startswith(WORD_START), tokens))
