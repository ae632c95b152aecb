"""Measures ways to hand 10 s of audio to another process and to get tokens back: for docs/decisions/0012-processes.md.

    python -m scripts.bench.link

For each way, one at a time in turn: the clock's time of a round trip, and the processor time of both ends.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
import statistics
import time
from collections.abc import Callable
from multiprocessing import shared_memory

import msgspec
import numpy as np
import zmq

from parakeet_stt.ipc.channel import FrameParser, receive_some, send_all
from parakeet_stt.ipc.shared_audio import create_memory_file, read_samples, write_samples

SAMPLES = 160_000
ROUNDS, TURNS = 300, 5
ANSWER = msgspec.msgpack.encode({"ids": bytes(120), "starts": bytes(240), "ends": bytes(240), "logprobs": bytes(120)})
AUDIO = np.random.default_rng(0).standard_normal(SAMPLES, np.float32)
Ask = Callable[[], None]


def _receive(connection: socket.socket, parser: FrameParser) -> tuple[bytes, list[int]]:
    while True:
        data, descriptors = receive_some(connection)
        if not data:
            raise EOFError
        for message in parser.push(data, descriptors):
            return message


def serve_descriptors(connection: socket.socket) -> None:
    """Unix socket; the audio in a memory file whose descriptor comes along."""
    parser = FrameParser()
    while True:
        message, (descriptor,) = _receive(connection, parser)
        length = msgspec.msgpack.decode(message)["length"]
        float(read_samples(descriptor, 0, length)[-1])
        os.close(descriptor)
        send_all(connection, ANSWER)


def ask_descriptors(connection: socket.socket) -> Ask:
    parser = FrameParser()

    def ask() -> None:
        descriptor = create_memory_file("audio")  # what a media worker writes to
        write_samples(descriptor, 0, AUDIO)
        send_all(connection, msgspec.msgpack.encode({"length": SAMPLES}), [descriptor])
        os.close(descriptor)
        msgspec.msgpack.decode(_receive(connection, parser)[0])

    return ask


def serve_inline(connection: socket.socket) -> None:
    """Unix socket; the audio in the message."""
    parser = FrameParser()
    while True:
        message, _ = _receive(connection, parser)
        float(np.frombuffer(msgspec.msgpack.decode(message)["audio"], np.float32)[-1])
        send_all(connection, ANSWER)


def ask_inline(connection: socket.socket) -> Ask:
    parser = FrameParser()

    def ask() -> None:
        send_all(connection, msgspec.msgpack.encode({"audio": AUDIO.data.cast("B")}))
        msgspec.msgpack.decode(_receive(connection, parser)[0])

    return ask


def serve_zmq(address: str) -> None:
    """pyzmq over ipc://, the audio as a frame of its own that is not copied."""
    sock = zmq.Context().socket(zmq.ROUTER)
    sock.bind(address)
    while True:
        who, header, audio = sock.recv_multipart(copy=False)
        msgspec.msgpack.decode(header.buffer)
        float(np.frombuffer(audio.buffer, np.float32)[-1])
        sock.send_multipart([who.bytes, ANSWER])


def ask_zmq(address: str) -> Ask:
    sock = zmq.Context().socket(zmq.DEALER)
    sock.connect(address)

    def ask() -> None:
        sock.send_multipart([msgspec.msgpack.encode({"length": SAMPLES}), AUDIO], copy=False)
        msgspec.msgpack.decode(sock.recv_multipart()[0])

    return ask


def serve_named(connection: socket.socket) -> None:
    """Unix socket; the audio in Python's shared memory, which has a name."""
    parser = FrameParser()
    while True:
        message, _ = _receive(connection, parser)
        shared = shared_memory.SharedMemory(msgspec.msgpack.decode(message)["name"])
        float(np.frombuffer(shared.buf, np.float32, SAMPLES).copy()[-1])
        shared.close()
        send_all(connection, ANSWER)


def ask_named(connection: socket.socket) -> Ask:
    parser = FrameParser()

    def ask() -> None:
        shared = shared_memory.SharedMemory(create=True, size=4 * SAMPLES)
        np.frombuffer(shared.buf, np.float32, SAMPLES)[:] = AUDIO
        send_all(connection, msgspec.msgpack.encode({"name": shared.name}))
        msgspec.msgpack.decode(_receive(connection, parser)[0])
        shared.close()
        shared.unlink()

    return ask


def measure(serve: Callable[..., None], make: Callable[..., Ask]) -> tuple[float, float]:
    """Milliseconds of a round trip, and of processor time for it."""
    if serve is serve_zmq:
        ours: object = f"ipc:///tmp/bench-link-{os.getpid()}"
        theirs = ours
    else:
        ours, theirs = socket.socketpair()
    process = multiprocessing.Process(target=serve, args=(theirs,), daemon=True)
    process.start()
    ask = make(ours)
    for _ in range(20):
        ask()
    began, own, other = time.perf_counter(), time.process_time(), _spent(process.pid)
    for _ in range(ROUNDS):
        ask()
    took = time.perf_counter() - began
    spent = time.process_time() - own + _spent(process.pid) - other
    process.kill()
    process.join()
    return 1000 * took / ROUNDS, 1000 * spent / ROUNDS


def _spent(process: int | None) -> float:
    with open(f"/proc/{process}/stat") as file:
        user, system = file.read().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Measure and print."""
    ways = {
        "descriptor of a memory file": (serve_descriptors, ask_descriptors),
        "named shared memory": (serve_named, ask_named),
        "bytes in the message": (serve_inline, ask_inline),
        "pyzmq, audio as a frame": (serve_zmq, ask_zmq),
    }
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(TURNS):
        for name, (serve, make) in ways.items():
            found[name].append(measure(serve, make))
    for name, rows in found.items():
        took, spent = (statistics.median(column) for column in zip(*rows, strict=True))
        print(f"{name:30} {took:6.2f} ms a round trip, {spent:6.2f} ms of processor time")


if __name__ == "__main__":
    main()
