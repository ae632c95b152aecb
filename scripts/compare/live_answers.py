"""Asks the two sockets of a running service everything that answers.py compares.

Usage: from scripts.compare.live_answers import live_answers

What is not deterministic, and what is done about it:

- A session that is behind by more than 2 s recognizes more in one step, and then partials, deltas and now and then a
  word differ. Therefore sessions that are recognized in steps are paced: after a little sound `Line.settle` waits
  until the service has received it (the answer to a message that it does not know comes after the sound before it) and
  until /metrics says that no audio waits. Partials and deltas are the same every time then, and are compared too.
- Sessions without steps (`/ws` without partials, `delay` xhigh) are sent as fast as they are taken.
- An utterance may be queued before or after the final of the one before it. Therefore messages are sorted by utterance,
  and within it: queued, partials, final. Events of /v1/realtime are grouped by item, deltas apart from the others.
"""

from __future__ import annotations

import base64
import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from websockets.exceptions import InvalidStatus

from scripts.compare.http_answers import Answer, Named
from scripts.compare.odd_files import RATE, Sound, pcm, silence
from scripts.compare.session import Line, Message, Service, bare, frames

LONG_SECONDS = 60
HARD = np.float32(50)  # times as loud, speech is clipped so much that it is hard to recognize
STEPS_SECONDS = 9  # of a recording, of which more in steps would take too long
STEP_MS = 400  # of sound, after which a session that is paced is to settle; with more it could be 2 s behind
RANDOM = ("date", "sec-websocket-accept")  # headers
LOGPROBS = "item.input_audio_transcription.logprobs"
DELTA = "conversation.item.input_audio_transcription.delta"
COMMIT = {"type": "input_audio_buffer.commit"}
CLEAR = {"type": "input_audio_buffer.clear"}


def live_answers(service: Service, sounds: Mapping[str, Sound]) -> Iterator[Named]:
    """Every session by its name, to be called. sounds: recordings of speech; of the first one most is asked."""
    for number, (name, sound) in enumerate(sounds.items()):
        yield from _ws(service, name, sound, in_full=number == 0)
        yield from _realtime(service, name, sound, in_full=number == 0)
    first = next(iter(sounds.values()))
    yield from _ws_errors(service, first)
    yield from _realtime_errors(service, first)


def is_long(sound: Sound) -> bool:
    """Whether less is to be asked of it."""
    return len(sound) > LONG_SECONDS * RATE


FORMATS = (("pcm_s16le", 8_000), ("pcm_s16le", 24_000), ("pcm_s16le", 48_000), ("pcm_f32le", 16_000),
           ("pcm_f32le", 44_100), ("mulaw", 8_000), ("alaw", 8_000))  # fmt: skip
WISHES = {
    "keywords": "keywords=Kubernetes,%20everybody", "prompt": "prompt=They%20met%20at%20Kubernetes",
    "language": "language=en-US", "threshold": "threshold=0.3", "short pause": "silence_ms=64",
    "long pause": "silence_ms=2000", "no padding": "padding_ms=0", "much padding": "padding_ms=2000",
    "cut early": "max_utterance_seconds=2",
}  # fmt: skip


def _ws(service: Service, name: str, sound: Sound, *, in_full: bool) -> Iterator[Named]:
    data, beginning = pcm(sound), pcm(sound[: STEPS_SECONDS * RATE])
    for milliseconds in (10, 20, 30, 100, 1000) if not is_long(sound) else (100, 1000):
        query = "?words=true" if milliseconds in (20, 1000) else ""
        yield f"ws/{name}/frames of {milliseconds} ms", _spoken(service, query, data, 32 * milliseconds)
    steps, commit = "?partials=true&words=true", ({"type": "commit"},)
    yield f"ws/{name}/partials", _spoken(service, steps, beginning, 32 * STEP_MS, in_step=True)
    if not in_full:
        return
    for encoding, rate in FORMATS:
        wish, other = {"encoding": encoding, "sample_rate": rate}, bare(sound, encoding, rate)
        address = f"?words=1&encoding={encoding}&sample_rate={rate}"
        hello = ({"type": "hello", **wish},)
        yield f"ws/{name}/{encoding} {rate}", _spoken(service, address, other, 1_921)
        if rate != 24_000:
            yield f"ws/{name}/{encoding} {rate} in a hello", _spoken(service, "", other, 1_920, first=hello)
    for wish_name, query in WISHES.items():
        yield f"ws/{name}/{wish_name}", _spoken(service, f"?words=1&{query}", data, 640)
    hard = pcm(sound * HARD)  # what is listened for makes a difference where it is hard to recognize
    for wish_name, other in (("keywords", hard), ("prompt", hard), ("cut early", data)):
        query = f"{steps}&{WISHES[wish_name]}"
        yield f"ws/{name}/{wish_name} with partials", _spoken(service, query, other, 32 * STEP_MS, in_step=True)
    yield f"ws/{name}/commit", _spoken(service, "?words=1", data, 640, middle=commit)
    by_hand = _spoken(service, steps, data, 32 * STEP_MS, middle=commit, in_step=True)
    yield f"ws/{name}/commit with partials", by_hand
    again = (*commit, *commit, {"type": "hello", "words": True})
    yield f"ws/{name}/commits and a late hello", _spoken(service, "", data, 641, middle=again)


def _spoken(
    service: Service, query: str, data: bytes, size: int, *, first: Sequence[Message] = (),
    middle: Sequence[Message] = (), in_step: bool = False,
) -> Callable[[], Answer]:  # fmt: skip
    """A session. first, middle: messages before the sound, and after its first half."""

    def answer() -> Answer:
        parts = list(frames(data, size))
        half = len(parts) // 2
        with Line(service, f"/ws{query}") as line:
            messages: list[bytes | Message] = [*first, *parts[:half], *middle, *parts[half:]]
            for number, message in enumerate(messages):
                line.say(message)
                if in_step:
                    line.settle()
                elif number % 100 == 99:
                    time.sleep(0.001)
            line.say({"type": "end"})
            line.rest()
            return _by_utterance(line)

    return answer


def _by_utterance(line: Line) -> Answer:
    ranks = {"queued": 0, "partial": 1}
    numbered = [message for message in line.received if "utterance" in message]
    numbered.sort(key=lambda message: (message["utterance"], ranks.get(message["type"], 2)))
    others = [message for message in line.received if "utterance" not in message]
    return {"others": others, "utterances": numbered, "close": [line.socket.close_code, line.socket.close_reason]}


def _ws_errors(service: Service, sound: Sound) -> Iterator[Named]:
    for query in (
        "sample_rate=4000", "sample_rate=47999", "sample_rate=x", "encoding=opus", "threshold=2", "threshold=0",
        "language=fr", "silence_ms=x", "silence_ms=10", "padding_ms=-1", "max_utterance_seconds=1", "tokn=x",
        "partials=perhaps", "type=other", "keywords=" + "x" * 101, "keywords=" + "x," * 101,
    ):  # fmt: skip
        yield f"ws errors/at the door/{query[:40]}", _at_the_door(service, f"/ws?{query}")
    for path in ("/nowhere", "/ws/more", "/v1/audio/transcriptions"):
        yield f"ws errors/at the door/path {path}", _at_the_door(service, path)
    yield "ws errors/at the door/an empty wish", _at_the_door(service, "/ws?language=&keywords=")
    wrong = [
        "no json", "", "[]", "3", "null", "[" * 100_000, '{"type": "dance"}', '{"type": ["hello"]}', "{}",
        '{"type": "hello", "sample_rate": 1}', '{"type": "hello", "encoding": "opus"}', '{"type": "hello", "x": 1}',
        '{"type": "hello", "language": "fr"}', '{"type": "hello", "keywords": 3}', '{"type": "hello", "words": "x"}',
        '{"type": "hello", "silence_ms": 1e9}', '{"type": "hello", "keywords": ["a", "b"], "words": true}',
        '{"type": "hello", "prompt": "Anna", "threshold": 0.4, "partials": true, "max_utterance_seconds": 3}',
    ]  # fmt: skip

    def answer() -> Answer:
        with Line(service, "/ws") as line:
            for message in wrong:
                line.say(message)
                line.receive()
            line.say({"type": "commit"})  # nothing is open: nothing is said
            for frame in frames(pcm(sound)[:-1], 32 * STEP_MS + 1):
                line.say(frame)
                line.settle()
            line.say({"type": "hello"})
            line.say({"type": "end"})
            line.rest()
            return _by_utterance(line)

    yield "ws errors/in a session", answer
    yield "ws errors/silence", _spoken(service, "?partials=true", bytes(96_000), 3_200)
    yield "ws errors/no sound", _spoken(service, "", b"", 640)


def _at_the_door(service: Service, path: str, subprotocols: Sequence[str] = ()) -> Callable[[], Answer]:
    """What a socket is answered, which may not be let in."""

    def answer() -> Answer:
        try:
            with Line(service, path, subprotocols=subprotocols) as line:
                response = line.socket.response
        except InvalidStatus as exc:
            response = exc.response
        assert response is not None
        headers = {name.lower(): value for name, value in response.headers.raw_items() if name.lower() not in RANDOM}
        return {"status": response.status_code, "headers": headers, "body": (response.body or b"").decode()}

    return answer


# /v1/realtime


def _realtime(service: Service, name: str, sound: Sound, *, in_full: bool) -> Iterator[Named]:
    data = bare(_and_silence(sound), "pcm_s16le", 24_000)
    beginning = data[: 48_000 * (STEPS_SECONDS + 2)]
    unhurried = _update({"transcription": {"delay": "xhigh"}}, include=[LOGPROBS])
    fast = _talk(service, data[: 48_000 * LONG_SECONDS], [unhurried], step_ms=None)
    yield f"realtime/{name}/as fast as it is taken", fast
    yield f"realtime/{name}/server_vad", _talk(service, beginning, [_update({}, include=[LOGPROBS])])
    if is_long(sound):
        return
    by_hand = _update({"turn_detection": None}, include=[LOGPROBS])
    yield f"realtime/{name}/commits by hand", _talk(service, beginning, [by_hand], middle=[COMMIT], last=[COMMIT])
    if not in_full:
        return
    hard = bare(_and_silence((sound * HARD).clip(-1, 1)), "pcm_s16le", 24_000)
    for label, given in _sessions().items():
        received, step_ms = hard if label == "keywords" else data, STEP_MS // 2 if label == "delay high" else STEP_MS
        yield f"realtime/{name}/{label}", _talk(service, received, [given], step_ms=step_ms)
    forgets = _talk(service, data, [by_hand], middle=[CLEAR, COMMIT], last=[COMMIT, CLEAR])
    yield f"realtime/{name}/cleared", forgets
    yield f"realtime/{name}/cleared while utterances are found", _talk(service, data, [], middle=[CLEAR])
    for label, form, encoding, rate in (
        ("pcmu", {"type": "audio/pcmu"}, "mulaw", 8_000), ("pcma", {"type": "audio/pcma"}, "alaw", 8_000),
        ("pcm at 16 kHz", {"type": "audio/pcm", "rate": 16_000}, "pcm_s16le", 16_000),
        ("pcm at 48 kHz", {"type": "audio/pcm", "rate": 48_000}, "pcm_s16le", 48_000),
    ):  # fmt: skip
        other = bare(_and_silence(sound), encoding, rate)
        size = rate // 10 * (2 if encoding == "pcm_s16le" else 1)
        yield f"realtime/{name}/{label}", _talk(service, other, [_update({"format": form})], size=size)
    yield from _older(service, name, sound, data)


def _and_silence(sound: Sound) -> Sound:
    return np.concatenate([sound, silence(1.5)])


def _sessions() -> dict[str, Message]:
    """Updates of a session, by their names."""
    found = {
        "all of server_vad": _update({"turn_detection": {"type": "server_vad", "threshold": 0.7,
                                                         "prefix_padding_ms": 0, "silence_duration_ms": 100}}),
        "keywords": _update({"transcription": {"keywords": ["Kubernetes", "everybody"], "language": "en",
                                               "prompt": "The meeting with Anna.", "model": "gpt-4o-transcribe"}}),
        "no transcription": _update({"transcription": None, "noise_reduction": {"type": "near_field"}}),
    }  # fmt: skip
    for eagerness in ("low", "high", "auto"):
        found[f"eagerness {eagerness}"] = _update({"turn_detection": {"type": "semantic_vad", "eagerness": eagerness}})
    for delay in ("minimal", "low", "medium", "high", "xhigh"):
        found[f"delay {delay}"] = _update({"transcription": {"delay": delay}}, include=[LOGPROBS])
    return found


def _older(service: Service, name: str, sound: Sound, data: bytes) -> Iterator[Named]:
    """Sessions as older clients ask for them, and as keys are made for."""
    session = {"input_audio_format": "pcm16", "input_audio_transcription": {"model": "whisper-1"},
               "turn_detection": {"type": "server_vad", "silence_duration_ms": 300}}  # fmt: skip
    older = {"type": "transcription_session.update", "session": session}
    beta = {"OpenAI-Beta": "realtime=v1"}
    yield f"realtime/{name}/older update", _talk(service, data, [older])
    yield f"realtime/{name}/older header", _talk(service, data, [], headers=beta)
    law = {"type": "transcription_session.update", "session": {**session, "input_audio_format": "g711_ulaw"}}
    narrow = bare(_and_silence(sound), "mulaw", 8_000)
    yield f"realtime/{name}/older g711_ulaw", _talk(service, narrow, [law], size=800)
    given = {"type": "transcription", "audio": {"input": {"turn_detection": None}}, "include": [LOGPROBS]}

    def with_key() -> Answer:
        headers = {"authorization": f"Bearer {service.key(given)}"}
        return _talk(service, data, [], headers=headers, last=[COMMIT])()

    yield f"realtime/{name}/with a key", with_key
    model = "?intent=transcription&model=gpt-4o-transcribe"
    yield f"realtime/{name}/with a model", _talk(service, data, [], query=model)


def _update(audio_input: Mapping[str, Any], **more: Any) -> Message:
    return {"type": "session.update", "session": {"type": "transcription", "audio": {"input": audio_input}, **more}}


def _append(data: bytes) -> Message:
    return {"type": "input_audio_buffer.append", "audio": base64.b64encode(data).decode()}


def _talk(
    service: Service, data: bytes, first: Sequence[Message], *, middle: Sequence[Message] = (),
    last: Sequence[Message] = (), size: int = 4_800, step_ms: int | None = STEP_MS,
    headers: Mapping[str, str] | None = None, query: str = "?intent=transcription",
) -> Callable[[], Answer]:  # fmt: skip
    """A session. first, middle, last: messages before, within and after the sound. size: bytes of 100 ms.

    step_ms: after how much sound the session is to settle; None for never.
    """

    def answer() -> Answer:
        parts = [_append(part) for part in frames(data, size)]
        half = len(parts) // 2
        with Line(service, f"/v1/realtime{query}", headers) as line:
            for number, message in enumerate([*first, *parts[:half], *middle, *parts[half:], *last]):
                if step_ms and (number % (step_ms // 100) == 0 or message["type"] != "input_audio_buffer.append"):
                    line.settle()
                line.say(message)
            line.finish()
            return _by_item(line.received)

    return answer


def _by_item(events: Sequence[Message]) -> Answer:
    items: dict[str, dict[str, Any]] = {}
    others = []
    for event in events:
        item = event.get("item_id") or event.get("item", {}).get("id")
        if item is None:
            others.append(event)
            continue
        own = items.setdefault(item, {"text": "", "events": [], "deltas": []})
        is_delta = event["type"] == DELTA
        own["deltas" if is_delta else "events"].append(event)
        own["text"] += event["delta"] if is_delta else ""
    return {"others": others, "items": list(items.values())}


def _realtime_errors(service: Service, sound: Sound) -> Iterator[Named]:
    for query in ("intent=conversation", "model=another", "model=parakeet-tdt-tiny", "model=gpt-realtime", "x=y"):
        yield f"realtime errors/at the door/{query}", _at_the_door(service, f"/v1/realtime?{query}")
    spoken = ["realtime", "openai-insecure-api-key.none"]
    yield "realtime errors/at the door/subprotocols", _at_the_door(service, "/v1/realtime", spoken)
    vad = {"type": "server_vad"}
    inputs: list[Mapping[str, Any]] = [
        {"format": {"type": "audio/opus"}}, {"format": {"type": "audio/pcm", "rate": 47_999}}, {"format": 3},
        {"transcription": {"model": "another"}}, {"transcription": {"language": "fr"}},
        {"transcription": {"language": "en-US"}}, {"transcription": {"languages": ["en", "fr"]}},
        {"transcription": {"keywords": ["x"] * 101}}, {"transcription": {"keywords": ["x" * 101]}},
        {"transcription": {"delay": "none"}}, {"noise_reduction": {"type": "other"}}, {"noise_reduction": None},
        {"turn_detection": {**vad, "threshold": 7}}, {"turn_detection": {**vad, "idle_timeout_ms": 5000}},
        {"turn_detection": {**vad, "silence_duration_ms": 1}}, {"turn_detection": {**vad, "prefix_padding_ms": -1}},
        {"turn_detection": {"type": "semantic_vad", "eagerness": "x"}}, {"turn_detection": {"type": "none"}},
        {"turn_detection": {}}, {"unknown": 1},
    ]  # fmt: skip
    older = "transcription_session.update"
    wrong: list[str | bytes | Message] = [
        "no json", "[" * 100_000, "[]", b"\0\1", "{}", {"type": "response.create"}, {"type": 3},
        {"type": "x", "event_id": "mine"}, {"type": "x", "event_id": "\ud800"}, {"type": "x", "event_id": 7},
        {"type": "session.update"}, {"type": "session.update", "session": []},
        {"type": "session.update", "session": {"type": "realtime"}}, {"type": "session.update", "session": {}},
        {"type": "session.update", "session": {"audio": 3}}, {"type": "session.update", "session": {"include": ["x"]}},
        {"type": older, "session": {"input_audio_format": []}}, COMMIT, CLEAR,
        {"type": "input_audio_buffer.append"}, {"type": "input_audio_buffer.append", "audio": "no base64!"},
        *(_update(given) for given in inputs),
    ]  # fmt: skip
    sent = bare(sound, "pcm_s16le", 24_000)

    def answer() -> Answer:
        with Line(service, "/v1/realtime") as line:
            line.receive()
            for message in wrong:
                line.say(message)
                line.receive()
            line.say(_update({"turn_detection": None, "transcription": {"keywords": None, "language": "en"}}))
            for frame in itertools.islice(frames(sent, 48 * STEP_MS), 8):
                line.say(_append(frame))
                line.settle()
            line.say(_update({"format": {"type": "audio/pcmu"}}))  # too late
            line.say(COMMIT)
            line.say({**COMMIT, "event_id": "again"})
            line.finish()
            return _by_item(line.received)

    yield "realtime errors/in a session", answer
