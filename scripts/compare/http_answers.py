"""Asks a running service everything over HTTP that answers.py compares.

Usage: from scripts.compare.http_answers import http_answers
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import httpx

Answer = Mapping[str, Any]
Named = tuple[str, Callable[[], Answer]]
LONGEST_BODY = 300_000  # bytes; of a longer one, which is no transcript, only the hash is kept
LONG_FILE, HARD_FILE = "without-a-pause.wav", "far-past-clipping.wav"  # of the odd ones


def http_answers(
    http: httpx.Client, samples: Mapping[str, bytes], odd: Mapping[str, bytes], *, short: bool
) -> Iterator[Named]:
    """Every answer by its name, to be asked for. samples, odd: files by their names. short: to ask less."""
    first, data = next(iter(samples.items()))
    for ask in (*pages(), *keys(), *of_samples(samples), *of_odd_files(odd, short=short), *errors(first, data)):
        yield ask.name, partial(answered, http, ask)


@dataclass(frozen=True)
class Ask:
    """One request. more: what else httpx takes: data, files, json, content, headers."""

    name: str
    path: str
    method: str = "POST"
    more: Mapping[str, Any] = field(default_factory=dict)


WORDS_AND_SEGMENTS = {"response_format": "verbose_json", "timestamp_granularities[]": ["word", "segment"]}
VAD = {"type": "server_vad", "threshold": 0.3, "silence_duration_ms": 100, "prefix_padding_ms": 50}
FORMS: Mapping[str, Mapping[str, Any]] = {
    "json": {}, "text": {"response_format": "text"}, "srt": {"response_format": "srt"},
    "vtt": {"response_format": "vtt"}, "verbose_json": {"response_format": "verbose_json"},
    "segment": {"response_format": "verbose_json", "timestamp_granularities[]": "segment"},
    "word": {"response_format": "verbose_json", "timestamp_granularities": "word"},
    "word and segment": WORDS_AND_SEGMENTS, "logprobs": {"include[]": "logprobs"}, "stream": {"stream": "true"},
    "stream text": {"stream": "true", "response_format": "text"},
    "stream logprobs": {"stream": "true", "include[]": "logprobs"}, "chunking auto": {"chunking_strategy": "auto"},
    "chunking object": {"chunking_strategy": json.dumps(VAD), **WORDS_AND_SEGMENTS},
    "chunking in brackets": {**{f"chunking_strategy[{name}]": str(value) for name, value in VAD.items()}},
    "keywords": {"keywords[]": ["Kubernetes", "everybody", "first question"], "include": "logprobs"},
    "keywords as JSON": {"keywords": '["Kubernetes", "Anna"]'}, "prompt": {"prompt": "Anna met Bell, of Kubernetes."},
    "language": {"language": "en"}, "languages": {"languages": '["EN", "en"]'}, "temperature": {"temperature": "0.7"},
    "served name": {"model": "parakeet-tdt-tiny"}, "empty fields": {"language": "", "prompt": "", "keywords[]": ""},
}  # fmt: skip
SEED_FORMS = {
    f"timestamps {stamped}, chunks {cut}": {"include_timestamps": stamped, "should_chunk": cut}
    for stamped, cut in (("true", "true"), ("false", "false"), ("true", "false"), ("false", "true"))
}  # fmt: skip
BENTO_FORMS: Mapping[str, Mapping[str, str]] = {
    "plain": {}, "all fields": {"language": '"en"', "keywords": '["tram", "Anna"]', "prompt": '"Bell was there."'},
    "defaults": {"language": "null", "keywords": "[]", "prompt": '""'},
}  # fmt: skip
TRANSLATIONS = ("json", "text", "srt", "vtt", "verbose_json", "prompt", "temperature")
ODD_FORMS = ("json", "word and segment", "srt", "stream")
LONG_FORMS = ("srt", "word and segment", "stream logprobs")
TRANSCRIPTIONS, TRANSLATE = "/v1/audio/transcriptions", "/v1/audio/translations"
SECRETS, OLD_SECRETS = "/v1/realtime/client_secrets", "/v1/realtime/transcription_sessions"


def posted(name: str, path: str, file: str, data: bytes, form: Mapping[str, Any], part: str = "file") -> Ask:
    """A form with a file in it."""
    model = {"model": "whisper-1"} if path.startswith("/v1/") else {}
    return Ask(name, path, more={"data": {**model, **form}, "files": {part: (file, data)}})


def of_samples(files: Mapping[str, bytes]) -> Iterator[Ask]:
    """All that may be asked of a good recording; of a long one, less."""
    for file, data in files.items():
        is_long = file.startswith("two-minutes")
        for form in LONG_FORMS if is_long else FORMS:
            yield posted(f"transcriptions/{file}/{form}", TRANSCRIPTIONS, file, data, FORMS[form])
        for form, fields in list(SEED_FORMS.items())[: 1 if is_long else None]:
            yield posted(f"transcribe/{file}/{form}", "/transcribe", file, data, fields)
        for form in () if is_long else TRANSLATIONS:
            yield posted(f"translations/{file}/{form}", TRANSLATE, file, data, FORMS[form])
        for form, texts in () if is_long else BENTO_FORMS.items():
            yield posted(f"bentoml/{file}/{form}", "/bentoml/transcribe", file, data, texts, "audio")


def of_odd_files(files: Mapping[str, bytes], *, short: bool) -> Iterator[Ask]:
    """What is asked of every odd file, and more of a few."""
    for file, data in files.items():
        for form in ODD_FORMS[:1] if short else LONG_FORMS[1:] if file == LONG_FILE else ODD_FORMS:
            yield posted(f"odd files/{file}/{form}", TRANSCRIPTIONS, file, data, FORMS[form])
    for form in ("keywords", "prompt"):  # what is hard to recognize is received otherwise with them
        yield posted(f"odd files/{HARD_FILE}/{form}", TRANSCRIPTIONS, HARD_FILE, files[HARD_FILE], FORMS[form])
    for file in ("cut.mp3", "cut.wav", "empty.wav", "too-short.wav", "text.wav", "silence.wav"):
        yield posted(f"odd files/{file}/translation", TRANSLATE, file, files[file], {})
        for form, fields in SEED_FORMS.items():
            yield posted(f"odd files/{file}/transcribe, {form}", "/transcribe", file, files[file], fields)
        yield posted(f"odd files/{file}/bentoml", "/bentoml/transcribe", file, files[file], {}, "audio")


BAD_FORMS: Mapping[str, Mapping[str, Any]] = {
    "unknown field": {"languge": "en"}, "unknown format": {"response_format": "xml"},
    "diarized_json": {"response_format": "diarized_json"}, "two formats": {"response_format": ["json", "text"]},
    "temperature 2": {"temperature": "2"}, "temperature below 0": {"temperature": "-0.1"},
    "temperature in words": {"temperature": "warm"}, "temperature nan": {"temperature": "nan"},
    "no model": {"model": []}, "empty model": {"model": ""}, "another model": {"model": "another"},
    "chunking never": {"chunking_strategy": "never"}, "chunking 3": {"chunking_strategy": "3"},
    "chunking null": {"chunking_strategy": "null"}, "chunking array": {"chunking_strategy": "[1]"},
    "chunking without type": {"chunking_strategy": "{}"}, "chunking type": {"chunking_strategy[type]": "client_vad"},
    "chunking threshold": {"chunking_strategy": json.dumps({**VAD, "threshold": 2})},
    "chunking threshold in words": {"chunking_strategy[type]": "server_vad", "chunking_strategy[threshold]": "high"},
    "chunking silence": {"chunking_strategy": json.dumps({**VAD, "silence_duration_ms": -1})},
    "chunking padding": {"chunking_strategy": json.dumps({**VAD, "prefix_padding_ms": 5000})},
    "chunking unknown": {"chunking_strategy": json.dumps({**VAD, "eagerness": "low"})},
    "granularities with json": {"timestamp_granularities[]": "word"},
    "unknown granularity": {"response_format": "verbose_json", "timestamp_granularities[]": "char"},
    "granularity in an object": {"response_format": "verbose_json", "timestamp_granularities[x]": "word"},
    "include with text": {"include[]": "logprobs", "response_format": "text"},
    "include with verbose_json": {"include[]": "logprobs", "response_format": "verbose_json"},
    "unknown include": {"include[]": "usage"}, "stream srt": {"stream": "true", "response_format": "srt"},
    "stream verbose_json": {"stream": "true", "response_format": "verbose_json"},
    "stream perhaps": {"stream": "perhaps"}, "stream null": {"stream": "null"},
    "known_speaker_names": {"known_speaker_names[]": "Ann"},
    "known_speaker_references": {"known_speaker_references[]": "data:audio/wav;base64,AAAA"},
    "too many keywords": {"keywords[]": ["x"] * 101}, "too long keyword": {"keywords": "x" * 101},
    "keywords of numbers": {"keywords": "[1, 2]"}, "language xx": {"language": "xx"},
    "language en-US": {"language": "en-US"}, "language of another model": {"language": "fr"},
    "two languages": {"language": ["en", "en"]},
    "languages": {"languages": '["en", "fr"]'}, "file as text": {"file": "speech"},
    "language in brackets": {"language[0]": "en"}, "nothing but a prompt with numbers": {"prompt": "1.30 " * 200},
}  # fmt: skip


def errors(file: str, data: bytes) -> Iterator[Ask]:
    """Forms that are refused, and a few that are taken after all."""
    for name, form in BAD_FORMS.items():
        yield posted(f"errors/transcriptions/{name}", TRANSCRIPTIONS, file, data, form)
    for name in ("unknown format", "temperature 2", "another model", "no model", "language xx", "too many keywords",
                 "chunking never", "diarized_json", "file as text"):  # fmt: skip
        yield posted(f"errors/translations/{name}", TRANSLATE, file, data, BAD_FORMS[name])
    model = {"model": "whisper-1"}
    for path in (TRANSCRIPTIONS, TRANSLATE, "/transcribe", "/bentoml/transcribe"):
        name, part = f"errors{path}", "audio" if path.startswith("/bentoml") else "file"
        two = [(part, (file, data)), (part, (file, data))]
        text = {part: (file, data), "prompt": ("a.txt", b"x")}
        yield Ask(f"{name}/no file", path, more={"data": model})
        yield Ask(f"{name}/two files", path, more={"data": model, "files": two})
        yield Ask(f"{name}/another name", path, more={"data": model, "files": {"speech": (file, data)}})
        yield Ask(f"{name}/a file as a field", path, more={"files": text, "data": model})
        yield Ask(f"{name}/JSON", path, more={"json": {**model, part: "x"}})
        yield Ask(f"{name}/text", path, more={"content": b"speech", "headers": {"content-type": "text/plain"}})
        broken, endless = ({"content-type": f"multipart/form-data{more}"} for more in ("; boundary=x", ""))
        yield Ask(f"{name}/broken form", path, more={"content": b"--x\r\nno form", "headers": broken})
        yield Ask(f"{name}/form without boundary", path, more={"content": b"x", "headers": endless})
        yield Ask(f"{name}/nothing", path)
    for name, form in {"timestamps": {"include_timestamps": "maybe"}, "chunks": {"should_chunk": "2"},
                       "others": {"model": "another", "x": "y"}, "null": {"should_chunk": "null"}}.items():  # fmt: skip
        yield posted(f"errors/transcribe/{name}", "/transcribe", file, data, form)
    for name, form in {"language": {"language": '"fr"'}, "en-US": {"language": '"en-US"'}, "number": {"language": "3"},
                       "unknown": {"x": '"y"'}, "keywords": {"keywords": json.dumps(["x"] * 101)},
                       "bare": {"language": "en"}, "keywords bare": {"keywords": "tram"}}.items():  # fmt: skip
        yield posted(f"errors/bentoml/{name}", "/bentoml/transcribe", file, data, form, "audio")


PATHS = (
    "/", "/healthz", "/livez", "/readyz", "/v1/models", "/v1/models/parakeet-tdt-tiny", "/v1/models/whisper-1",
    "/v1/models/a/b", "/v1/models/", "/debug/cfg", "/openapi.json", "/docs", "/docs/nothing", "/docs/swagger-ui.css",
    "/docs/swagger-ui-bundle.js", "/docs.json", "/schema.json", "/static_content/nothing.js", "/v1", "/v1/nothing",
    "/nothing?x=y", "/ws", "/v1/realtime", "/redoc", TRANSCRIPTIONS, TRANSLATE, "/transcribe", "/bentoml/transcribe",
    SECRETS,
)  # fmt: skip
PATHS_BY_OTHER_METHODS = ("/", "/v1/models", "/healthz", "/nothing?x=y", TRANSCRIPTIONS, "/bentoml/transcribe")


def pages() -> Iterator[Ask]:
    """What needs no file: what there is, and what there is not."""
    for path in PATHS:
        yield Ask(f"pages/GET {path}", path, "GET")
    for path in PATHS_BY_OTHER_METHODS:
        for method in ("HEAD", "OPTIONS", "DELETE", "PUT", "PATCH"):
            yield Ask(f"pages/{method} {path}", path, method)
    for path in ("/v1/models", "/healthz", "/readyz", "/metrics", "/nothing", "/debug/cfg", "/openapi.json"):
        yield Ask(f"pages/POST {path}", path)


def keys() -> Iterator[Ask]:
    """Keys for sessions of /v1/realtime."""
    law = {"audio": {"input": {"format": {"type": "audio/pcmu"}, "turn_detection": None}}}
    bodies: Mapping[str, Any] = {
        "empty": {}, "for a minute": {"expires_after": {"anchor": "created_at", "seconds": 60}, "session": law},
        "5 s": {"expires_after": {"seconds": 5}}, "a day": {"expires_after": {"seconds": 86_400}},
        "array": [], "anchor": {"expires_after": {"anchor": "now"}}, "session 3": {"session": 3},
        "audio 3": {"session": {"audio": 3}}, "session realtime": {"session": {"type": "realtime"}},
        "unknown": {"x": "y"},
        "older": {"input_audio_format": "g711_ulaw", "input_audio_transcription": {"model": "whisper-1"}},
        "older format": {"input_audio_format": "mp3"}, "older model": {"input_audio_transcription": {"model": "x"}},
        "older vad": {"turn_detection": {"type": "server_vad", "threshold": 7}}, "null": None,
    }  # fmt: skip
    for path in (SECRETS, OLD_SECRETS):
        for name, body in bodies.items():
            yield Ask(f"keys{path}/{name}", path, more={"json": body})
        yield Ask(f"keys{path}/no JSON", path, more={"content": b"{", "headers": {"content-type": "application/json"}})
        yield Ask(f"keys{path}/no body", path)


def answered(http: httpx.Client, ask: Ask) -> Answer:
    """Status, headers and body of an answer."""
    response = http.request(ask.method, ask.path, **ask.more)
    headers = {name: value for name, value in response.headers.items() if name not in ("date", "content-length")}
    body = response.text
    if ask.path == "/healthz" and response.status_code == 200 and body:
        body = json.dumps({name: value for name, value in response.json().items() if name != "digests"})
    if len(response.content) > LONGEST_BODY:
        body = f"sha256 {hashlib.sha256(response.content).hexdigest()}"
    return {"status": response.status_code, "headers": headers, "body": body}


def series(http: httpx.Client) -> Answer:
    """The names, labels and meanings in /metrics, without the values; sorted, since each front has its own order."""
    response = http.get("/metrics")
    lines = [line if line.startswith("#") else line.rpartition(" ")[0] for line in response.text.splitlines()]
    return {"status": response.status_code, "type": response.headers["content-type"], "series": sorted(lines)}
