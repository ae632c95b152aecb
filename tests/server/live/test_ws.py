"""`/ws` on a real server: the original wrapper's protocol, its faults, and what clients may ask for beyond it."""

from __future__ import annotations

import concurrent.futures
import json
import random
import time
from collections.abc import Iterable, Sequence
from typing import Any

import kaldialign
import numpy as np
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection

from parakeet_stt.audio import SAMPLE_RATE
from tests.conftest import Sample, Server, without_case_or_punctuation
from tests.media.readers import eventually
from tests.sockets import END, Message, answers, every, frames, log_until_the_client_disconnected, opened, pcm


def spoken(server: Server, data: bytes, sizes: Iterable[int] | None = None, query: str = "") -> list[Message]:
    """All answers to this sound, sent as fast as it is taken."""
    with opened(server, query) as socket:
        for frame in frames(data, sizes or every(20)):
            socket.send(frame)
        socket.send(END)
        return answers(socket)


def finals(messages: Sequence[Message]) -> list[str]:
    return [message["text"] for message in messages if message.get("type") == "final"]


def check_growth(messages: Sequence[Message]) -> None:
    """What is stable in a partial stays, up to the final; its words are within it, one after another."""
    stable: dict[int, str] = {}
    for message in messages:
        number = message["utterance"]
        if message["type"] == "partial":
            assert message["stable"].startswith(stable.get(number, ""))
            assert message["text"].startswith(message["stable"])
            stable[number] = message["stable"]
        if message["type"] == "final":
            assert message["text"].startswith(stable.get(number, ""))
            assert " ".join(word["word"] for word in message["words"]) == message["text"]
            times = [(word["start"], word["end"]) for word in message["words"]]
            assert all(start <= end for start, end in times)
            assert message["start"] <= times[0][0]
            assert times[-1][1] <= message["end"]


def in_order(messages: Sequence[Message]) -> list[Message]:
    """By utterance: the next one may be queued before a text is there, or after."""
    return sorted(messages, key=lambda message: (message["utterance"], "text" in message))


@pytest.fixture(scope="module")
def sound(samples: dict[str, Sample]) -> bytes:
    return pcm(samples["two-sentences"].audio().samples)


@pytest.fixture(scope="module")
def usual(server: Server, sound: bytes) -> list[Message]:
    return spoken(server, sound)


class TestTheOldProtocol:
    def test_an_utterance_is_queued_and_its_text_follows(
        self, usual: list[Message], samples: dict[str, Sample]
    ) -> None:
        kinds = [("status" in message, "text" in message) for message in in_order(usual)]
        assert kinds == [(True, False), (False, True)] * (len(usual) // 2)
        assert all(message["status"] == "queued" for message in in_order(usual)[::2])
        assert " ".join(finals(usual)) == samples["two-sentences"].text

    @pytest.mark.parametrize("milliseconds", [10, 20, 30, 40, 100])
    def test_4_frames_of_any_length_give_the_same(
        self, server: Server, sound: bytes, usual: list[Message], milliseconds: int
    ) -> None:
        """What was left of a frame beyond whole windows was thrown away: 40 ms frames lost a fifth of the sound."""
        assert in_order(spoken(server, sound, every(milliseconds))) == in_order(usual)

    def test_4_frames_of_odd_lengths_give_the_same(self, server: Server, sound: bytes, usual: list[Message]) -> None:
        pick = random.Random(3)
        assert in_order(spoken(server, sound, iter(lambda: pick.randrange(1, 3001), 0))) == in_order(usual)

    def test_2_and_6_each_of_twenty_sessions_gets_its_own_text_and_no_other(
        self, server: Server, samples: dict[str, Sample]
    ) -> None:
        """All sessions shared one table of results, and one state of the detector."""
        whole = samples["two-minutes"]
        cuts = [int(word["start"] * SAMPLE_RATE) for word in whole.words[::10]]
        audio = whole.audio().samples
        parts = [pcm(audio[start : start + 5 * SAMPLE_RATE]) for start in cuts[:20]]
        assert len(parts) == 20
        alone = [spoken(server, part, every(30)) for part in parts]
        with concurrent.futures.ThreadPoolExecutor(20) as pool:
            together = list(pool.map(lambda part: spoken(server, part, every(30)), parts))
        assert [finals(one) for one in together] == [finals(one) for one in alone]
        assert len({" ".join(finals(one)) for one in alone}) == 20

    def test_3_who_leaves_in_the_middle_of_a_word_has_it_recognized_all_the_same(
        self, exposed: Server, samples: dict[str, Sample]
    ) -> None:
        """Its detector was never flushed, and its task never ended."""
        sample = samples["short"]
        spoken_samples = int(sample.words[-1]["end"] * SAMPLE_RATE) - 1600
        with log_until_the_client_disconnected(exposed) as said, opened(exposed) as socket:
            for frame in frames(pcm(sample.audio().samples[:spoken_samples]), every(20)):
                socket.send(frame)
        (log,) = said
        (line,) = [json.loads(line)["message"] for line in log.splitlines() if '"message": "final: ' in line]
        assert "everyone will bring the first" in line

    def test_9_long_speech_is_cut_in_a_pause_or_between_words(
        self, server: Server, samples: dict[str, Sample], usual: list[Message]
    ) -> None:
        """It was cut after eight seconds, the silence among them, in the middle of whatever was said then."""
        sample = samples["two-minutes"]
        messages = spoken(server, pcm(sample.audio().samples), every(100))
        assert max(message["end"] - message["start"] for message in messages if "end" in message) <= 8.1
        said, found = without_case_or_punctuation(sample.text), without_case_or_punctuation(" ".join(finals(messages)))
        assert kaldialign.edit_distance(said, found)["total"] <= 0.03 * len(said)

    def test_words_at_the_very_first_sample_are_heard(self, server: Server, samples: dict[str, Sample]) -> None:
        sample = samples["short"]
        audio = sample.audio().samples[int(sample.words[0]["start"] * SAMPLE_RATE) :]
        assert finals(spoken(server, pcm(audio)))[0].split()[0] == sample.text.split()[0]

    def test_silence_is_answered_with_nothing(self, server: Server) -> None:
        assert spoken(server, bytes(32_000 * 5)) == []


class TestBeyondIt:
    def test_partials_grow_and_what_is_stable_stays(
        self, server: Server, sound: bytes, samples: dict[str, Sample]
    ) -> None:
        messages = spoken(server, sound, query="?partials=true&words=true")
        check_growth(messages)
        said = without_case_or_punctuation(samples["two-sentences"].text)
        found = without_case_or_punctuation(" ".join(finals(messages)))
        assert kaldialign.edit_distance(said, found)["total"] <= 1

    def test_word_times_are_those_of_the_whole_session(self, server: Server, samples: dict[str, Sample]) -> None:
        sample = samples["short"]
        late = np.concatenate([np.zeros(7 * SAMPLE_RATE, np.float32), sample.audio().samples])
        (final,) = [m for m in spoken(server, pcm(late), query="?words=1") if m["type"] == "final"]
        assert [word["word"] for word in final["words"]] == sample.text.split()
        for word, truth in zip(final["words"], sample.words, strict=True):
            assert word["start"] == pytest.approx(7 + truth["start"], abs=0.25)

    def test_a_final_says_how_much_of_its_speech_has_words_if_that_is_asked_for(
        self, server: Server, sound: bytes, usual: list[Message]
    ) -> None:
        messages = spoken(server, sound, query="?coverage=true")
        assert in_order([{k: v for k, v in one.items() if k != "speech"} for one in messages]) == in_order(usual)
        for final in [one for one in messages if one["type"] == "final"]:
            assert 0 < final["speech"]["seconds"] == final["speech"]["covered_seconds"] < final["end"] - final["start"]
            assert final["speech"]["uncovered"] == []

    @pytest.mark.parametrize("hello", [False, True], ids=["in the address", "in a hello"])
    def test_other_encodings_and_rates(self, server: Server, samples: dict[str, Sample], hello: bool) -> None:
        sample = samples["short"]
        asked = {"sample_rate": 48_000, "encoding": "pcm_f32le"}
        data = np.repeat(sample.audio().samples, 3).astype("<f4").tobytes()
        query = "" if hello else "?" + "&".join(f"{name}={value}" for name, value in asked.items())
        with opened(server, query) as socket:
            if hello:
                socket.send(json.dumps({"type": "hello", **asked}))
                assert json.loads(socket.recv(timeout=10))["sample_rate"] == 48_000
            for frame in frames(data, iter(lambda: 9_601, 0)):
                socket.send(frame)
            socket.send(END)
            assert " ".join(finals(answers(socket))) == sample.text

    def test_a_commit_ends_an_utterance_before_its_pause(self, server: Server, samples: dict[str, Sample]) -> None:
        sample = samples["short"]
        audio = sample.audio().samples[: int((sample.words[-1]["end"] + 0.05) * SAMPLE_RATE)]
        with opened(server) as socket:
            socket.send(pcm(audio))
            socket.send(json.dumps({"type": "commit"}))
            assert json.loads(socket.recv(timeout=20))["status"] == "queued"
            assert json.loads(socket.recv(timeout=20))["text"] == sample.text

    def test_the_end_gets_the_last_final_and_a_clean_close(self, server: Server, samples: dict[str, Sample]) -> None:
        sample = samples["short"]
        with opened(server) as socket:
            socket.send(pcm(sample.audio().samples[: int((sample.words[-1]["end"] + 0.05) * SAMPLE_RATE)]))
            socket.send(END)
            assert finals(answers(socket)) == [sample.text]
            assert socket.close_code == 1000

    @pytest.mark.parametrize(
        ("query", "field"),
        [
            ("?sample_rate=4000", "sample_rate"), ("?encoding=opus", "encoding"), ("?threshold=2", "threshold"),
            ("?language=fr", "language"), ("?silence_ms=x", "silence_ms"), ("?tokn=x", "tokn"),
        ],
    )  # fmt: skip
    def test_a_wish_that_cannot_be_met_is_refused_by_name(self, server: Server, query: str, field: str) -> None:
        with pytest.raises(InvalidStatus) as refused:
            opened(server, query)
        assert refused.value.response.status_code == 400
        assert json.loads(refused.value.response.body)["error"]["param"] == field

    def test_half_a_sample_before_the_hello_does_not_fix_the_format(
        self, server: Server, samples: dict[str, Sample]
    ) -> None:
        with opened(server) as socket:
            socket.send(b"")
            socket.send(b"\0")
            socket.send(json.dumps({"type": "hello", "encoding": "pcm_f32le"}))
            socket.send(samples["short"].audio().samples.astype("<f4").tobytes())
            socket.send(END)
            messages = answers(socket)
        assert [message["text"] for message in messages if message["type"] == "final"] == [samples["short"].text]

    def test_a_language_with_a_region_is_that_language(self, server: Server, samples: dict[str, Sample]) -> None:
        with opened(server, "?language=en-US") as socket:
            socket.send(pcm(samples["short"].audio().samples))
            socket.send(END)
            (final,) = [message for message in answers(socket) if message["type"] == "final"]
        assert final["text"] == samples["short"].text

    def test_an_error_leaves_the_session_open(self, server: Server, samples: dict[str, Sample]) -> None:
        sample = samples["short"]
        with opened(server) as socket:
            assert socket.response
            session = socket.response.headers["x-request-id"]
            for wrong in ("no json", "[]", '{"type": "dance"}', '{"type": "hello", "sample_rate": 1}'):
                socket.send(wrong)
                assert json.loads(socket.recv(timeout=10))["type"] == "error"
            socket.send(pcm(sample.audio().samples))
            socket.send(json.dumps({"type": "hello"}))
            socket.send(END)
            messages = answers(socket)
        assert [message["error"]["param"] for message in messages if message["type"] == "error"] == ["type"]
        assert finals(messages) == [sample.text]
        assert server.log.read_text().count(f"session {session} gets an error") == 5
        assert eventually(lambda: f"WS /ws {session} 1000 " in server.log.read_text())

    def test_an_unknown_socket_is_not_there(self, server: Server) -> None:
        with pytest.raises(InvalidStatus) as refused:
            opened(server, path="/nowhere")
        assert refused.value.response.status_code == 404
        assert set(json.loads(refused.value.response.body)) == {"error"}
        assert refused.value.response.headers["x-request-id"].startswith("req_")


def once_there_is_room(server: Server) -> ClientConnection:
    """A session of the guarded server: those of earlier tests end a moment after their clients have left."""
    deadline = time.monotonic() + 10
    while True:
        try:
            return opened(server, "?api_key=first-key")
        except InvalidStatus:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


class TestUnderLoad:
    def test_a_file_through_the_socket_is_taken_as_fast_as_it_is_recognized(
        self, server: Server, samples: dict[str, Sample]
    ) -> None:
        sample = samples["two-minutes"]
        began = time.monotonic()
        messages = spoken(server, pcm(sample.audio().samples), every(1000), "?partials=true&words=true")
        assert time.monotonic() - began < sample.seconds
        check_growth(messages)
        said, found = without_case_or_punctuation(sample.text), without_case_or_punctuation(" ".join(finals(messages)))
        assert kaldialign.edit_distance(said, found)["total"] <= 0.04 * len(said)

    def test_too_many_sessions_are_refused_with_the_time_to_come_back(self, guarded: Server) -> None:
        key: dict[str, Any] = {"additional_headers": {"authorization": "Bearer first-key"}}
        with opened(guarded, **key), opened(guarded, **key):
            with pytest.raises(InvalidStatus) as refused:
                opened(guarded, **key)
            assert refused.value.response.status_code == 429
            assert int(refused.value.response.headers["retry-after"]) > 0
            assert json.loads(refused.value.response.body)["error"]["code"] == "rate_limit_exceeded"

    def test_who_says_nothing_is_told_to_go(self, guarded: Server) -> None:
        with once_there_is_room(guarded) as socket:
            assert answers(socket) == []
            assert socket.close_code == 4408

    @pytest.mark.parametrize("path", ["/ws", "/v1/realtime"])
    def test_a_socket_needs_a_key(self, guarded: Server, path: str) -> None:
        for query in ("", "?api_key=wrong"):
            with pytest.raises(InvalidStatus) as refused:
                opened(guarded, query, path)
            assert refused.value.response.status_code == 401
            assert json.loads(refused.value.response.body)["error"]["code"] == "invalid_api_key"
        with opened(guarded, path=path, subprotocols=["realtime", "openai-insecure-api-key.first-key"]) as socket:
            assert socket.subprotocol == "realtime"

    def test_pages_of_other_sites_are_refused(self, guarded: Server) -> None:
        with pytest.raises(InvalidStatus) as refused:
            opened(guarded, "?api_key=first-key", origin="https://other.example")
        assert refused.value.response.status_code == 403
        with opened(guarded, "?api_key=first-key", origin="https://app.example"):
            pass
