"""What a socket ends by itself, where over a real one other limits may end it first."""

from __future__ import annotations

import asyncio

import pytest
from websockets.frames import Frame, Opcode
from websockets.protocol import Protocol, Side, State

from parakeet_stt.server.connections import sockets
from parakeet_stt.server.connections.sockets import MAX_FRAGMENTS, SocketProtocol
from parakeet_stt.server.connections.watch import MAX_UNREAD_BYTES


class Wire(asyncio.Transport):
    """A transport whose client does not read. unread: bytes that wait for it."""

    def __init__(self, unread: int = 0) -> None:
        super().__init__()
        self.unread = unread
        self.ended: list[str] = []

    def get_write_buffer_size(self) -> int:
        return self.unread

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.unread += len(data)

    def close(self) -> None:
        self.ended.append("closed")

    def abort(self) -> None:
        self.ended.append("aborted")


def connected(wire: Wire) -> SocketProtocol:
    """An open socket, without a server around it."""
    made = SocketProtocol.__new__(SocketProtocol)
    made.transport, made.queue, made.frames, made.close_sent = wire, sockets._Messages(), [], False
    made.conn = Protocol(Side.SERVER, state=State.OPEN)  # type: ignore[assignment]
    return made


def test_a_message_of_too_many_fragments_ends_the_socket() -> None:
    wire = Wire()
    made = connected(wire)
    for _ in range(MAX_FRAGMENTS):
        made.handle_cont(Frame(Opcode.CONT, b"", fin=False))
    assert not wire.ended
    made.handle_cont(Frame(Opcode.CONT, b"", fin=False))
    assert wire.ended == ["closed"]
    assert made.conn.close_sent
    assert made.conn.close_sent.code == 1008


@pytest.mark.parametrize(("unread", "ended"), [(MAX_UNREAD_BYTES, []), (MAX_UNREAD_BYTES + 1, ["aborted"])])
def test_a_client_that_reads_no_answers_to_its_pings_is_let_go(unread: int, ended: list[str]) -> None:
    wire = Wire(unread)
    connected(wire).handle_ping()
    assert wire.ended == ended
