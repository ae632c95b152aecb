"""Messages with file descriptors over a Unix socket.

Each message is sent after a header: its length, and the number of descriptors that come with it. Descriptors travel
beside the bytes (SCM_RIGHTS), with the first byte of their message.
"""

from __future__ import annotations

import array
import asyncio
import os
import socket
import struct
from collections import deque
from collections.abc import Callable, Sequence

HEADER = struct.Struct("<IB")  # bytes of the message; descriptors
MAX_MESSAGE = 64 << 20  # bytes; a longer one can only be an error
MAX_DESCRIPTORS = 8  # of one message
READ_BYTES = 1 << 18
BUFFER_BYTES = 1 << 20  # of the kernel, for each direction: a few of the largest messages that are usual

OnMessage = Callable[[bytes, list[int]], None]


class ProtocolError(Exception):
    """The other end does not keep to the protocol."""


class FrameParser:
    """Bytes and descriptors as they arrive → whole messages."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._descriptors: deque[int] = deque()

    def push(self, data: bytes, descriptors: Sequence[int] = ()) -> list[tuple[bytes, list[int]]]:
        """The messages that these bytes complete, each with its descriptors. Raises ProtocolError."""
        self._bytes += data
        self._descriptors.extend(descriptors)
        found: list[tuple[bytes, list[int]]] = []
        start = 0
        try:
            while len(self._bytes) - start >= HEADER.size:
                length, count = HEADER.unpack_from(self._bytes, start)
                if length > MAX_MESSAGE or count > MAX_DESCRIPTORS:
                    raise ProtocolError(f"a message of {length} bytes with {count} descriptors")
                end = start + HEADER.size + length
                if len(self._bytes) < end:
                    break
                if len(self._descriptors) < count:
                    raise ProtocolError(f"{count} descriptors were announced, {len(self._descriptors)} came")
                own = [self._descriptors.popleft() for _ in range(count)]
                found.append((bytes(self._bytes[start + HEADER.size : end]), own))
                start = end
        except ProtocolError:
            self._descriptors.extend(one for _, own in found for one in own)  # nobody gets them: `close` closes them
            raise
        del self._bytes[:start]
        return found

    def close(self) -> None:
        """Close the descriptors of messages that did not arrive whole."""
        while self._descriptors:
            os.close(self._descriptors.popleft())


class Channel:
    """One end of a connection, in an event loop.

    on_message: called with each message, and with its descriptors, which it owns. on_close: called once, when the other
    end is gone or breaks the protocol; not after `close`.
    """

    def __init__(self, connection: socket.socket, on_message: OnMessage, on_close: Callable[[], None]) -> None:
        connection.setblocking(False)
        _enlarge_buffers(connection)
        self._connection = connection
        self._on_message = on_message
        self._on_close = on_close
        self._loop = asyncio.get_running_loop()
        self._parser = FrameParser()
        self._unsent: deque[tuple[memoryview, list[int]]] = deque()  # bytes, and descriptors that we own
        self.is_open = True
        self._loop.add_reader(connection.fileno(), self._read)

    @property
    def unsent_bytes(self) -> int:
        """Bytes that the other end has not taken yet."""
        return sum(len(data) for data, _ in self._unsent)

    def send(self, message: bytes, descriptors: Sequence[int] = ()) -> None:
        """Send a message; nothing once the channel is closed. The caller keeps its descriptors."""
        if not self.is_open:
            return
        data = memoryview(HEADER.pack(len(message), len(descriptors)) + message)
        if not self._unsent:
            try:
                sent = _send(self._connection, data, descriptors)
            except BlockingIOError:
                sent = 0
            except OSError:  # the other end is gone, which `_read` notices too
                self._lose()
                return
            if sent == len(data):
                return
            data = data[sent:]
            descriptors = () if sent else descriptors
            self._loop.add_writer(self._connection.fileno(), self._write)
        self._unsent.append((data, [os.dup(one) for one in descriptors]))

    def close(self) -> None:
        """Close this end. What is not sent yet is dropped."""
        if not self.is_open:
            return
        self.is_open = False
        self._loop.remove_reader(self._connection.fileno())
        self._loop.remove_writer(self._connection.fileno())
        self._connection.close()
        self._parser.close()
        while self._unsent:
            _close_all(self._unsent.popleft()[1])

    def _write(self) -> None:
        try:
            while self._unsent:
                data, descriptors = self._unsent[0]
                sent = _send(self._connection, data, descriptors)
                _close_all(descriptors)
                if sent < len(data):
                    self._unsent[0] = data[sent:], []
                    return
                self._unsent.popleft()
        except BlockingIOError:
            return
        except OSError:
            self._lose()
            return
        self._loop.remove_writer(self._connection.fileno())

    def _read(self) -> None:
        # All that there is: of bytes and a reset that come together, uvloop tells once, and then never of this socket.
        while self.is_open:
            try:
                data, descriptors = receive_some(self._connection)
                messages = self._parser.push(data, descriptors)
            except BlockingIOError:
                return
            except (OSError, ProtocolError):
                self._lose()
                return
            for message, own in messages:
                if self.is_open:
                    self._on_message(message, own)
                else:
                    _close_all(own)
            if not data:
                self._lose()

    def _lose(self) -> None:
        if self.is_open:
            self.close()
            self._on_close()


class PolledEnd:
    """One end of a connection without an event loop: of a program that waits with a selector, and never in here."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        _enlarge_buffers(connection)
        self.socket = connection
        self._parser = FrameParser()
        self._unsent = bytearray()

    def receive(self) -> list[tuple[bytes, list[int]]]:
        """The messages that have arrived whole, each with its descriptors, which the caller owns.

        Raises ProtocolError; OSError once the other end is closed.
        """
        try:
            data, descriptors = receive_some(self.socket)
        except BlockingIOError:
            return []
        if not data:
            raise ConnectionResetError
        return self._parser.push(data, descriptors)

    def queue(self, message: bytes) -> None:
        """Have a message sent by `send_queued`."""
        self._unsent += HEADER.pack(len(message), 0) + message

    def send_queued(self) -> bool:
        """Send what the other end takes now. Returns whether that was all. Raises OSError."""
        try:
            while self._unsent:
                del self._unsent[: self.socket.send(self._unsent)]
        except BlockingIOError:
            return False
        return True

    def close(self) -> None:
        """Close this end."""
        self.socket.close()
        self._parser.close()


def receive_some(connection: socket.socket) -> tuple[bytes, list[int]]:
    """Bytes that have arrived, and descriptors; none at all once the other end is closed. Raises OSError."""
    data, descriptors, _, _ = socket.recv_fds(connection, READ_BYTES, 4 * MAX_DESCRIPTORS)
    return data, list(descriptors)


def _enlarge_buffers(connection: socket.socket) -> None:
    for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
        connection.setsockopt(socket.SOL_SOCKET, option, BUFFER_BYTES)


def send_all(connection: socket.socket, message: bytes, descriptors: Sequence[int] = ()) -> None:
    """Send a message over a blocking socket. Raises OSError."""
    data = memoryview(HEADER.pack(len(message), len(descriptors)) + message)
    sent = _send(connection, data, descriptors)
    connection.sendall(data[sent:])


def _send(connection: socket.socket, data: memoryview, descriptors: Sequence[int]) -> int:
    if not descriptors:
        return connection.send(data)
    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))
    return connection.sendmsg([data], [rights])


def _close_all(descriptors: list[int]) -> None:
    while descriptors:
        os.close(descriptors.pop())
