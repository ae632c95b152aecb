"""Asks a server that speaks OpenAI's audio API, again if need be, and downloads what an address names.

A server that can't be reached is asked again until it was away for as long as the caller waits. A server that is busy
is asked again when it says, however often. What a server refuses is not asked again.
"""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import BinaryIO, TypeVar
from urllib.request import getproxies

import httpx
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type

from parakeet_stt.cli.files.content import Content, CountingReader, temporary_file
from parakeet_stt.cli.files.sources import Source

ROUTE = "/audio/transcriptions"
CONNECT_SECONDS = 10.0
WRITE_SECONDS = 60.0  # in which the server takes no further byte of an upload
FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 0.5, 5.0  # between two tries of a server that is away
NO_CREDIT = "insufficient_quota"  # OpenAI's 429 that no patience helps against
MOST_FAILURES = 4  # tries of one request that the server failed at, or broke off
# The answer comes when all is transcribed, so it may take hours. These tell a server that is working from one that is
# gone: after a minute and a half without a sign of its machine, the connection counts as broken.
KEEPALIVE: list[tuple[int, int, int]] = [
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    *(
        (socket.IPPROTO_TCP, getattr(socket, name), value)
        for name, value in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 4))
        if hasattr(socket, name)
    ),
]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server sent. is_truncated: it says that the file ends before the length that it announces."""

    body: bytes
    is_truncated: bool


class Refused(Exception):
    """The server refuses this request, or fails at it again and again; others may do."""

    def __init__(self, message: str, *, status: int | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.message, self.status, self.code = message, status, code


class NoServer(Exception):
    """No request to this server will do: it is away, refuses the key, the model or the route, or tells no speakers."""


class _Again(Exception):
    """Another try may do. seconds: how soon; None if nobody says."""

    def __init__(self, message: str, seconds: float | None = None) -> None:
        super().__init__(message)
        self.seconds = seconds


class _Busy(_Again):
    """The server takes on no more at present."""


class _Away(_Again):
    """The server is not there, or says that it is about to end."""


class _Failed(_Again):
    """The server has failed at this request, or broken it off."""


class Client:
    """Requests to one server, many at a time."""

    def __init__(self, url: str, key: str, *, connections: int, give_up_seconds: float) -> None:
        """url: the base of the API. give_up_seconds: how long the server may be away."""
        headers = {"authorization": f"Bearer {key}"} if key else {}
        limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
        timeout = httpx.Timeout(None, connect=CONNECT_SECONDS, write=WRITE_SECONDS)
        # With a transport of our own httpx would use no proxy.
        transport = None if getproxies() else httpx.AsyncHTTPTransport(limits=limits, socket_options=KEEPALIVE)
        self._http = httpx.AsyncClient(
            base_url=url, headers=headers, transport=transport, limits=limits, timeout=timeout
        )
        self._downloads = httpx.AsyncClient(follow_redirects=True, timeout=httpx.Timeout(60, connect=CONNECT_SECONDS))
        self._url = url
        self._give_up_seconds = give_up_seconds
        self._away_since: float | None = None  # of the API, whoever noticed it first

    async def close(self) -> None:
        """Close all connections."""
        await self._http.aclose()
        await self._downloads.aclose()

    async def transcribe(
        self,
        content: Content,
        fields: Mapping[str, str | Sequence[str]],
        *,
        on_sent: Callable[[int], None],
        on_wait: Callable[[str], None],
    ) -> Answer:
        """Have a recording transcribed.

        fields: of the form, beside the file. on_sent: called with the number of bytes sent so far. on_wait: called with
        the reason before another try. Raises Refused and NoServer.
        """

        async def ask() -> Answer:
            file = (content.name, CountingReader(content, on_sent))
            try:
                response = await self._http.post(ROUTE, data=dict(fields), files={"file": file})  # type: ignore[dict-item]
            except httpx.RequestError as exc:
                raise _broken(exc, self._url) from exc
            error = None if response.is_success else _error_of(response)
            if not isinstance(error, _Away):
                self._away_since = None
            if error:
                raise error
            return Answer(response.content, response.headers.get("x-audio-truncated") == "true")

        return await self._retry(ask, on_wait)

    async def download(
        self, source: Source, validators: Mapping[str, str], on_wait: Callable[[str], None]
    ) -> tuple[BinaryIO, dict[str, str]] | None:
        """Fetch what an address names into a file without a name, which the caller closes.

        validators: those that came with it the last time. Returns the file and its validators; None if it has not
        changed. Raises Refused.
        """
        conditions = {"etag": "if-none-match", "last-modified": "if-modified-since"}
        headers = {conditions[name]: value for name, value in validators.items() if name in conditions}

        async def fetch() -> tuple[BinaryIO, dict[str, str]] | None:
            try:
                async with self._downloads.stream("GET", source.name, headers=headers) as response:
                    if response.status_code == httpx.codes.NOT_MODIFIED:
                        return None
                    if not response.is_success:
                        raise _download_error(response)
                    with ExitStack() as closing:
                        file = closing.enter_context(temporary_file())
                        async for piece in response.aiter_bytes():
                            file.write(piece)
                        closing.pop_all()
                    return file, {name: response.headers[name] for name in conditions if name in response.headers}
            except httpx.RequestError as exc:
                raise _broken(exc, source.name) from exc
            except httpx.InvalidURL as exc:
                raise Refused(f"{source.name} is no address: {exc}") from exc

        try:
            return await self._retry(fetch, on_wait, is_api=False)
        except NoServer as exc:
            raise Refused(str(exc)) from exc

    async def _retry(
        self, ask: Callable[[], Awaitable[T]], on_wait: Callable[[str], None], *, is_api: bool = True
    ) -> T:
        """Call `ask` until it answers, or there is no hope."""
        failures = 0
        away_since: float | None = None

        def wait(state: RetryCallState) -> float:
            exc = state.outcome and state.outcome.exception()
            assert isinstance(exc, _Again)
            on_wait(str(exc))
            seconds = exc.seconds
            if seconds is None:
                seconds = min(FIRST_WAIT_SECONDS * 2 ** min(state.attempt_number - 1, 10), LONGEST_WAIT_SECONDS)
            return seconds * random.uniform(1, 1.1)  # so that they do not all come at once

        def is_hopeless(state: RetryCallState) -> bool:
            nonlocal failures, away_since
            exc = state.outcome and state.outcome.exception()
            if isinstance(exc, _Failed):
                failures += 1
            if not isinstance(exc, _Away):
                return failures >= MOST_FAILURES
            now = time.monotonic()
            if is_api:
                self._away_since = away_since = self._away_since or now
            return now - (away_since := away_since or now) >= self._give_up_seconds

        try:
            async for attempt in AsyncRetrying(
                retry=retry_if_exception_type(_Again), wait=wait, stop=is_hopeless, reraise=True
            ):
                with attempt:
                    return await ask()
        except _Failed as exc:
            raise Refused(f"{exc} ({MOST_FAILURES} tries)") from exc
        except _Away as exc:
            raise NoServer(f"{exc}, for {self._give_up_seconds:.0f} s") from exc
        raise AssertionError


def _broken(exc: httpx.RequestError, address: str) -> Exception:
    """What it means that there was no answer."""
    reason = str(exc) or type(exc).__name__
    if isinstance(exc, httpx.ConnectError | httpx.ConnectTimeout):
        return _Away(f"{address} can't be reached ({reason})")
    if isinstance(exc, httpx.TransportError):
        return _Failed(f"the connection to {address} broke ({reason})")
    return Refused(f"{address}: {reason}")


def _error_of(response: httpx.Response) -> Exception:
    """What an answer of the API that is no success means."""
    try:
        error = response.json()["error"]
        message, code, param = str(error["message"]), error.get("code"), error.get("param")
    except (ValueError, KeyError, TypeError, AttributeError):
        message, code, param = response.text.strip()[:200] or response.reason_phrase, None, None
    if request_id := response.headers.get("x-request-id"):
        message += f" (request {request_id})"
    match response.status_code:
        case 429 if code != NO_CREDIT:
            return _Busy(message, _retry_after(response))
        case 502 | 503 | 504:
            return _Away(f"status {response.status_code}: {message}", _retry_after(response))
        case 408 | 409 | 500:
            return _Failed(f"status {response.status_code}: {message}")
        case 401 | 403 | 405 | 429:
            return NoServer(message)
        case 400 if param == "speakers":
            return NoServer(message)
        case 404:
            return NoServer(message if code else f"{response.url} is not there: is this a server with OpenAI's API?")
        case _:
            return Refused(message, status=response.status_code, code=code)


def _download_error(response: httpx.Response) -> Exception:
    message = f"{response.url}: status {response.status_code}"
    if response.status_code in (429, 503):
        return _Away(message, _retry_after(response))
    return _Failed(message) if response.status_code >= 500 else Refused(message, status=response.status_code)


def _retry_after(response: httpx.Response) -> float | None:
    """Seconds that the server asks to wait, given as such or as a date; None without."""
    given = response.headers.get("retry-after", "")
    try:
        return max(0.0, float(given))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(given).timestamp() - time.time())
    except ValueError:
        return None
