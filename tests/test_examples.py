"""The examples: each runs against a served model as a person would run it, and prints the right text."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Sample, Server

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
WITHOUT_SERVICE = {"curator"}  # an adapter for NeMo Curator, which is not in the locks
COMMANDS = [line for line in (EXAMPLES / "README.md").read_text().splitlines() if line.startswith("curl ")]


def run(name: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "OPENAI_API_KEY"}
    return subprocess.run(
        [sys.executable, EXAMPLES / f"{name}.py", *arguments],
        env=environment, capture_output=True, text=True, timeout=120,
    )  # fmt: skip


def printed(server: Server, name: str, *arguments: str | Path) -> str:
    done = run(name, "--url", server.url, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_files_prints_the_text_and_each_words_times(server: Server, samples: dict[str, Sample]) -> None:
    two, short = samples["two-sentences"], samples["short"]
    text, *rest = printed(server, "files", two.path, short.path).splitlines()
    assert text == f"two-sentences.flac: {two.text}"
    words = len(two.text.split())
    assert rest[words] == f"short.flac: {short.text}"
    assert [line.split()[-1] for line in rest[:words]] == two.text.split()
    times = [(float(line.split()[0]), float(line.split()[2])) for line in rest[:words]]
    assert all(start < end for start, end in times)
    assert times == sorted(times)
    assert 5 < times[-1][1] <= two.seconds
    assert printed(server, "files").startswith(f"short.flac: {short.text}\n")


def test_stream_prints_the_text(server: Server, samples: dict[str, Sample]) -> None:
    assert printed(server, "stream", samples["short"].path) == f"{samples['short'].text}\n"
    assert printed(server, "stream").startswith(samples["two-minutes"].text[:200])


def test_live_prints_words_before_the_final_text(server: Server, samples: dict[str, Sample]) -> None:
    lines = printed(server, "live").splitlines()
    deltas = [line.removeprefix("  … ") for line in lines if line.startswith("  … ")]
    finals = [line for line in lines if not line.startswith("  … ") and line != "(silence)"]
    assert " ".join(deltas) == " ".join(finals) == samples["two-sentences"].text
    assert len(deltas) > len(finals)
    assert lines[0].startswith("  … ")


def test_keywords_prints_what_they_change(server: Server, samples: dict[str, Sample]) -> None:
    without, with_keywords = printed(server, "keywords").splitlines()
    assert with_keywords == f"left once more: {samples['two-sentences'].text}"
    assert without.startswith("no keywords: The number is forty eighteen. ")
    assert "left once more" not in without


@pytest.mark.parametrize("name", ["files", "stream", "live", "keywords"])
def test_one_that_fails_exits_non_zero(server: Server, name: str) -> None:
    assert run(name, "--url", server.url, ROOT / "README.md").returncode != 0


@pytest.mark.parametrize("name", ["files", "live"])
def test_without_a_service_they_exit_non_zero(name: str) -> None:
    assert run(name, "--url", "http://127.0.0.1:1").returncode != 0


@pytest.mark.skipif(not shutil.which("curl"), reason="there is no curl")
@pytest.mark.parametrize("command", COMMANDS)
def test_the_curl_commands_are_answered(server: Server, samples: dict[str, Sample], command: str) -> None:
    words = shlex.split(
        command.replace("$URL", f"{server.url}/v1/audio/transcriptions").replace(
            "$FILE", str(samples["two-sentences"].path)
        )
    )
    done = subprocess.run([*words, "--fail"], capture_output=True, text=True, check=True, timeout=60)
    said, found = (re.findall("[a-z]+", text.lower()) for text in (samples["two-sentences"].text, done.stdout))
    assert set(said) <= set(found)


def test_each_says_what_it_shows_is_short_and_is_in_the_readme() -> None:
    readme, makefile = (EXAMPLES / "README.md").read_text(), (ROOT / "Makefile").read_text()
    (listed,) = re.findall(r"for example in (.*?); do", makefile)
    paths = [path for path in EXAMPLES.glob("*.py") if path.stem not in WITHOUT_SERVICE]
    assert sorted(listed.split()) == sorted(path.stem for path in paths)
    for path in paths:
        lines = path.read_text().splitlines()
        assert lines[0].startswith('"""Shows ')
        assert len(lines) < 60
        assert f"]({path.name})" in readme
