"""OpenAI's response bodies as JSON schemas, from its public specification; nothing beside them is allowed."""

from __future__ import annotations

from typing import Any

import jsonschema

Schema = dict[str, Any]
NUMBER: Schema = {"type": "number"}
SECONDS: Schema = {"type": "number", "minimum": 0}
COUNT: Schema = {"type": "integer", "minimum": 0}
TEXT: Schema = {"type": "string"}


def an_object(required: dict[str, Schema], **optional: Schema) -> Schema:
    return {
        "type": "object",
        "properties": {**required, **optional},
        "required": list(required),
        "additionalProperties": False,
    }


def a_list(items: Schema) -> Schema:
    return {"type": "array", "items": items}


LOGPROBS = a_list(
    an_object(
        {
            "token": TEXT,
            "logprob": {"type": "number", "maximum": 0},
            "bytes": a_list({"type": "integer", "minimum": 0, "maximum": 255}),
        }
    )
)
TOKENS = an_object(
    {
        "type": {"const": "tokens"},
        "input_tokens": COUNT,
        "output_tokens": COUNT,
        "total_tokens": COUNT,
        "input_token_details": an_object({"text_tokens": COUNT, "audio_tokens": COUNT}),
    }
)
SEGMENT = an_object(
    {
        "id": COUNT, "seek": COUNT, "start": SECONDS, "end": SECONDS, "text": TEXT, "tokens": a_list(COUNT),
        "temperature": NUMBER, "avg_logprob": {"type": "number", "maximum": 0}, "compression_ratio": SECONDS,
        "no_speech_prob": {"type": "number", "minimum": 0, "maximum": 1},
    }
)  # fmt: skip
WORD = an_object({"word": TEXT, "start": SECONDS, "end": SECONDS})
VERBOSE = {"task": {"const": "transcribe"}, "language": TEXT, "duration": SECONDS, "text": TEXT,
           "usage": an_object({"type": {"const": "duration"}, "seconds": COUNT})}  # fmt: skip

DIARIZED_SEGMENT = an_object(
    {
        "type": {"const": "transcript.text.segment"}, "id": TEXT, "start": SECONDS, "end": SECONDS, "text": TEXT,
        "speaker": TEXT,
    }
)  # fmt: skip
DIARIZED = an_object(
    {
        "task": {"const": "transcribe"}, "duration": SECONDS, "text": TEXT, "segments": a_list(DIARIZED_SEGMENT),
        "usage": TOKENS,
    }
)  # fmt: skip

JSON = an_object({"text": TEXT, "usage": TOKENS})
JSON_LOGPROBS = an_object({"text": TEXT, "usage": TOKENS, "logprobs": LOGPROBS})
VERBOSE_WORDS = an_object({**VERBOSE, "words": a_list(WORD)})
VERBOSE_SEGMENTS = an_object({**VERBOSE, "segments": a_list(SEGMENT)})
VERBOSE_BOTH = an_object({**VERBOSE, "words": a_list(WORD), "segments": a_list(SEGMENT)})
DELTA = an_object({"type": {"const": "transcript.text.delta"}, "delta": TEXT})
DELTA_LOGPROBS = an_object({"type": {"const": "transcript.text.delta"}, "delta": TEXT, "logprobs": LOGPROBS})
DONE = an_object({"type": {"const": "transcript.text.done"}, "text": TEXT, "usage": TOKENS})
DONE_LOGPROBS = an_object(
    {"type": {"const": "transcript.text.done"}, "text": TEXT, "usage": TOKENS, "logprobs": LOGPROBS}
)
TRANSLATION = an_object({"text": TEXT})
VERBOSE_TRANSLATION = an_object(
    {"language": {"const": "english"}, "duration": SECONDS, "text": TEXT, "segments": a_list(SEGMENT)}
)
# Not OpenAI's: with include[]=coverage.
SPEECH = an_object(
    {
        "seconds": SECONDS,
        "covered_seconds": SECONDS,
        "uncovered": a_list(an_object({"start": SECONDS, "end": SECONDS, "tries": {"type": "integer", "minimum": 1}})),
    }
)
VERBOSE_COVERAGE = an_object({**VERBOSE, "words": a_list(WORD), "segments": a_list(SEGMENT), "speech": SPEECH})
DONE_COVERAGE = an_object({"type": {"const": "transcript.text.done"}, "text": TEXT, "usage": TOKENS, "speech": SPEECH})
MODEL = an_object({"id": TEXT, "object": {"const": "model"}, "created": COUNT, "owned_by": TEXT})
MODELS = an_object({"object": {"const": "list"}, "data": a_list(MODEL)})
NULLABLE: Schema = {"type": ["string", "null"]}
ERROR = an_object({"error": an_object({"message": TEXT, "type": TEXT, "param": NULLABLE, "code": NULLABLE})})


def check(body: Any, schema: Schema) -> None:
    """Raises jsonschema.ValidationError if the body is not as the schema says."""
    jsonschema.validate(body, schema)


# The events of realtime transcription, by their names.

INPUT = an_object(
    {
        "format": an_object(
            {"type": {"enum": ["audio/pcm", "audio/pcmu", "audio/pcma"]}}, rate={"type": ["integer", "null"]}
        ),
        "noise_reduction": {"type": ["object", "null"]},
        "transcription": {"type": ["object", "null"]},
        "turn_detection": {"type": ["object", "null"]},
    }
)
SESSION = an_object(
    {
        "id": {"type": "string", "pattern": "^sess_"},
        "object": {"const": "realtime.transcription_session"},
        "type": {"const": "transcription"},
        "expires_at": COUNT,
        "audio": an_object({"input": INPUT}),
        "include": {"type": ["array", "null"]},
    }
)
OLDER_SESSION = an_object(
    {
        "id": {"type": "string", "pattern": "^sess_"},
        "object": {"const": "realtime.transcription_session"},
        "expires_at": COUNT,
        "input_audio_format": {"enum": ["pcm16", "g711_ulaw", "g711_alaw"]},
        "input_audio_transcription": {
            **an_object({"model": TEXT, "prompt": TEXT, "language": TEXT}), "type": ["object", "null"],
        },
        "turn_detection": {
            **an_object(
                {"type": {"enum": ["server_vad", "semantic_vad"]}},
                threshold=NUMBER, prefix_padding_ms=COUNT, silence_duration_ms=COUNT, eagerness=TEXT,
            ),
            "type": ["object", "null"],
        },
        "input_audio_noise_reduction": {**an_object({"type": NULLABLE}), "type": ["object", "null"]},
        "include": {"type": ["array", "null"]},
    }
)  # fmt: skip
ITEM = an_object(
    {
        "id": TEXT,
        "object": {"const": "realtime.item"},
        "type": {"const": "message"},
        "role": {"const": "user"},
        "status": {"const": "completed"},
        "content": a_list(an_object({"type": {"const": "input_audio"}, "transcript": {"type": "null"}})),
    }
)
SPOKEN: dict[str, Schema] = {"item_id": TEXT, "content_index": {"const": 0}}
BUFFER, TRANSCRIPTION = "input_audio_buffer", "conversation.item.input_audio_transcription"


def an_event(kind: str, required: dict[str, Schema], **optional: Schema) -> dict[str, Schema]:
    named: dict[str, Schema] = {"type": {"const": kind}, "event_id": {"type": "string", "minLength": 1}}
    return {kind: an_object({**named, **required}, **optional)}


REALTIME: dict[str, Schema] = {
    **an_event("session.created", {"session": SESSION}),
    **an_event("session.updated", {"session": SESSION}),
    **an_event("transcription_session.created", {"session": OLDER_SESSION}),
    **an_event("transcription_session.updated", {"session": OLDER_SESSION}),
    **an_event(f"{BUFFER}.speech_started", {"audio_start_ms": COUNT, "item_id": TEXT}),
    **an_event(f"{BUFFER}.speech_stopped", {"audio_end_ms": COUNT, "item_id": TEXT}),
    **an_event(f"{BUFFER}.committed", {"item_id": TEXT, "previous_item_id": NULLABLE}),
    **an_event(f"{BUFFER}.cleared", {}),
    **an_event("conversation.item.added", {"previous_item_id": NULLABLE, "item": ITEM}),
    **an_event("conversation.item.done", {"previous_item_id": NULLABLE, "item": ITEM}),
    **an_event("conversation.item.created", {"previous_item_id": NULLABLE, "item": ITEM}),
    **an_event(f"{TRANSCRIPTION}.delta", {**SPOKEN, "delta": TEXT}, logprobs=LOGPROBS),
    **an_event(
        f"{TRANSCRIPTION}.completed",
        {**SPOKEN, "transcript": TEXT, "usage": an_object({"type": {"const": "duration"}, "seconds": SECONDS})},
        logprobs=LOGPROBS,
        speech=SPEECH,  # not OpenAI's: where coverage is included
    ),
    **an_event(
        "error",
        {
            "error": an_object(
                {"type": TEXT, "code": NULLABLE, "message": TEXT, "param": NULLABLE, "event_id": NULLABLE}
            )
        },
    ),
}
