"""`parakeet evaluate` against a real server: what it counts, what it writes, and how it ends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner, Result

from parakeet_stt.cli.app import app
from tests.conftest import SAMPLES, Server, free_port


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["evaluate", *map(str, arguments)])


def lines(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """The two short samples; the first one's text says a word more than is spoken, and another one."""
    entries = json.loads((SAMPLES / "samples.json").read_text())
    entries = [one for one in entries if one["file"] != "two-minutes.flac"]
    for one in entries:
        one["file"] = str(SAMPLES / one["file"])
    entries[0]["text"] = "If the <b>food</b> is bad, everyone will bring the very first question."
    (tmp_path / "own.jsonl").write_text("\n".join(map(json.dumps, entries)))
    return tmp_path / "own.jsonl"


def test_errors_times_and_the_report(server: Server, manifest: Path, tmp_path: Path) -> None:
    page, details = tmp_path / "out" / "report.html", tmp_path / "details.jsonl"
    result = run(
        manifest, "--url", f"ours={server.url}", "--normalizer", "plain", "--json", "--html", page, "--details", details
    )
    assert result.exit_code == 0, result.output
    (found,) = lines(result)
    # "<b>food</b>" is the plain word "bfoodb".
    assert (found["substitutions"], found["deletions"], found["insertions"]) == (2, 1, 0)
    assert (found["server"], found["manifest"], found["recordings"], found["notes"]) == ("ours", "own", 2, [])
    assert found["wer"] == pytest.approx(100 * 3 / found["words"], abs=0.001)
    assert found["wer_95"][0] == 0 < found["wer"] < found["wer_95"][1]
    assert found["times"]["words"] > 15
    assert found["times"]["start_median_ms"] < 80
    assert found["rtfx"] > 1
    said = [json.loads(line) for line in details.read_text().splitlines()]
    assert [(one["words"], one["substitutions"], one["deletions"]) for one in said] == [
        (12, 2, 1),
        (said[1]["words"], 0, 0),
    ]
    html = page.read_text()
    assert "<del>bad</del> <ins>good</ins>" in html
    assert "If the &lt;b&gt;food&lt;/b&gt; is bad" in html
    assert html.count("<audio") == 1  # the other has no error
    assert "data:audio/" in html
    assert "http" not in html.replace(server.url, "").replace("http-equiv", "")


def test_texts_are_those_of_the_api(server: Server, tmp_path: Path) -> None:
    """So that the count of errors is that of any other program that asks the server and counts."""
    details = tmp_path / "details.jsonl"
    arguments = ("--url", server.url, "--normalizer", "none", "--limit", "2", "--json", "--details", details)
    result = run(SAMPLES / "samples.json", *arguments)
    assert result.exit_code == 0, result.output
    assert lines(result)[0]["recordings"] == 2
    for one in map(json.loads, details.read_text().splitlines()):
        form = {"model": "whisper-1", "response_format": "json"}
        files = {"file": (one["name"], (SAMPLES / one["name"]).read_bytes())}
        answer = httpx.post(f"{server.openai_url}/audio/transcriptions", data=form, files=files, timeout=120).json()
        assert one["found"] == answer["text"]
        assert one["words"] == len(one["text"].split())


def test_two_servers_beside_each_other(server: Server, manifest: Path) -> None:
    result = run(
        manifest, "--url", f"a={server.url}/v1", "--url", f"b={server.url}/v1#gpt-4o-transcribe", "--limit", "1"
    )
    assert result.exit_code == 0, result.output
    assert "own: b less a: +0.00 to +0.00 points (95 %)" in result.stdout
    assert result.stdout.count("own ") >= 2


def test_a_manifest_of_texts_beside_files_needs_no_times(server: Server, tmp_path: Path) -> None:
    (tmp_path / "one.flac").write_bytes((SAMPLES / "short.flac").read_bytes())
    (tmp_path / "one.txt").write_text("if the food is good everyone will bring the 1st question\n")
    (tmp_path / "silent.flac").write_bytes((SAMPLES / "short.flac").read_bytes())
    (tmp_path / "silent.txt").write_text("")
    result = run(tmp_path, "--url", server.url, "--json")
    assert result.exit_code == 0, result.output
    (found,) = lines(result)
    assert (found["wer"], found["recordings"], found["times"]) == (0, 1, None)
    assert found["notes"] == ["1 recordings without words do not count; 11 words found in them"]


def test_what_has_no_transcript_is_said_and_does_not_count(server: Server, tmp_path: Path) -> None:
    good = {
        "audio": str(SAMPLES / "short.flac"),
        "text": "If the food is good, everyone will bring the first question.",
    }
    (tmp_path / "broken.wav").write_bytes(b"RIFF nothing")
    bad = {"audio": "broken.wav", "text": "nobody knows"}
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, [good, bad])))
    result = run(tmp_path / "m.jsonl", "--url", server.url, "--json")
    assert result.exit_code == 1
    (found,) = lines(result)
    assert (found["recordings"], found["failed"], found["wer"]) == (1, 1, 0)
    assert "broken.wav" in found["notes"][0]


def test_a_server_that_is_away_ends_the_command_at_once() -> None:
    address = f"http://127.0.0.1:{free_port()}"
    result = run(SAMPLES / "samples.json", "--url", address)
    assert result.exit_code == 3
    assert f"{address}/v1 can't be reached: ConnectError" in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.jsonl"], "none.jsonl does not exist"),
        ([SAMPLES / "samples.json", "--url", "ftp://somewhere"], "is no address of a server"),
        ([SAMPLES / "samples.json", "--url", "a=http://x", "--url", "a=http://y"], "a comes twice"),
        ([SAMPLES / "samples.json", "--normalizer", "german"], "german"),
    ],
)
def test_wrong_commands_are_refused(arguments: list[str | Path], message: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert message in " ".join(result.output.replace("│", " ").split())
