"""Computes how many replicas a load needs, which step is the bottleneck, and what an hour of audio costs.

    python -m scripts.bench.plan_capacity --rtfx 12 --cores 4 --hours 20 --price 0.20
    python -m scripts.bench.plan_capacity --rtfx 7143 --cores 16 --gpu --clip 10 --hours 5000
    python -m scripts.bench.plan_capacity --measure

A replica is a chain of steps, each of which handles so many seconds of audio a second: the network transfers it, the
cores answer requests for it and decode it, and on a machine without a GPU find its speech; one thread of the device
process hands it to the device, and the device recognizes it. The load takes a share of each step. The largest share,
divided by the part of a replica that may be used, is the number of replicas. docs/scaling.md explains it.
The device's speed is an argument, which scripts/bench/server.py measures. --measure measures the cores of this machine.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import time
from dataclasses import asdict, dataclass

# Processor seconds, by scripts.bench.host and --measure (docs/scaling.md): for a second of a file, its decoding
# and its speech detection; for a request, in front, media worker and device process together; for a second of a live
# session; and of these, in the one thread of the device process, for an utterance and for a second of a live session.
DECODING, DETECTION = 0.0005, 0.0008
REQUEST, LIVE = 0.0035, 0.0039
UTTERANCE, LIVE_UTTERANCE = 0.0005, 0.0005
LONGEST_UTTERANCE = 24.0  # STT_MAX_UTTERANCE_SECONDS
# Seconds of audio decoded for a second of live speech with partial results: 8.1 by ChunkRules, and the previews of the
# beginning of each utterance.
LIVE_LOAD = 9.0
LIVE_BYTES = 64_000  # a second of 24 kHz PCM in base64, as /v1/realtime has it; /ws with 16 kHz takes half
HOUR = 3600.0
# The price that OpenAI publishes for whisper-1 and gpt-4o-transcribe, in dollars a minute.
API_MINUTE = 0.006


@dataclass(frozen=True)
class Load:
    """What callers send.

    hours: of audio in files, an hour. live: sessions at a time. speech: the share of a session with speech. clip: mean
    length of a file in seconds. bytes_second: of a file, for a second of its audio.
    """

    hours: float = 0
    live: float = 0
    speech: float = 0.5
    clip: float = 60
    bytes_second: float = 32_000  # 16-bit mono at 16 kHz


@dataclass(frozen=True)
class Replica:
    """One service and its device.

    rtfx: of the device, in seconds of audio a second. megabits: of its network link, a second. used: the part of the
    replica that may be used, so that waits stay short and a replica may fail. price: dollars an hour. has_gpu: whether
    the device detects speech; else the cores do.
    """

    rtfx: float
    cores: float
    megabits: float = 1000
    used: float = 0.7
    price: float = 0
    has_gpu: bool = False


@dataclass(frozen=True)
class Step:
    """A step of the chain.

    capacity: of one replica, in seconds of files' audio a second; infinite for a step that files do not take. share: of
    one replica's capacity that the load takes.
    """

    name: str
    capacity: float
    share: float


def steps(load: Load, replica: Replica) -> list[Step]:
    """The steps of the chain: the capacity of one replica, and the share of it that the load takes."""
    link = replica.megabits * 1e6 / 8
    transferred = load.hours * load.bytes_second + load.live * LIVE_BYTES
    detected = 0.0 if replica.has_gpu else DETECTION
    prepared = REQUEST / load.clip + DECODING + detected
    recognized = load.hours + load.live * load.speech * LIVE_LOAD
    utterance = min(load.clip, LONGEST_UTTERANCE)
    return [
        Step("network", link / load.bytes_second, transferred / link),
        Step(
            "cores", replica.cores / prepared, (load.hours * prepared + load.live * (LIVE + detected)) / replica.cores
        ),
        Step(
            "device process",
            utterance / UTTERANCE,
            load.hours / utterance * UTTERANCE + load.live * LIVE_UTTERANCE,
        ),
        Step("device", replica.rtfx, recognized / replica.rtfx),
    ]


def bottleneck(load: Load, replica: Replica) -> Step:
    """The step of which the load takes the largest share."""
    return max(steps(load, replica), key=lambda step: step.share)


def replicas(load: Load, replica: Replica) -> int:
    """Number of replicas that the load needs; at least one."""
    return max(1, math.ceil(bottleneck(load, replica).share / replica.used))


def waiting_target(replica: Replica, wait: float) -> int:
    """The seconds of waiting audio at which to add replicas, so that the wait stays within so many seconds."""
    return round(replica.rtfx * wait)


def max_live_sessions(replica: Replica, speech: float = 0.5) -> int:
    """Number of live sessions that one replica can serve."""
    one = bottleneck(Load(live=1, speech=speech), replica).share
    return math.floor(replica.used / one)


def audio_hour(load: Load, replica: Replica) -> float:
    """Dollars for an hour of audio in files at this load, idle replicas included."""
    return replica.price * replicas(load, replica) / load.hours


def audio_hour_at_best(replica: Replica, load: Load) -> float:
    """Dollars for an hour of audio in files as `load` has them, at replicas that are used as much as they may be."""
    return replica.price / (min(step.capacity for step in steps(load, replica)) * replica.used)


def break_even(price: float, minute: float = API_MINUTE) -> float:
    """Hours of audio an hour above which a replica at this price costs less than an API. minute: its price of one."""
    return price / (60 * minute)


def measure(minutes: float = 10) -> dict[str, dict[str, float]]:
    """Processor seconds that decoding and detection take for a second of audio here, by format."""
    # Imported here, so that planning needs nothing but Python.
    import numpy as np
    import soundfile

    from parakeet_stt.audio import SAMPLE_RATE
    from parakeet_stt.detector_stream import DetectorStream
    from parakeet_stt.engines.resampling_filters import make_filter
    from parakeet_stt.engines.silero_onnx import OnnxDetector
    from parakeet_stt.media.demux import decode
    from scripts.bench.server import make_long_file
    from scripts.bench.serving import SAMPLE

    samples, rate = soundfile.read(SAMPLE, dtype="int16")
    samples = np.tile(samples, round(minutes * 60 * rate / len(samples)))

    def wav(times: int) -> bytes:
        out = io.BytesIO()
        soundfile.write(out, np.repeat(samples, times), rate * times, format="WAV")
        return out.getvalue()

    files = {f"wav, {rate} Hz": wav(1), f"wav, {3 * rate} Hz": wav(3), f"mp3, {rate} Hz": make_long_file(minutes / 60)}
    detector = OnnxDetector()
    figures = {}
    for name, data in files.items():
        decode(io.BytesIO(data), max_seconds=HOUR, make_filter=make_filter)  # the first loads libraries
        began = time.process_time()
        audio = decode(io.BytesIO(data), max_seconds=HOUR, make_filter=make_filter)
        decoded = time.process_time()
        stream = DetectorStream(detector)
        stream.push(audio.samples)
        stream.flush()
        detected = time.process_time()
        seconds = len(audio.samples) / SAMPLE_RATE
        figures[name] = {"decoding": (decoded - began) / seconds, "detection": (detected - decoded) / seconds}
    return figures


def main() -> None:
    """Compute and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", action="store_true", help="only measure what decoding and detection take here")
    parser.add_argument("--rtfx", type=float, help="of the device, as scripts/bench/server.py measures it")
    parser.add_argument("--cores", type=float, default=4, help="of a replica")
    parser.add_argument("--gpu", action="store_true", help="the device is a GPU, and detects speech as well")
    parser.add_argument("--megabits", type=float, default=Replica.megabits, help="of a replica's network link")
    parser.add_argument("--used", type=float, default=Replica.used, help="the part of a replica that may be used")
    parser.add_argument("--price", type=float, default=0, help="of a replica, in dollars an hour")
    parser.add_argument("--hours", type=float, default=0, help="of audio in files, an hour")
    parser.add_argument("--live", type=float, default=0, help="sessions at a time")
    parser.add_argument("--speech", type=float, default=Load.speech, help="the share of a session with speech")
    parser.add_argument("--clip", type=float, default=Load.clip, help="mean length of a file in seconds")
    parser.add_argument(
        "--bytes-second", type=float, default=Load.bytes_second, help="of a file, for a second of its audio"
    )
    parser.add_argument("--wait", type=float, default=5, help="longest wait for the device, in seconds")
    given = parser.parse_args()
    if given.measure:
        for name, figures in measure().items():
            print(f"{name:16}", ", ".join(f"{step} {1000 * took:.2f} ms" for step, took in figures.items()),
                  "of processor time for a second of audio")  # fmt: skip
        return
    if not given.rtfx:
        parser.error("--rtfx is needed: the device's speed, which scripts/bench/server.py measures")
    load = Load(given.hours, given.live, given.speech, given.clip, given.bytes_second)
    replica = Replica(given.rtfx, given.cores, given.megabits, given.used, given.price, given.gpu)
    print(f"{'step':20} {'one replica does':>20} {'the load takes':>17}")
    for step in steps(load, replica):
        capacity = "" if math.isinf(step.capacity) else f"{step.capacity:,.0f} x real time"
        print(f"{step.name:20} {capacity:>20} {step.share:8.2f} replicas")
    short, count = bottleneck(load, replica), replicas(load, replica)
    result = {
        "replicas": count,
        "bottleneck": short.name,
        "live_sessions_a_replica": max_live_sessions(replica, load.speech),
        "stt_queue_audio_seconds_target": waiting_target(replica, given.wait),
    }
    if replica.price:
        result["dollars_an_hour"] = round(count * replica.price, 4)
        result["break_even_hours_an_hour"] = round(break_even(replica.price), 2)
        result["dollars_an_audio_hour_at_best"] = round(audio_hour_at_best(replica, load), 5)
        if load.hours:
            result["dollars_an_audio_hour"] = round(audio_hour(load, replica), 5)
            result["api_dollars_an_audio_hour"] = 60 * API_MINUTE
    print()
    for name, value in result.items():
        print(f"{name.replace('_', ' ') if not name.startswith('stt') else name:40} {value}")
    print(json.dumps({"load": asdict(load), "replica": asdict(replica), **result}))


if __name__ == "__main__":
    main()
