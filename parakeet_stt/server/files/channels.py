"""Transcribes the channels of a recording apart: each from a reader of its own, all under one admission."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from parakeet_stt.errors import InvalidField
from parakeet_stt.ipc.shared_audio import create_memory_file
from parakeet_stt.offline.channels import MAX_CHANNELS

T = TypeVar("T")
COPIED_BYTES = 1 << 20


@contextmanager
def open_again(upload: int) -> Iterator[int]:
    """A descriptor of the same file with a place of its own, which another descriptor does not move."""
    try:
        again = os.open(f"/proc/self/fd/{upload}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:  # this is not Linux
        again = _copy(upload)
    try:
        yield again
    finally:
        os.close(again)


def check_channels(count: int) -> None:
    """Raise InvalidField if a recording has more channels than are taken apart."""
    if count > MAX_CHANNELS:
        raise InvalidField(
            f"channels: at most {MAX_CHANNELS} channels can be transcribed apart, not {count}", param="channels"
        )


async def run_together(work: Sequence[Awaitable[T]]) -> list[T]:
    """The results of all; when one fails, the others are cancelled, and its error is raised."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _copy(upload: int) -> int:
    copy, place = create_memory_file("channel"), 0
    while data := os.pread(upload, COPIED_BYTES, place):
        place += os.pwrite(copy, data, place)
    return copy
