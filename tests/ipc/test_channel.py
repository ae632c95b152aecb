"""Messages with descriptors over a socket pair: whole, in order, and with no descriptor left open."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pytest
import uvloop

from parakeet_stt.ipc.channel import (
    BUFFER_BYTES,
    HEADER,
    MAX_DESCRIPTORS,
    MAX_MESSAGE,
    Channel,
    FrameParser,
    PolledEnd,
    ProtocolError,
    receive_some,
    send_all,
)
from parakeet_stt.ipc.shared_audio import create_memory_file

DEADLINE = 10  # seconds
LARGE = 8 * BUFFER_BYTES  # bytes: more than both kernel's buffers hold


def open_descriptors() -> int:
    """Number of descriptors that this process has open."""
    return len(os.listdir("/proc/self/fd"))


def make_file(text: str) -> int:
    """The descriptor of a file with this text."""
    descriptor = create_memory_file("test")
    os.write(descriptor, text.encode())
    return descriptor


def read_and_close(descriptors: Sequence[int]) -> list[str]:
    """The texts of files."""
    texts = [os.pread(one, 100, 0).decode() for one in descriptors]
    close_all(descriptors)
    return texts


def close_all(descriptors: Sequence[int]) -> None:
    for one in descriptors:
        os.close(one)


def frame(message: bytes, descriptors: int = 0) -> bytes:
    return HEADER.pack(len(message), descriptors) + message


@pytest.fixture(scope="module", autouse=True)
def first_loop() -> None:
    """uvloop keeps two descriptors from its first loop on."""
    uvloop.run(asyncio.sleep(0))


@pytest.fixture(autouse=True)
def _no_leak() -> Iterator[None]:
    """Each test leaves as many descriptors open as there were."""
    gc.collect()  # what tests before have left to it
    before = open_descriptors()
    yield
    assert open_descriptors() == before


class End:
    """A channel, and what arrives on it."""

    def __init__(self, connection: socket.socket) -> None:
        self.inbox: list[tuple[bytes, list[str]]] = []
        self.closings = 0
        self.changed = asyncio.Event()
        self.on_message: Callable[[bytes, list[int]], None] = self._keep
        self.channel = Channel(connection, lambda *received: self.on_message(*received), self._close)

    async def wait(self, is_done: Callable[[], bool]) -> None:
        """Wait until something is so; it is looked at with each message, and when the channel closes."""
        async with asyncio.timeout(DEADLINE):
            while not is_done():
                self.changed.clear()
                await self.changed.wait()

    def _keep(self, message: bytes, descriptors: list[int]) -> None:
        self.inbox.append((message, read_and_close(descriptors)))
        self.changed.set()

    def _close(self) -> None:
        self.closings += 1
        self.changed.set()


@contextmanager
def two_ends() -> Iterator[tuple[End, End]]:
    ends = [End(one) for one in socket.socketpair()]
    try:
        yield ends[0], ends[1]
    finally:
        for end in ends:
            end.channel.close()


@contextmanager
def end_and_socket() -> Iterator[tuple[End, socket.socket]]:
    ours, theirs = socket.socketpair()
    end = End(ours)
    try:
        with theirs:
            yield end, theirs
    finally:
        end.channel.close()


def test_messages_are_whole_wherever_the_bytes_are_split() -> None:
    messages = [b"one", b"", b"three" * 10, b"4"]
    stream = b"".join(map(frame, messages))
    for split in range(len(stream) + 1):
        parser = FrameParser()
        found = parser.push(stream[:split]) + parser.push(stream[split:])
        assert found == [(message, []) for message in messages]
    parser = FrameParser()
    assert [one for byte in stream for one in parser.push(bytes([byte]))] == [(message, []) for message in messages]


def test_a_channel_takes_single_bytes() -> None:
    async def main() -> None:
        with end_and_socket() as (end, theirs):
            stream = frame(b"first") + frame(b"second", 2) + frame(b"third")
            files = [make_file("a"), make_file("b")]
            for place in range(len(stream)):
                at_message = place == len(frame(b"first"))  # the first byte of the message brings its descriptors
                socket.send_fds(theirs, [stream[place : place + 1]], files if at_message else [])
                await asyncio.sleep(0)
            close_all(files)
            await end.wait(lambda: len(end.inbox) == 3)
            assert end.inbox == [(b"first", []), (b"second", ["a", "b"]), (b"third", [])]

    asyncio.run(main())


def test_large_messages_cross_in_both_directions_at_once() -> None:
    async def main() -> None:
        with two_ends() as (one, other):
            payloads = [bytes([number]) * LARGE for number in range(4)]
            for message in payloads[:2]:
                one.channel.send(message)
            for message in payloads[2:]:
                other.channel.send(message)
            assert one.channel.unsent_bytes > LARGE
            await one.wait(lambda: len(one.inbox) == 2)
            await other.wait(lambda: len(other.inbox) == 2)
            assert [message for message, _ in one.inbox] == payloads[2:]
            assert [message for message, _ in other.inbox] == payloads[:2]
            assert one.channel.unsent_bytes == other.channel.unsent_bytes == 0

    asyncio.run(main())


def test_descriptors_arrive_with_their_message() -> None:
    async def main() -> None:
        with two_ends() as (one, other):
            for number in range(100):
                files = [make_file(f"{number}.{index}") for index in range(number % (MAX_DESCRIPTORS + 1))]
                one.channel.send(str(number).encode(), files)
                close_all(files)
            await other.wait(lambda: len(other.inbox) == 100)
            assert other.inbox == [
                (str(n).encode(), [f"{n}.{index}" for index in range(n % (MAX_DESCRIPTORS + 1))]) for n in range(100)
            ]

    asyncio.run(main())


def test_descriptors_that_wait_to_be_sent_are_the_channels_own() -> None:
    """The caller closes its own as soon as `send` returns."""

    async def main() -> None:
        with two_ends() as (one, other):
            one.channel.send(b"x" * LARGE)
            for number in range(20):
                file = make_file(str(number))
                one.channel.send(b"small", [file])
                os.close(file)
            await other.wait(lambda: len(other.inbox) == 21)
            assert other.inbox[1:] == [(b"small", [str(number)]) for number in range(20)]

    asyncio.run(main())


def test_descriptors_of_messages_that_nobody_takes_are_closed() -> None:
    async def main() -> None:
        with two_ends() as (one, _):  # not sent yet
            file = make_file("lost")
            one.channel.send(b"x" * LARGE)
            one.channel.send(b"small", [file])
            os.close(file)
        with end_and_socket() as (end, theirs):  # not whole yet
            file = make_file("lost")
            socket.send_fds(theirs, [frame(b"whole", 1)[:-1]], [file])
            os.close(file)
            await asyncio.sleep(0.05)
            assert end.inbox == []
        with two_ends() as (one, _):  # not read yet
            file = make_file("lost")
            one.channel.send(b"small", [file])
            os.close(file)

    asyncio.run(main())


def test_what_follows_in_the_same_bytes_is_dropped_once_the_channel_is_closed() -> None:
    async def main() -> None:
        with end_and_socket() as (end, theirs):

            def close(message: bytes, descriptors: list[int]) -> None:
                end._keep(message, descriptors)
                end.channel.close()

            end.on_message = close
            files = [make_file("a"), make_file("b")]
            socket.send_fds(theirs, [frame(b"last", 1) + frame(b"late", 1)], files)
            close_all(files)
            await end.wait(lambda: bool(end.inbox))
            assert end.inbox == [(b"last", ["a"])]
            assert end.closings == 0

    asyncio.run(main())


LIES = [
    HEADER.pack(MAX_MESSAGE + 1, 0),
    HEADER.pack(1, MAX_DESCRIPTORS + 1) + b"x",
    HEADER.pack(1, 2) + b"x",  # with one descriptor
]


@pytest.mark.parametrize("lie", LIES)
def test_a_header_that_lies_closes_the_connection_once(lie: bytes) -> None:
    async def main() -> None:
        with end_and_socket() as (end, theirs):
            file = make_file("lost")
            socket.send_fds(theirs, [lie], [file])
            os.close(file)
            await end.wait(lambda: end.closings > 0)
            await asyncio.sleep(0.05)
            assert end.closings == 1
            assert end.inbox == []
            assert not end.channel.is_open
            assert theirs.recv(1) == b""

    asyncio.run(main())


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_behind_a_good_message_leaves_no_descriptor_open(lie: bytes) -> None:
    async def main() -> None:
        with end_and_socket() as (end, theirs):
            files = [make_file("a"), make_file("b")]
            socket.send_fds(theirs, [frame(b"good", 1) + lie], files)
            close_all(files)
            await end.wait(lambda: end.closings > 0)
            assert end.closings == 1

    asyncio.run(main())


def test_the_longest_message_and_the_most_descriptors_are_no_lie() -> None:
    parser = FrameParser()
    assert parser.push(HEADER.pack(MAX_MESSAGE, MAX_DESCRIPTORS)) == []


def test_the_other_ends_death_is_noticed() -> None:
    async def main() -> None:
        ours, theirs = socket.socketpair()
        program = "import socket, sys; socket.socket(fileno=0).recv(1)"
        process = subprocess.Popen([sys.executable, "-c", program], stdin=theirs.fileno())  # noqa: ASYNC220
        theirs.close()
        end = End(ours)
        await asyncio.sleep(0.05)
        assert end.closings == 0
        process.send_signal(signal.SIGKILL)
        await end.wait(lambda: end.closings > 0)
        assert end.closings == 1
        assert not end.channel.is_open
        process.wait()

    asyncio.run(main())


def test_what_the_other_end_sent_before_it_closed_arrives() -> None:
    async def main() -> None:
        with two_ends() as (one, other):
            one.channel.send(b"last words")
            one.channel.close()
            await other.wait(lambda: other.closings > 0)
            assert other.inbox == [(b"last words", [])]
            assert one.closings == 0

    asyncio.run(main())


def test_sending_after_closing_does_nothing() -> None:
    async def main() -> None:
        with two_ends() as (one, other):
            one.channel.close()
            file = make_file("lost")
            one.channel.send(b"late", [file])
            os.close(file)
            one.channel.close()
            await other.wait(lambda: other.closings > 0)
            assert other.inbox == []
            assert one.channel.unsent_bytes == 0

    asyncio.run(main())


@pytest.mark.parametrize("size", [1, LARGE])
def test_sending_to_an_end_that_is_gone_closes_the_channel_once(size: int) -> None:
    async def main() -> None:
        with end_and_socket() as (end, theirs):
            if size == LARGE:
                end.channel.send(b"x" * size)
            theirs.close()
            end.channel.send(b"x" * size)
            end.channel.send(b"x" * size)
            await end.wait(lambda: end.closings > 0)
            assert end.closings == 1

    asyncio.run(main())


@contextmanager
def polled_pair() -> Iterator[tuple[PolledEnd, socket.socket]]:
    ours, theirs = socket.socketpair()
    end = PolledEnd(ours)
    try:
        with theirs:
            yield end, theirs
    finally:
        end.close()


def test_a_polled_end_gives_what_has_arrived_and_never_waits() -> None:
    with polled_pair() as (end, theirs):
        assert end.receive() == []
        theirs.sendall(frame(b"first") + frame(b"second")[:3])
        assert end.receive() == [(b"first", [])]
        assert end.receive() == []
        file = make_file("a")
        theirs.sendall(frame(b"second")[3:])
        send_all(theirs, b"third", [file])
        os.close(file)
        received = [one for _ in range(2) for one in end.receive()]
        assert [message for message, _ in received] == [b"second", b"third"]
        assert [read_and_close(own) for _, own in received] == [[], ["a"]]


def test_a_polled_end_says_when_the_other_end_is_gone_or_lies() -> None:
    with polled_pair() as (end, theirs):
        theirs.sendall(frame(b"last"))
        theirs.close()
        assert end.receive() == [(b"last", [])]
        with pytest.raises(ConnectionResetError):
            end.receive()
        end.queue(b"late")
        with pytest.raises(OSError, match="pipe"):
            end.send_queued()
    with polled_pair() as (end, theirs):
        theirs.sendall(LIES[0])
        with pytest.raises(ProtocolError):
            end.receive()


def test_a_polled_end_sends_as_much_as_the_other_takes() -> None:
    with polled_pair() as (end, theirs):
        end.queue(b"x" * LARGE)
        end.queue(b"last")
        assert not end.send_queued()
        parser = FrameParser()
        found: list[bytes] = []
        while len(found) < 2:
            found += [message for message, _ in parser.push(*receive_some(theirs))]
            all_sent = end.send_queued()
        assert all_sent
        assert found == [b"x" * LARGE, b"last"]


def test_a_polled_end_closes_descriptors_of_messages_that_did_not_arrive_whole() -> None:
    with polled_pair() as (end, theirs):
        file = make_file("lost")
        socket.send_fds(theirs, [frame(b"whole", 1)[:-1]], [file])
        os.close(file)
        assert end.receive() == []


def test_an_end_with_the_last_message_and_a_reset_at_once_is_noticed() -> None:
    """uvloop told of the message and never of the end: an upload hung whose decoder was killed before it had read."""

    async def exchange() -> list[bytes]:
        ours, theirs = socket.socketpair()
        heard, is_lost = list[bytes](), asyncio.Event()
        channel = Channel(ours, lambda message, _: heard.append(message), is_lost.set)
        channel.send(b"what nobody reads")
        send_all(theirs, b"the last message")
        theirs.close()
        await asyncio.wait_for(is_lost.wait(), DEADLINE)
        return heard

    assert uvloop.run(exchange()) == [b"the last message"]
