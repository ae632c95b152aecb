"""Installs real clients and runs each as its users do, against a served tiny model. Run before a release.

    python -m scripts.release.check_clients                         # all, 15 minutes, mostly of installing
    python -m scripts.release.check_clients --only LiveKit          # those whose name has this in it
    python -m scripts.release.check_clients --write                 # writes docs/clients.md

One client needs Python 3.12; where `python3.12` is not on the PATH, --python names it.

Each client is installed into a folder of its own, of PyPI or npm, at the versions of `clients.py`, and transcribes one
recording in each way that it has; for sockets it lies between pauses of three seconds. The text has to be the
recording's. Where speakers are asked for, it is a conversation, and the text has to be the one without speakers.
Prints a line for each way, then one JSON line; status 1 if any text was wrong.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import httpx
import numpy as np
import soundfile
import soxr

from scripts.bench.serving import ROOT, serve, wait_until_ready
from scripts.release.check_clients.clients import CLIENTS, CURL, UNTIL, Client

SAMPLES = ROOT / "models" / "parakeet-tdt-tiny" / "samples"
TALK = ROOT / "models" / "sortformer-tiny" / "samples" / "two-voices.flac"
PAGE = ROOT / "docs" / "clients.md"
DIARIZER = {"STT_DIARIZER": "sortformer-tiny"}
BEGIN, END = "<!-- made by scripts/release/check_clients -->", "<!-- end -->"
PAUSE_SECONDS = 3.0
LIMIT_SECONDS = 600.0  # of one client; LiteLLM's proxy takes minutes to start on a busy machine


@dataclass(frozen=True, slots=True)
class Result:
    """What one way to call gave. is_right: whether the text was the recording's."""

    client: str
    version: str
    way: str
    text: str
    is_right: bool


def make_recordings(folder: Path) -> list[str]:
    """A wav file of speech at 16 kHz, one at 24 kHz with pauses around it, as 16-bit samples; and a conversation."""
    sound, rate = soundfile.read(SAMPLES / "short.flac", dtype="float32")
    speech, pauses = folder / "speech.wav", folder / "pauses.wav"
    soundfile.write(speech, sound, rate, subtype="PCM_16")
    silence = np.zeros(int(PAUSE_SECONDS * rate), np.float32)
    around = soxr.resample(np.concatenate([silence, sound, silence]), rate, 24_000)
    soundfile.write(pauses, around, 24_000, subtype="PCM_16")
    return [str(speech), str(pauses), str(TALK)]


def install(client: Client, folder: Path, newer: str | None) -> list[str]:
    """Install a client into a folder. Returns the command that runs its script. Raises RuntimeError.

    newer: the Python for clients that need a newer one than this.
    """
    if client.is_python:
        uv = str(Path(sys.executable).with_name("uv"))
        python = folder / "bin" / "python"
        is_here = sys.version_info[:2] >= tuple(map(int, client.python.split(".")))
        _run(
            [
                uv,
                "venv",
                "-q",
                "--no-python-downloads",
                "--python",
                sys.executable if is_here else newer or client.python,
                str(folder),
            ]
        )
        _run([uv, "pip", "install", "-q", "--python", str(python), "--exclude-newer", UNTIL, *client.packages])
        return [str(python), str(client.path)]
    folder.mkdir()
    (folder / "package.json").write_text('{"private": true}')
    _run(["npm", "install", "--silent", "--save-exact", f"--before={UNTIL}", *client.packages], folder)
    script = folder / client.path.name
    shutil.copy(client.path, script)
    return ["node", str(script)]


def _run(command: list[str], folder: Path | None = None) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{command[0]}: {(done.stderr or done.stdout).strip()[-300:]}")


def try_client(
    client: Client, url: str, recordings: list[str], expected: Mapping[str, str], newer: str | None
) -> list[Result]:
    """Install and run one client. expected: the text of each way that has another than "file". newer: see `install`."""

    def failed(reason: str) -> Result:
        return Result(client.name, client.version, "-", reason, False)

    with tempfile.TemporaryDirectory() as folder:
        try:
            command = install(client, Path(folder, "client"), newer)
        except (OSError, RuntimeError) as exc:
            return [failed(f"can't be installed here: {exc}")]
        environment = {**os.environ, "PYTHONPATH": "", "NO_PROXY": "127.0.0.1,localhost"}
        with Path(folder, "log").open("w+") as log:
            try:
                done = subprocess.run(
                    [*command, url, *recordings], stdout=subprocess.PIPE, stderr=log, text=True, env=environment,
                    timeout=LIMIT_SECONDS,
                )  # fmt: skip
            except subprocess.TimeoutExpired:
                return [failed(f"was not done in {LIMIT_SECONDS:.0f} s")]
            log.seek(0)
            errors = log.read().strip()[-500:]
    lines = [line.split("\t", 1) for line in done.stdout.splitlines() if "\t" in line]
    found = [
        Result(client.name, client.version, way, text, text.strip() == expected.get(way, expected["file"]))
        for way, text in lines
    ]
    return [*found, failed(errors)] if done.returncode or not found else found


def expect(url: str, speech: str) -> dict[str, str]:
    """The right texts: of the speech; of the conversation without speakers; and as events, whose cuts are others."""
    request, files = f"{url}/v1/audio/transcriptions", {"file": TALK.read_bytes()}
    whole = httpx.post(request, data={"model": "whisper-1"}, files=files, timeout=60).raise_for_status()
    events = httpx.post(request, data={"model": "gpt-4o-transcribe", "stream": "true"}, files=files, timeout=60)
    last = [line for line in events.raise_for_status().text.splitlines() if "transcript.text.done" in line][-1]
    streamed = json.loads(last.removeprefix("data: "))["text"]
    return {"file": speech, "speakers": whole.json()["text"], "events with speakers": streamed}


def try_curl(url: str, speech: str, expected: str) -> Result:
    """Run curl, if it is here."""
    version = subprocess.run(["curl", "--version"], capture_output=True, text=True).stdout.split()[1]
    command = CURL.replace("$URL", url).replace("speech.wav", speech)
    text = subprocess.run(command.split(), capture_output=True, text=True).stdout.strip()
    return Result("curl", version, "file", text, text == expected)


def table(results: list[Result]) -> str:
    """The page's part: each client with its version, its ways to call, and the lines that configure it."""
    lines = [f"Tried on {datetime.now(UTC):%Y-%m-%d} with the tiny model; the text has to be the recording's.", ""]
    lines += ["| client | version | tried | |", "|---|---|---|---|"]
    for name in dict.fromkeys(result.client for result in results):
        own = [result for result in results if result.client == name]
        wrong = [f"{one.way}: {one.text[:200]}" for one in own if not one.is_right]
        ways = "; ".join(dict.fromkeys(one.way for one in own))
        lines.append(f"| {name} | {own[0].version} | {ways} | {'; '.join(wrong) or 'right'} |")
    lines += ["", "Below, `sys.argv[1]` and `url` are the service's address, such as `http://127.0.0.1:3000`.", ""]
    for client in CLIENTS:
        lines += [f"### {client.name}", "", *([client.note, ""] if client.note else [])]
        lines += [f"```{'python' if client.is_python else 'js'}", client.configuration(), "```", ""]
    return "\n".join([*lines, "### curl", "", "```sh", CURL, "```", ""])


def write_page(results: list[Result]) -> None:
    """Put the table between its marks."""
    page = PAGE.read_text()
    made = f"{BEGIN}\n{table(results)}{END}"
    PAGE.write_text(re.sub(f"{re.escape(BEGIN)}.*{re.escape(END)}", lambda _: made, page, flags=re.DOTALL))


def main() -> int:
    """Try all clients, and print what each gave."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--url", help="a running server with the tiny model and the tiny diarizer")
    parser.add_argument("--only", help="clients whose name has this in it")
    parser.add_argument("--write", action="store_true", help="write docs/clients.md")
    parser.add_argument("--python", help="a Python for clients that need a newer one than this")
    asked = parser.parse_args()
    if asked.only and asked.write:
        parser.error("the page has all clients: --write goes without --only")
    spoken = next(
        one["text"] for one in json.loads((SAMPLES / "samples.json").read_text()) if one["file"] == "short.flac"
    )
    results: list[Result] = []
    with tempfile.TemporaryDirectory() as folder, serve(asked.url, None, changes=DIARIZER) as url:
        wait_until_ready(url)
        expected = expect(url, spoken)
        recordings = make_recordings(Path(folder))
        chosen = [client for client in CLIENTS if not asked.only or asked.only.lower() in client.name.lower()]
        for client in chosen:
            for result in try_client(client, url, recordings, expected, asked.python):
                results.append(result)
                _print(result)
        if not asked.only:
            results.append(try_curl(url, recordings[0], spoken))
            _print(results[-1])
    if asked.write:
        write_page(results)
    print(json.dumps([asdict(result) for result in results]))
    return int(not all(result.is_right for result in results))


def _print(result: Result) -> None:
    verdict = "right" if result.is_right else f"WRONG: {result.text}"
    print(f"{result.client:36}{result.version:10}{result.way:28}{verdict}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
