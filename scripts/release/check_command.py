"""Kills `parakeet transcribe` and restarts its server in the middle, and checks that nothing is lost or done twice.

    python -m scripts.release.check_command               # 200 clips, 16 at a time; run before a release

Meanwhile `parakeet live` follows somebody who speaks, over the same restart. Then checks that `--local` transcribes
without a server, and leaves none behind when it is killed. Prints a line for each check; status 1 if one failed.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import httpx
import psutil  # type: ignore[import-untyped]
import soundfile
import srt

from parakeet_stt.cli.files.journal import NAME
from scripts.bench.serving import ROOT, SAMPLE, free_port
from scripts.browser.service import Service, have_same_segments

FORMATS = {"txt": "text", "srt": "srt", "vtt": "vtt", "json": "verbose_json"}
ANSWERED = 'stt_requests_total{code="200",method="POST",route="/v1/audio/transcriptions"}'
CLIP_SECONDS = 3
KILL_AT, RESTART_AT = 0.3, 0.6  # shares of the clips that are finished
END_SECONDS = 60.0  # after a kill, until no process is left
GIVE_UP_SECONDS = 300.0  # a server on a loaded machine starts in less
SECOND_BYTES = 2 * 16_000  # of live sound
WORDS_AT_A_BREAK = 2  # that may be others: where a connection breaks, utterances are cut anew
LIVE_SECONDS = 0.3  # between a caption's start with a restart and without one


class Checks:
    """What was checked."""

    def __init__(self) -> None:
        self.are_kept = True

    def check(self, is_kept: bool, what: str) -> None:
        """Print a line."""
        self.are_kept = self.are_kept and is_kept
        print(f"{'ok ' if is_kept else 'NOT'} {what}", flush=True)


def make_clips(folder: Path, count: int) -> None:
    """Different clips of the sample of two minutes."""
    sound, rate = soundfile.read(SAMPLE, dtype="int16")
    folder.mkdir()
    step = (len(sound) - CLIP_SECONDS * rate) // count
    for number in range(count):
        soundfile.write(folder / f"{number:03}.wav", sound[number * step :][: CLIP_SECONDS * rate], rate)


def start(clips: Path, out: Path, url: str, *options: str) -> subprocess.Popen[str]:
    """The command, 16 at a time, in all formats."""
    command = [sys.executable, "-m", "parakeet_stt", "transcribe", str(clips), "--out", str(out), "-n", "16",
               "--format", ",".join(FORMATS), "--give-up", str(GIVE_UP_SECONDS), *options]  # fmt: skip
    environment = {**os.environ, "OPENAI_BASE_URL": f"{url}/v1", "OPENAI_API_KEY": ""}
    return subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)


def entries(out: Path) -> list[dict[str, Any]]:
    """The journal's lines that are whole."""
    file = out / NAME
    lines = file.read_text().split("\n")[:-1] if file.exists() else []
    return [json.loads(line) for line in lines if line.endswith("}")]


def wait_until(is_so: Callable[[], bool], seconds: float) -> bool:
    """Whether it becomes so in time."""
    deadline = time.monotonic() + seconds
    while not (so := is_so()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return so


def answered(url: str) -> int:
    """Transcriptions that the server has answered with 200."""
    lines = httpx.get(f"{url}/metrics").text.splitlines()
    return next((int(float(line.rpartition(" ")[2])) for line in lines if line.startswith(ANSWERED)), 0)


def ask(url: str, clip: Path, output: str) -> bytes:
    """What the API says about a clip."""
    fields: dict[str, Any] = {"model": "whisper-1", "response_format": FORMATS[output]}
    if output == "json":
        fields["timestamp_granularities[]"] = ["word", "segment"]
    route = f"{url}/v1/audio/transcriptions"
    return httpx.post(route, data=fields, files={"file": clip.read_bytes()}, timeout=120).content


def is_same(output: str, ours: bytes, theirs: bytes) -> bool:
    """Whether two answers are the same bytes; those of `json`, but for the last digits of log-probabilities."""
    if output != "json":
        return ours == theirs
    one, other = json.loads(ours), json.loads(theirs)
    return have_same_segments(one, other) and json.dumps({**one, "segments": []}) == json.dumps(
        {**other, "segments": []}
    )


def start_live(url: str, captions: Path) -> subprocess.Popen[bytes]:
    """`parakeet live` of what is written to its standard input."""
    command = [sys.executable, "-m", "parakeet_stt", "live", "-", "--srt", str(captions), "--url", url,
               "--give-up", str(GIVE_UP_SECONDS)]  # fmt: skip
    return subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def speak(command: subprocess.Popen[bytes], stop: threading.Event) -> None:
    """The sample as fast as somebody says it, again and again until `stop`, then to its end."""
    sound = soundfile.read(SAMPLE, dtype="int16")[0].tobytes()
    assert command.stdin
    with suppress(BrokenPipeError):
        while not stop.is_set():
            for at in range(0, len(sound), SECOND_BYTES // 10):
                command.stdin.write(sound[at : at + SECOND_BYTES // 10])
                command.stdin.flush()
                time.sleep(0.1)
        command.stdin.close()


def compare_live(checks: Checks, captions: Path, undisturbed: Path) -> None:
    """Captions over a restart against those of the same sound without one, which is repeated as often."""
    found, expected = (list(srt.parse(file.read_text())) for file in (captions, undisturbed))
    said, wanted = (" ".join(cue.content for cue in cues).split() for cues in (found, expected))
    length = len(soundfile.read(SAMPLE)[0]) / 16_000
    repeats = round(len(said) / len(wanted))
    alike = SequenceMatcher(None, wanted * repeats, said, autojunk=False).get_matching_blocks()
    differ = max(len(said), len(wanted) * repeats) - sum(block.size for block in alike)
    checks.check(differ <= WORDS_AT_A_BREAK, f"live: {len(said)} words over a restart, {differ} of them other ones")
    starts: dict[str, list[float]] = {}
    for repeat in range(repeats):
        for cue in expected:
            starts.setdefault(cue.content, []).append(cue.start.total_seconds() + repeat * length)
    off = [min(abs(cue.start.total_seconds() - one) for one in starts[cue.content])
           for cue in found if cue.content in starts]  # fmt: skip
    checks.check(
        max(off) < LIVE_SECONDS, f"live: {len(off)} of {len(found)} captions begin within {1000 * max(off):.0f} ms"
    )


def check_kill_and_restart(checks: Checks, folder: Path, count: int) -> None:
    """Kill the command, start it again, restart the server under it and under `parakeet live`; then compare."""
    clips, out, captions = folder / "clips", folder / "out", folder / "live.srt"
    make_clips(clips, count)
    with Service(free_port(), folder / "log") as service:
        url = service.url
        live, is_said = start_live(url, captions), threading.Event()
        speaking = threading.Thread(target=speak, args=(live, is_said))
        speaking.start()
        first = start(clips, out, url)
        is_reached = wait_until(lambda: len(entries(out)) >= KILL_AT * count, 300)
        first.send_signal(signal.SIGKILL)
        first.wait()
        finished = len(entries(out))
        checks.check(is_reached and finished < count, f"killed when {finished} of {count} clips were finished")
        second = start(clips, out, url)
        is_reached = wait_until(lambda: len(entries(out)) >= RESTART_AT * count, 300)
        before = answered(url)
        service.kill()
        checks.check(
            is_reached and second.poll() is None, f"the server was killed when {len(entries(out))} were finished"
        )
        began = time.monotonic()
        service.start()
        away = time.monotonic() - began
        is_said.set()
        _, said = second.communicate(timeout=600)
        after = answered(url)
        checks.check(second.returncode == 0, f"the server came back after {away:.0f} s: {said.strip()}")
        check_outputs(checks, clips, out, url, before + after)
        speaking.join()
        checks.check(live.wait(120) == 0, "live: the command ended with 0")
        undisturbed = folder / "undisturbed.srt"
        again = start_live(url, undisturbed)
        again.communicate(soundfile.read(SAMPLE, dtype="int16")[0].tobytes(), timeout=300)
        compare_live(checks, captions, undisturbed)


def check_outputs(checks: Checks, clips: Path, out: Path, url: str, answers: int) -> None:
    """The journal, the outputs, and that nothing is left to do. answers: of the servers so far."""
    count = len(list(clips.iterdir()))
    sources = Counter(entry["source"] for entry in entries(out))
    checks.check(len(sources) == count and set(sources.values()) == {1}, f"{count} clips are in the journal, once each")
    checks.check(
        answers <= count + 2 * 16, f"the servers have answered {answers}: {count}, and at most those in flight again"
    )
    names = {f"{number:03}.{output}" for number in range(count) for output in FORMATS} | {NAME}
    checks.check({path.name for path in out.iterdir()} == names, f"{len(names) - 1} outputs, and no other file")
    third = start(clips, out, url)
    checks.check("0 transcribed" in third.communicate()[1], "a third run transcribes nothing")
    pairs = [(clip, output) for clip in sorted(clips.iterdir()) for output in FORMATS]
    with ThreadPoolExecutor(8) as asking:
        same = list(
            asking.map(
                lambda pair: is_same(pair[1], (out / f"{pair[0].stem}.{pair[1]}").read_bytes(), ask(url, *pair)),
                pairs,
            )
        )
    checks.check(all(same), f"{sum(same)} of {len(pairs)} outputs are what the API sends, byte for byte")


def check_local(checks: Checks, folder: Path, count: int) -> None:
    """Transcribe without a server; and kill the command while it has one."""
    clips, out = folder / "few", folder / "local"
    make_clips(clips, count)
    done = start(clips, out, "http://127.0.0.1:1", "--local")
    said = done.communicate(timeout=300)[1]
    checks.check(
        done.returncode == 0 and len(entries(out)) == count, f"without a server: {said.strip().splitlines()[-1]}"
    )
    killed = start(clips, folder / "killed", "http://127.0.0.1:1", "--local")
    wait_until(lambda: len(entries(folder / "killed")) > 0, 300)
    left = psutil.Process(killed.pid).children(recursive=True)
    killed.kill()
    killed.wait()
    is_gone = wait_until(lambda: not any(one.is_running() and one.status() != "zombie" for one in left), END_SECONDS)
    checks.check(bool(left) and is_gone, f"killed, its {len(left)} processes have ended")


def main() -> None:
    """Check everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=200)
    count = parser.parse_args().clips
    checks = Checks()
    with tempfile.TemporaryDirectory() as folder:
        check_kill_and_restart(checks, Path(folder), count)
        check_local(checks, Path(folder), 5)
    sys.exit(not checks.are_kept)


if __name__ == "__main__":
    main()
