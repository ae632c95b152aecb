"""OpenAI's realtime transcription on a real server, through the official client and by hand."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from typing import Any

import httpx
import numpy as np
import openai
import pytest
import soxr
from websockets.exceptions import InvalidStatus

from parakeet_stt.audio import SAMPLE_RATE, Samples
from parakeet_stt.server.http.client_secrets import ClientSecrets
from parakeet_stt.server.live.realtime_session import Configuration
from parakeet_stt.server.live.realtime_session import configure as configure_session
from parakeet_stt.server.live.ws import Hello
from parakeet_stt.server.options import MAX_KEYWORDS
from parakeet_stt.streaming.endpointer import EndpointRules
from tests import contract
from tests.conftest import Sample, Server, encode
from tests.parts import SERVED
from tests.server.live.talk import (
    COMPLETED,
    DELTA,
    INTENT,
    ITEM,
    PATH,
    Talk,
    append,
    at_24k,
    configure,
    texts,
    with_silence,
)
from tests.sockets import every, frames, log_until_the_client_disconnected, opened


@pytest.fixture(scope="module")
def speech(samples: dict[str, Sample]) -> bytes:
    return at_24k(with_silence(samples["two-sentences"].audio().samples))


class TestTheOfficialClient:
    def test_a_sample_in_pieces_of_50_ms_is_transcribed(
        self, server: Server, speech: bytes, samples: dict[str, Sample]
    ) -> None:
        async def main() -> list[Any]:
            client = openai.AsyncOpenAI(base_url=server.openai_url, api_key="none")
            async with client.realtime.connect(
                model="gpt-4o-transcribe", extra_query={"intent": "transcription"}
            ) as connection:
                await connection.session.update(
                    session={
                        "type": "transcription",
                        "audio": {
                            "input": {
                                "format": {"type": "audio/pcm", "rate": 24_000},
                                "transcription": {"model": "gpt-4o-transcribe", "language": "en"},
                                "turn_detection": {"type": "server_vad", "silence_duration_ms": 500},
                            }
                        },
                    }
                )

                async def talk() -> None:
                    for frame in frames(speech, iter(lambda: 2_400, 0)):
                        await connection.input_audio_buffer.append(audio=base64.b64encode(frame).decode())

                talking = asyncio.create_task(talk())
                events = []
                said = without_spaces(samples["two-sentences"].text)
                async for event in connection:
                    events.append(event)
                    if event.type == COMPLETED and len(completed(events)) >= len(said):
                        break
                await talking
                return events

        def completed(events: list[Any]) -> str:
            return without_spaces("".join(event.transcript for event in events if event.type == COMPLETED))

        def without_spaces(text: str) -> str:
            return text.replace(" ", "")

        events = asyncio.run(asyncio.wait_for(main(), 120))
        kinds = [event.type for event in events]
        assert kinds[:2] == ["session.created", "session.updated"]
        items = {event.item_id: [] for event in events if event.type == COMPLETED}  # type: ignore[var-annotated]
        for event in events[2:]:
            items[event.item_id if hasattr(event, "item_id") else event.item.id].append(event)
        for own in items.values():
            assert [event.type for event in own if event.type in ITEM] == ITEM
            assert own[0].type == ITEM[0]
            assert own[-1].type == COMPLETED
            assert "".join(event.delta for event in own if event.type == DELTA) == own[-1].transcript
            assert sum(event.type == DELTA for event in own) > 1
        committed = [event for event in events if event.type == "input_audio_buffer.committed"]
        assert [event.previous_item_id for event in committed] == [None, *(one.item_id for one in committed[:-1])]
        assert completed(events) == without_spaces(samples["two-sentences"].text)

    def test_a_key_made_for_a_session_opens_it_as_it_was_made(
        self, guarded: Server, samples: dict[str, Sample]
    ) -> None:
        client = openai.OpenAI(base_url=guarded.openai_url, api_key="first-key")
        made = client.realtime.client_secrets.create(
            expires_after={"anchor": "created_at", "seconds": 60},
            session={"type": "transcription", "audio": {"input": {"turn_detection": None}}},
        )
        assert made.value.startswith("ek_")
        assert 0 < made.expires_at - time.time() <= 60
        browser = openai.OpenAI(base_url=guarded.openai_url, api_key=made.value)
        with browser.realtime.connect(extra_query={"intent": "transcription"}) as connection:
            created = connection.recv()
            assert created.type == "session.created"
            assert created.session.audio.input.turn_detection is None  # type: ignore[union-attr]
            sound = base64.b64encode(at_24k(samples["short"].audio().samples)).decode()
            connection.input_audio_buffer.append(audio=sound)
            connection.input_audio_buffer.commit()
            for event in connection:
                if event.type == COMPLETED:
                    assert event.model_dump()["transcript"] == samples["short"].text
                    break
        with pytest.raises(openai.AuthenticationError):
            browser.models.list()


class TestTurns:
    def test_a_commit_by_hand(self, server: Server, samples: dict[str, Sample]) -> None:
        with Talk(server) as talk:
            talk.say(configure({"turn_detection": None}, include=["item.input_audio_transcription.logprobs"]))
            talk.until("session.updated")
            talk.sound(at_24k(samples["short"].audio().samples), every(70))
            talk.say(json.dumps({"type": "input_audio_buffer.commit"}))
            events = talk.until(COMPLETED)
        assert texts(events) == [samples["short"].text]
        assert not {"input_audio_buffer.speech_started", "input_audio_buffer.speech_stopped"} & {
            event["type"] for event in events
        }
        tokens = events[-1]["logprobs"]
        assert "".join(token["token"] for token in tokens) == samples["short"].text
        deltas = [token for event in events if event["type"] == DELTA for token in event["logprobs"]]
        assert deltas == tokens

    @pytest.mark.parametrize("turns", [{"type": "server_vad"}, None], ids=["detected", "by commits"])
    def test_an_item_says_how_much_of_its_speech_has_words_if_that_is_asked_for(
        self, server: Server, samples: dict[str, Sample], turns: dict[str, Any] | None
    ) -> None:
        before, commit = server.counter("stt_speech_seconds_total"), json.dumps({"type": "input_audio_buffer.commit"})
        sound = at_24k(with_silence(samples["short"].audio().samples))
        with Talk(server) as talk:
            for include in (["item.input_audio_transcription.coverage"], None):
                talk.say(configure({"turn_detection": turns}, include=include))
                updated = talk.until("session.updated")[-1]
                assert updated["session"]["include"] == include
                talk.sound(sound, every(70))
                talk.say(commit if turns is None else append(b""))
                talk.until(COMPLETED)
            talk.say(configure({}, include=["item.input_audio_transcription.coverage"]))
            talk.sound(bytes(48_000), every(100))  # a second of silence
            talk.say(commit)
            talk.until(COMPLETED)
        asked, plain, silent = [event for event in talk.events if event["type"] == COMPLETED]
        assert "speech" not in plain
        assert asked["transcript"] == plain["transcript"] == samples["short"].text
        assert 0.5 * samples["short"].seconds < asked["speech"]["seconds"] == asked["speech"]["covered_seconds"]
        assert asked["speech"]["uncovered"] == []
        assert silent["speech"] == {"seconds": 0, "covered_seconds": 0, "uncovered": []}
        assert server.counter("stt_speech_seconds_total") - before == pytest.approx(
            2 * asked["speech"]["seconds"], abs=0.1
        )

    @pytest.mark.parametrize("eagerness", ["high", "low"])
    def test_eagerness_is_the_length_of_the_pause(
        self, server: Server, samples: dict[str, Sample], eagerness: str
    ) -> None:
        sound = samples["short"].audio().samples
        data = at_24k(np.concatenate([sound, np.zeros(SAMPLE_RATE // 3, np.float32), sound, np.zeros(48_000)]))
        with Talk(server) as talk:
            talk.say(configure({"turn_detection": {"type": "semantic_vad", "eagerness": eagerness}}))
            talk.until("session.updated")
            talk.sound(data, every(50))
            items = 2 if eagerness == "high" else 1
            assert texts(talk.until(COMPLETED, items)) == (
                [samples["short"].text] * 2 if items == 2 else [" ".join([samples["short"].text] * 2)]
            )

    @pytest.mark.parametrize("law", ["audio/pcmu", "audio/pcma"])
    def test_telephone_sound_is_understood(self, server: Server, samples: dict[str, Sample], law: str) -> None:
        """The tiny model mishears telephone bandwidth: that words come, and how much sound, is what is tested."""
        sample = samples["short"]
        low = soxr.resample(sample.audio().samples, SAMPLE_RATE, 8_000)
        with Talk(server) as talk:
            talk.say(configure({"format": {"type": law}, "turn_detection": None}))
            talk.until("session.updated")
            talk.sound(companded(low, law), every(5))
            talk.say(json.dumps({"type": "input_audio_buffer.commit"}))
            (completed,) = [event for event in talk.until(COMPLETED) if event["type"] == COMPLETED]
        assert completed["usage"]["seconds"] == pytest.approx(len(low) / 8_000, abs=0.01)
        assert len(set(completed["transcript"].split()) & set(sample.text.split())) >= 5

    def test_what_is_cleared_is_forgotten(self, server: Server, samples: dict[str, Sample]) -> None:
        sound = at_24k(samples["short"].audio().samples)
        with Talk(server) as talk:
            talk.say(configure({"turn_detection": None}))
            talk.sound(sound, every(100))
            talk.say(json.dumps({"type": "input_audio_buffer.clear"}))
            talk.until("input_audio_buffer.cleared")
            talk.say(json.dumps({"type": "input_audio_buffer.commit", "event_id": "mine"}))
            (error,) = [event for event in talk.until("error") if event["type"] == "error"]
            assert error["error"]["event_id"] == "mine"
            assert "0.00ms" in error["error"]["message"]
            talk.sound(sound, every(100))
            talk.say(json.dumps({"type": "input_audio_buffer.commit"}))
            assert texts(talk.until(COMPLETED)) == [samples["short"].text]

    def test_a_commit_of_silence_gives_an_item_without_words(self, server: Server, samples: dict[str, Sample]) -> None:
        """With turn detection, a client that commits as well got an error about 0.00ms, and gave up."""
        commit = json.dumps({"type": "input_audio_buffer.commit"})
        with Talk(server) as talk:
            talk.until("session.created")
            talk.sound(bytes(48_000), every(100))  # a second of silence
            talk.say(commit)
            events = talk.until(COMPLETED)
            assert [event["type"] for event in events] == [*ITEM[2:], COMPLETED]
            assert events[-1]["transcript"] == ""
            assert events[-1]["usage"]["seconds"] == pytest.approx(1, abs=0.05)
            talk.say(commit)
            assert "only has 0.00ms" in talk.until("error")[-1]["error"]["message"]
            talk.sound(at_24k(with_silence(samples["short"].audio().samples)), every(100))
            spoken = talk.until(COMPLETED)
            assert texts(spoken) == [samples["short"].text]
            (committed,) = [event for event in spoken if event["type"] == "input_audio_buffer.committed"]
            assert committed["previous_item_id"] == events[-1]["item_id"]

    def test_a_model_without_turn_detection_at_openai_has_none_here(
        self, server: Server, samples: dict[str, Sample]
    ) -> None:
        """LiveKit names the model, leaves turn detection out, and gives up at an error: each stream of it died."""
        sound = with_silence(samples["short"].audio().samples, 2)
        with Talk(server, f"{INTENT}&model=gpt-realtime-whisper") as talk:
            (created,) = talk.until("session.created")
            assert created["session"]["audio"]["input"]["turn_detection"] is None
            talk.say(configure({"transcription": {"model": "gpt-live-transcribe", "keywords": []}}))
            (updated,) = talk.until("session.updated")
            assert updated["session"]["audio"]["input"]["turn_detection"] is None
            for _ in range(2):
                talk.sound(at_24k(sound), every(50))
                talk.say(json.dumps({"type": "input_audio_buffer.commit"}))
                events = talk.until(COMPLETED)
                assert texts(events) == [samples["short"].text]
                assert "error" not in [event["type"] for event in events]
            talk.say(configure({"turn_detection": {"type": "server_vad"}}))
            (updated,) = talk.until("session.updated")
            assert updated["session"]["audio"]["input"]["turn_detection"]["type"] == "server_vad"

    def test_a_commit_at_once_after_the_detectors_own_is_no_error(
        self, server: Server, samples: dict[str, Sample]
    ) -> None:
        """It was told that the buffer had 0.00ms, since all audio had gone with the utterance."""
        sample, silence = samples["short"], bytes(2 * 24 * 32)
        spoken = sample.audio().samples[: int(sample.words[-1]["end"] * SAMPLE_RATE)]
        with Talk(server) as talk:
            talk.say(configure({"turn_detection": {"type": "server_vad", "silence_duration_ms": 200}}))
            talk.until("session.updated")
            talk.sound(at_24k(spoken), every(100))
            while ITEM[1] not in [event["type"] for event in talk.events]:
                talk.say(append(silence))
                talk.say(configure({}))
                talk.until("session.updated")
            for _ in range(2):
                talk.say(json.dumps({"type": "input_audio_buffer.commit"}))
            error = talk.until("error")[-1]["error"]
            while len(texts(talk.events)) < 2:
                talk.until(COMPLETED)
        assert "only has 0.00ms" in error["message"]
        assert sorted(texts(talk.events)) == ["", sample.text]

    def test_a_language_with_a_region_is_that_language(self, server: Server) -> None:
        with Talk(server) as talk:
            talk.until("session.created")
            talk.say(configure({"transcription": {"language": "en-US"}}))
            (updated,) = talk.until("session.updated")
            assert updated["session"]["audio"]["input"]["transcription"]["language"] == "en-US"


class TestOlderClients:
    def test_flat_fields_of_the_older_session_are_read_in_an_update_of_the_present_form(self) -> None:
        older = {
            "input_audio_format": "g711_ulaw",
            "turn_detection": None,
            "input_audio_transcription": {"prompt": "x"},
        }
        after = configure_session(Configuration(), older, SERVED).audio.input
        assert (after.format.type, after.turns) == ("audio/pcmu", None)
        assert after.transcription
        assert after.transcription.prompt == "x"
        both = {**older, "audio": {"input": {"format": {"type": "audio/pcma"}}}}
        assert configure_session(Configuration(), both, SERVED).audio.input.format.type == "audio/pcma"

    def test_the_session_has_the_older_shape(self, server: Server) -> None:
        session = {"input_audio_format": "g711_ulaw", "input_audio_transcription": {"model": "whisper-1"},
                   "input_audio_noise_reduction": {"type": "near_field"}, "turn_detection": None}  # fmt: skip
        with Talk(server, additional_headers={"OpenAI-Beta": "realtime=v1"}) as talk:
            (created,) = talk.until("transcription_session.created")
            assert created["session"]["input_audio_format"] == "pcm16"
            assert created["session"]["turn_detection"]["silence_duration_ms"] == 500
            talk.say(json.dumps({"type": "transcription_session.update", "session": session}))
            (updated,) = talk.until("transcription_session.updated")
        after = updated["session"]
        assert {name: after[name] for name in session if name != "input_audio_transcription"} == {
            name: value for name, value in session.items() if name != "input_audio_transcription"
        }
        assert after["input_audio_transcription"] == {"model": "whisper-1", "prompt": "", "language": ""}

    def test_the_older_names_are_spoken_to_who_speaks_them(
        self, server: Server, speech: bytes, samples: dict[str, Sample]
    ) -> None:
        with Talk(server, additional_headers={"OpenAI-Beta": "realtime=v1"}) as talk:
            assert talk.until("transcription_session.created")
            session = {"input_audio_format": "pcm16", "input_audio_transcription": {"model": "whisper-1"},
                       "turn_detection": {"type": "server_vad", "silence_duration_ms": 300}}  # fmt: skip
            talk.say(json.dumps({"type": "transcription_session.update", "session": session}))
            talk.until("transcription_session.updated")
            talk.sound(speech, every(100))
            events = talk.until(COMPLETED)
            assert "conversation.item.created" in [event["type"] for event in events]
            assert samples["two-sentences"].text.startswith(texts(events)[0])

    def test_the_older_way_to_a_key(self, guarded: Server) -> None:
        made = httpx.post(
            f"{guarded.openai_url}/realtime/transcription_sessions",
            json={"input_audio_format": "g711_ulaw"},
            headers={"authorization": "Bearer first-key"},
        ).json()
        with Talk(guarded, additional_headers={"authorization": f"Bearer {made['client_secret']['value']}"}) as talk:
            (created,) = talk.until("session.created")
            assert created["session"]["audio"]["input"]["format"]["type"] == "audio/pcmu"


class TestErrors:
    @pytest.mark.parametrize(
        ("message", "param"),
        [
            ("no json", None),
            ("[" * 100_000, None),
            (json.dumps({"type": "response.create"}), "type"),
            (json.dumps({"type": "x", "event_id": "\ud800"}), "type"),
            (json.dumps({"type": "transcription_session.update", "session": {"input_audio_format": []}}),
             "session.input_audio_format"),
            (json.dumps({"type": "input_audio_buffer.append", "audio": "no base64!"}), "audio"),
            (json.dumps({"type": "input_audio_buffer.append"}), "audio"),
            (json.dumps({"type": "session.update", "session": {"type": "realtime"}}), "session.type"),
            (configure({"format": {"type": "audio/opus"}}), "session.audio.input.format.type"),
            (configure({"transcription": {"model": "another"}}), "session.audio.input.transcription.model"),
            (configure({"transcription": {"language": "fr"}}), "session.audio.input.transcription.language"),
            (configure({"turn_detection": {"type": "server_vad", "threshold": 7}}),
             "session.audio.input.turn_detection.threshold"),
            (configure({"turn_detection": {"type": "server_vad", "idle_timeout_ms": 5000}}),
             "session.audio.input.turn_detection.idle_timeout_ms"),
        ],
    )  # fmt: skip
    def test_an_error_names_its_field_and_the_session_goes_on(
        self, server: Server, samples: dict[str, Sample], message: str, param: str | None
    ) -> None:
        with Talk(server) as talk:
            talk.until("session.created")
            talk.say(message)
            error = talk.until("error")[-1]
            assert error["error"]["param"] == param
            session = talk.events[0]["session"]["id"]
            assert any(session in line and "gets an error" in line for line in server.log.read_text().splitlines())
            talk.say(configure({"turn_detection": None}))
            talk.sound(at_24k(samples["short"].audio().samples), every(200))
            talk.say(json.dumps({"type": "input_audio_buffer.commit"}))
            assert texts(talk.until(COMPLETED)) == [samples["short"].text]

    def test_only_what_is_given_is_changed(self, server: Server) -> None:
        with Talk(server) as talk:
            (created,) = talk.until("session.created")
            talk.say(configure({"transcription": {"keywords": ["Kubernetes"]}}))
            (updated,) = talk.until("session.updated")
        before, after = created["session"]["audio"]["input"], updated["session"]["audio"]["input"]
        assert after.pop("transcription")["keywords"] == ["Kubernetes"]
        assert before.pop("transcription")["keywords"] is None
        assert after == before
        assert before["turn_detection"]["silence_duration_ms"] == 500

    def test_the_end_of_a_session_is_logged_once_with_the_code_of_who_ended_it(self, server: Server) -> None:
        with Talk(server) as talk:
            (created,) = talk.until("session.created")
            talk.socket.close(4001, "goodbye")
        session, deadline = created["session"]["id"], time.monotonic() + 20
        lines: list[str] = []
        while not lines and time.monotonic() < deadline:
            time.sleep(0.1)
            lines = [line for line in server.log.read_text().splitlines() if session in line]
        (line,) = lines
        assert "4001 the client disconnected: goodbye" in line

    @pytest.mark.parametrize(("query", "status"), [("?intent=conversation", 400), ("?model=another", 404)])
    def test_what_is_not_served_is_refused_at_the_door(self, server: Server, query: str, status: int) -> None:
        with pytest.raises(InvalidStatus) as refused:
            opened(server, query, PATH)
        assert refused.value.response.status_code == status

    @pytest.mark.parametrize("body", [{"expires_after": {"seconds": 5}}, {"session": {"audio": 3}}, {"session": []}])
    def test_a_key_for_an_impossible_session_is_refused(self, server: Server, body: dict[str, Any]) -> None:
        refused = httpx.post(f"{server.openai_url}/realtime/client_secrets", json=body)
        assert refused.status_code == 400
        contract.check(refused.json(), contract.ERROR)


def test_a_long_prompt_asks_for_no_more_than_keywords_may() -> None:
    prompt = " ".join(f"Name{number}" for number in range(2_000))
    wanted = Configuration.model_validate({"audio": {"input": {"transcription": {"prompt": prompt}}}})
    assert len(wanted.to_options(EndpointRules()).phrases) == MAX_KEYWORDS
    assert len(Hello(prompt=prompt, keywords=["Anna"]).to_options(0.6).phrases) == MAX_KEYWORDS


class TestKeysForOneSession:
    def test_they_are_valid_for_their_time_and_not_after_it(self) -> None:
        now = [1000.0]
        secrets = ClientSecrets(b"secret", clock=lambda: now[0])
        key, expires_at = secrets.create(60, {"include": []})
        assert expires_at == 1060
        assert secrets.session_of(key) == {"include": []}
        now[0] = 1061.0
        assert secrets.session_of(key) is None

    @pytest.mark.parametrize("change", ["ek_", "", "ek_x.y", "ek_é.ü"])
    def test_others_are_not(self, change: str) -> None:
        key, _ = ClientSecrets(b"secret").create(60, {})
        assert ClientSecrets(b"secret").session_of(change) is None
        assert ClientSecrets(b"another").session_of(key) is None
        assert ClientSecrets(b"secret").session_of(key[:-1]) is None


def companded(samples: Samples, law: str) -> bytes:
    """G.711, by FFmpeg's encoder."""
    codec = {"audio/pcmu": "pcm_mulaw", "audio/pcma": "pcm_alaw"}[law]
    wav = encode(samples, container="wav", codec=codec, rate=8_000, given_rate=8_000)
    return wav[wav.index(b"data") + 8 :]


def test_nothing_said_is_lost_when_the_client_only_closes(exposed: Server, samples: dict[str, Sample]) -> None:
    with log_until_the_client_disconnected(exposed) as said, Talk(exposed) as talk:
        talk.until("session.created")
        talk.sound(at_24k(samples["short"].audio().samples), every(100))
    assert "bring the first question" in said[0]
