"""Form fields that OpenAI's API does not have and that clients of its peers send, each with what it means here.

The peers are servers behind the same route: speaches and faster-whisper-server, vLLM, whisper.cpp, Groq, Mistral,
LiteLLM's proxy. docs/openai.md has the same table for callers.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, auto


class Effect(Enum):
    """What becomes of a field."""

    NONE = auto()  # taken, without effect: what it asks for is done anyway, or has no meaning here
    KEYWORDS = auto()  # phrases to prefer, separated by commas
    OFF_ONLY = auto()  # asks for what is not done here: taken where it says no, else refused


@dataclass(frozen=True, slots=True)
class ForeignField:
    """effect: what becomes of the field. reason: why, in a few words."""

    effect: Effect
    reason: str


def _fields(effect: Effect, reason: str, *names: str) -> Iterable[tuple[str, ForeignField]]:
    return ((name, ForeignField(effect, reason)) for name in names)


FOREIGN_FIELDS = dict(
    [
        *_fields(
            Effect.NONE, "speech is always filtered", "vad_filter", "vad", "suppress_nst", "suppress_non_speech",
        ),
        *_fields(
            Effect.NONE, "decoding is greedy: it samples nothing and tries no other temperature",
            "seed", "temperature_inc", "beam_size", "best_of", "n", "top_p", "top_k", "min_p", "length_penalty",
            "frequency_penalty", "presence_penalty", "repetition_penalty", "entropy_thold", "logprob_thold",
            "no_speech_thold",
        ),
        *_fields(Effect.NONE, "nothing is kept of a caller", "user", "metadata"),
        *_fields(
            Effect.NONE, "usage always comes with the last event",
            "stream_include_usage", "stream_continuous_usage_stats",
        ),
        *_fields(
            Effect.NONE, "the format says which times there are",
            "without_timestamps", "no_timestamps", "token_timestamps",
        ),
        *_fields(Effect.NONE, "the model has no text before the speech", "no_context", "carry_initial_prompt"),
        *_fields(Effect.KEYWORDS, "read as `keywords`, separated by commas", "hotwords", "context_bias"),
        *_fields(Effect.OFF_ONLY, "no speaker model is served", "diarize", "tinydiarize"),
        *_fields(Effect.OFF_ONLY, "a transcription is not translated", "translate"),
    ]
)  # fmt: skip
