"""`parakeet transcribe`, against a real server: outputs, what is not done twice, failures, and how it ends."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner, Result

from parakeet_stt.cli.app import app
from parakeet_stt.cli.files import client
from parakeet_stt.cli.files.formats import write_outputs
from parakeet_stt.cli.files.journal import NAME
from tests.cli.gateway import Gateway, Instead, gateway_to
from tests.conftest import ROOT, Sample, Server

RESPONSE_FORMATS = {"txt": "text", "srt": "srt", "vtt": "vtt", "json": "verbose_json"}
TALK = ROOT / "models" / "sortformer-tiny" / "samples" / "two-voices.flac"
GRANULARITIES = {"timestamp_granularities[]": ["word", "segment"]}


@pytest.fixture
def gateway(server: Server) -> Iterator[Gateway]:
    with gateway_to(server.url) as running:
        yield running


def transcribe(*arguments: object, url: str, stdin: bytes | None = None) -> Result:
    environment = {"OPENAI_BASE_URL": url, "OPENAI_API_KEY": None}
    return CliRunner().invoke(
        app, ["transcribe", *map(str, arguments)], env=environment, input=stdin, catch_exceptions=False
    )


def ask(server: Server, sample: Sample, output: str) -> bytes:
    """What the API says."""
    asked = {"model": "whisper-1", "response_format": RESPONSE_FORMATS[output]}
    return httpx.post(
        f"{server.openai_url}/audio/transcriptions", timeout=60, files={"file": sample.path.read_bytes()},
        data={**asked, **(GRANULARITIES if output == "json" else {})},
    ).content  # fmt: skip


def entries(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / NAME).read_text().splitlines()]


def clips(folder: Path, sample: Sample, count: int) -> list[Path]:
    """Different short recordings."""
    sound, rate = soundfile.read(sample.path, dtype="int16")
    folder.mkdir()
    paths = [folder / f"clip-{number:03}.wav" for number in range(count)]
    for number, path in enumerate(paths):
        soundfile.write(path, sound[: rate + 160 * number], rate)
    return paths


@pytest.mark.parametrize("formats", ["txt", "srt", "vtt", "json", "txt,srt,vtt,json"])
def test_outputs_are_what_the_api_sends_byte_for_byte(
    server: Server, samples: dict[str, Sample], tmp_path: Path, formats: str
) -> None:
    sample = samples["two-sentences"]
    assert transcribe(sample.path, "--format", formats, "--out", tmp_path, url=server.openai_url).exit_code == 0
    for output in formats.split(","):
        assert (tmp_path / f"two-sentences.{output}").read_bytes() == ask(server, sample, output), output
    assert len(list(tmp_path.iterdir())) == 1 + len(formats.split(","))


def test_who_speaks_is_in_every_format_and_in_the_lines_for_programs(speaking: Server, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = (TALK, "--speakers", "--format", "txt,srt,vtt,json", "--out", out, "--json")
    done, again = (transcribe(*arguments, url=speaking.url) for _ in range(2))
    assert done.exit_code == again.exit_code == 0, done.stderr
    for output in ("vtt", "json"):
        asked = {"model": "whisper-1", "response_format": RESPONSE_FORMATS[output], "speakers": "true"}
        said = httpx.post(
            f"{speaking.openai_url}/audio/transcriptions", timeout=60, files={"file": TALK.read_bytes()},
            data={**asked, **(GRANULARITIES if output == "json" else {})},
        ).content  # fmt: skip
        assert without_logprobs(output, (out / f"two-voices.{output}").read_bytes()) == without_logprobs(output, said)
    lines = (out / "two-voices.txt").read_text().splitlines()
    assert {line.split(":")[0] for line in lines} == {"Speaker A", "Speaker B"}
    assert all(one[:9] != other[:9] for one, other in itertools.pairwise(lines))  # a line for each turn
    for run, status in ((done, "transcribed"), (again, "skipped")):
        (line,) = map(json.loads, run.stdout.splitlines())
        assert (line["status"], line["speakers"]) == (status, ["A", "B"])


def test_channels_tell_speakers_apart_without_a_diarizer(server: Server, tmp_path: Path) -> None:
    sound, rate = soundfile.read(TALK, dtype="int16")
    call = tmp_path / "call.wav"
    soundfile.write(call, np.stack([sound[: 3 * rate], np.roll(sound, -3 * rate)[: 3 * rate]], 1), rate)
    done = transcribe(call, "--channels", "separate", url=server.url)
    assert done.exit_code == 0
    assert {line.split(":")[0] for line in done.stdout.splitlines()} == {"Speaker A", "Speaker B"}


def test_a_server_that_tells_no_speakers_says_so_once_and_nothing_more_is_asked(
    gateway: Gateway, samples: dict[str, Sample]
) -> None:
    done = transcribe(TALK, samples["short"].path, "--speakers", "-n", "1", url=gateway.url)
    assert (done.exit_code, gateway.asked, done.stdout) == (3, 1, "")
    assert done.stderr.count("a speaker model, and none is served here (STT_DIARIZER)") == 1


def test_an_answer_that_names_nobody_is_no_answer_about_speakers() -> None:
    body = json.dumps({
        "text": "Yes.", "duration": 1, "language": "english", "segments": [{"text": "Yes.", "start": 0, "end": 1}]
    }).encode()  # fmt: skip
    assert write_outputs(body, ["txt", "srt"])[0]["txt"] == b"Yes.\n"
    with pytest.raises(ValueError, match="names no speakers"):
        write_outputs(body, ["txt"], speakers=True)


def without_logprobs(output: str, body: bytes) -> Any:
    """Log-probabilities depend on what shares the batch."""
    if output != "json":
        return body
    read = json.loads(body)
    for segment in read["segments"]:
        del segment["avg_logprob"]
    return read


def test_without_a_folder_a_transcript_is_printed_and_several_in_order(
    server: Server, samples: dict[str, Sample], tmp_path: Path
) -> None:
    short, longer = samples["short"], samples["two-sentences"]
    alone = transcribe("-", url=server.url, stdin=short.path.read_bytes())
    assert alone.stdout == f"{short.text}\n"
    both = transcribe(longer.path, short.path, url=server.url)
    assert both.stdout == f"==> {longer.path} <==\n{longer.text}\n==> {short.path} <==\n{short.text}\n"
    lines = transcribe(short.path, "--json", "--format", "txt,vtt", url=server.url).stdout.splitlines()
    (said,) = map(json.loads, lines)
    assert (said["source"], said["status"]) == (str(short.path), "transcribed")
    assert said["transcripts"]["txt"] == f"{short.text}\n"
    assert said["transcripts"]["vtt"].startswith("WEBVTT\n\n00:00:")


def test_what_is_finished_is_not_asked_for_again_whatever_its_name(
    gateway: Gateway, samples: dict[str, Sample], tmp_path: Path
) -> None:
    source, out = tmp_path / "a.flac", tmp_path / "out"
    source.write_bytes(samples["short"].path.read_bytes())
    assert "1 transcribed" in transcribe(source, "--out", out, url=gateway.url).stderr
    assert "1 finished before" in transcribe(source, "--out", out, url=gateway.url).stderr
    renamed = source.rename(tmp_path / "b.flac")
    twin = tmp_path / "c.flac"
    twin.write_bytes(renamed.read_bytes())
    assert transcribe(renamed, twin, "--out", out, url=gateway.url).exit_code == 0
    assert gateway.asked == 1
    assert {path.name: path.read_text() for path in out.glob("*.txt")} == dict.fromkeys(
        ("a.txt", "b.txt", "c.txt"), f"{samples['short'].text}\n"
    )
    (out / "a.txt").unlink()
    (out / "b.txt").unlink()
    (out / "c.txt").unlink()
    transcribe(twin, "--out", out, url=gateway.url)  # what is gone is made again
    transcribe(twin, "--out", out, "--format", "srt", url=gateway.url)  # another format
    transcribe(twin, "--out", out, "--keyword", "bread", url=gateway.url)  # other words to prefer
    assert gateway.asked == 4


def test_two_recordings_of_one_content_are_asked_for_once(
    gateway: Gateway, samples: dict[str, Sample], tmp_path: Path
) -> None:
    for name in ("a.flac", "b.flac"):
        (tmp_path / name).write_bytes(samples["short"].path.read_bytes())
    assert transcribe(tmp_path, "--out", tmp_path / "out", url=gateway.url).exit_code == 0
    assert gateway.asked == 1
    assert (tmp_path / "out" / "a.txt").read_text() == (tmp_path / "out" / "b.txt").read_text()


def test_a_file_that_is_not_its_own_is_overwritten_only_if_asked(
    gateway: Gateway, samples: dict[str, Sample], tmp_path: Path
) -> None:
    reference = tmp_path / "short.txt"
    reference.write_text("what was really said")
    done = transcribe(samples["short"].path, "--out", tmp_path, url=gateway.url)
    assert done.exit_code == 1
    assert "--force overwrites it" in done.stderr
    assert reference.read_text() == "what was really said"
    assert gateway.asked == 0
    assert transcribe(samples["short"].path, "--out", tmp_path, "--force", url=gateway.url).exit_code == 0
    assert reference.read_text() == f"{samples['short'].text}\n"
    reference.write_text("corrected by hand")
    assert transcribe(samples["short"].path, "--out", tmp_path, url=gateway.url).exit_code == 1
    assert reference.read_text() == "corrected by hand"


def test_killed_in_the_middle_it_goes_on_where_it_was(
    gateway: Gateway, samples: dict[str, Sample], tmp_path: Path
) -> None:
    paths, out = clips(tmp_path / "in", samples["short"], 16), tmp_path / "out"
    command = [sys.executable, "-m", "parakeet_stt", "transcribe", str(tmp_path / "in"), "--out", str(out), "-n", "4"]
    environment = {**os.environ, "OPENAI_BASE_URL": gateway.url}
    reached = threading.Event()
    gateway.on_answer = lambda count: reached.set() if count == 5 else None
    with subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE) as first:
        assert reached.wait(60)
        first.send_signal(signal.SIGKILL)
    finished = len(entries(out))
    assert 1 <= finished < 16
    before = gateway.answered
    second = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert second.returncode == 0, second.stderr
    assert f"{16 - finished} transcribed" in second.stderr
    assert Counter(entry["source"] for entry in entries(out)) == Counter(map(str, paths))  # each once
    assert gateway.answered - before <= 16 - finished + 4  # those in flight at the kill may still be answered
    assert {path.name for path in out.iterdir()} == {NAME, *(f"clip-{number:03}.txt" for number in range(16))}


def test_a_server_that_goes_away_and_comes_back_costs_nothing(
    gateway: Gateway, samples: dict[str, Sample], tmp_path: Path
) -> None:
    clips(tmp_path / "in", samples["short"], 12)

    def restart(count: int) -> None:
        if count == 4:
            gateway.stop()
            threading.Timer(1.5, gateway.start).start()

    gateway.on_answer = restart
    done = transcribe(tmp_path / "in", "--out", tmp_path / "out", "-n", "4", url=gateway.url)
    assert done.exit_code == 0, done.stderr
    assert "12 transcribed" in done.stderr


@pytest.mark.parametrize(
    ("instead", "least_seconds"),
    [
        ([Instead(None)], 0.0),
        ([Instead(429, "1")], 1.0),
        ([Instead(503, "1")], 1.0),
        ([Instead(502), Instead(500)], 0.5),
    ],
    ids=["a broken connection", "429", "503", "502 and 500"],
)
def test_what_may_pass_is_tried_again_and_patience_is_as_long_as_the_server_says(
    gateway: Gateway, samples: dict[str, Sample], instead: list[Instead], least_seconds: float
) -> None:
    gateway.instead += instead
    begin = time.monotonic()
    done = transcribe(samples["short"].path, url=gateway.url)
    assert (done.exit_code, done.stdout) == (0, f"{samples['short'].text}\n")
    assert time.monotonic() - begin >= least_seconds
    assert gateway.asked == len(instead) + 1


def test_one_recording_that_fails_costs_no_other_and_status_1(
    server: Server, samples: dict[str, Sample], tmp_path: Path
) -> None:
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"no sound at all")
    done = transcribe(broken, samples["short"].path, "--json", url=server.url)
    assert done.exit_code == 1
    said = {one["source"]: one for one in map(json.loads, done.stdout.splitlines())}
    assert said[str(samples["short"].path)]["status"] == "transcribed"
    failed = said[str(broken)]
    assert (failed["status"], failed["error"]["status"], failed["error"]["code"]) == ("failed", 400, "invalid_audio")
    assert "(request req_" in failed["error"]["message"]


def test_what_breaks_again_and_again_is_given_up_alone(
    gateway: Gateway, samples: dict[str, Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "FIRST_WAIT_SECONDS", 0.01)
    gateway.instead += [Instead(None)] * client.MOST_FAILURES
    done = transcribe(samples["short"].path, samples["two-sentences"].path, "-n", "1", url=gateway.url)
    assert done.exit_code == 1
    assert "4 tries" in done.stderr
    assert samples["two-sentences"].text in done.stdout


@pytest.mark.parametrize(
    ("instead", "says"),
    [
        (Instead(401, code="invalid_api_key"), "not now"),
        (Instead(404, code="model_not_found"), "not now"),
        (Instead(429, code="insufficient_quota"), "not now"),
        (Instead(404), "is this a server with OpenAI's API?"),
    ],
    ids=lambda value: str(value),
)
def test_a_server_that_refuses_everything_ends_the_command_with_status_3(
    gateway: Gateway, samples: dict[str, Sample], instead: Instead, says: str
) -> None:
    gateway.instead += [instead] * 2
    done = transcribe(samples["short"].path, samples["two-sentences"].path, "-n", "1", url=gateway.url)
    assert (done.exit_code, gateway.asked) == (3, 1)
    assert says in done.stderr
    assert "2 not done: the same command goes on" in done.stderr


def test_a_server_that_stays_away_ends_the_command_with_status_3(gateway: Gateway, samples: dict[str, Sample]) -> None:
    gateway.stop()
    done = transcribe(samples["short"].path, "--give-up", "0.5", url=gateway.url)
    gateway.start()
    assert done.exit_code == 3
    assert "can't be reached" in done.stderr


def test_ctrl_c_ends_it_with_status_130_and_keeps_what_is_done(
    gateway: Gateway, samples: dict[str, Sample], tmp_path: Path
) -> None:
    clips(tmp_path / "in", samples["short"], 8)
    out = tmp_path / "out"
    gateway.on_answer = lambda count: os.kill(running.pid, signal.SIGINT) if count == 3 else None
    command = [sys.executable, "-m", "parakeet_stt", "transcribe", str(tmp_path / "in"), "--out", str(out), "-n", "2"]
    environment = {**os.environ, "OPENAI_BASE_URL": gateway.url}
    running = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)
    _, said = running.communicate(timeout=60)
    assert running.returncode == 130
    assert "not done: the same command goes on" in said
    assert "Traceback" not in said
    assert len(entries(out)) == len(list(out.glob("*.txt"))) >= 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["/no/such/file.wav"], "no such file"),
        (["*.nothing"], "no recording"),
        (["SAMPLE", "--format", "docx"], "'docx' is none of txt, srt, vtt, json"),
        (["SAMPLE", "--format", "txt,srt"], "--out names a folder"),
        (["SAMPLE", "--url", "ftp://speech.example"], "no address"),
        (["SAMPLE", "-n", "0"], "-n"),
        (["SAMPLE", "--channels", "left"], "'left' is none of mixed, separate"),
        (["SAMPLE", "--speakers", "--diarizer", "sortformer-tiny"], "--local starts"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_done(
    samples: dict[str, Sample], arguments: list[str], says: str
) -> None:
    path = str(samples["short"].path)
    done = transcribe(*(path if one == "SAMPLE" else one for one in arguments), url="http://127.0.0.1:1")
    assert done.exit_code == 2
    assert says in " ".join(done.stderr.split())


def test_an_address_is_downloaded_and_not_again_while_it_has_not_changed(
    gateway: Gateway, samples: dict[str, Sample], tmp_path: Path
) -> None:
    served = tmp_path / "served"
    served.mkdir()
    sound = served / "a b.flac"
    sound.write_bytes(samples["short"].path.read_bytes())
    answers: list[int] = []

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments, directory=str(served))

        def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
            answers.append(int(code))

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as files:
        threading.Thread(target=files.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        address, out = f"http://127.0.0.1:{files.server_port}/a%20b.flac", tmp_path / "out"
        assert transcribe(address, "--out", out, url=gateway.url).exit_code == 0
        assert (out / "a b.txt").read_text() == f"{samples['short'].text}\n"
        assert "1 finished before" in transcribe(address, "--out", out, url=gateway.url).stderr
        assert (answers, gateway.asked) == ([200, 304], 1)
        missing = transcribe(f"{address}x", "--out", out, url=gateway.url)
        assert missing.exit_code == 1
        assert "status 404" in missing.stderr
        files.shutdown()
