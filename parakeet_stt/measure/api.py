"""Asks a server that speaks OpenAI's audio API: one transcription, and what it supports."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
from tenacity import AsyncRetrying, RetryCallState, retry_if_result, stop_after_attempt, wait_exponential

from parakeet_stt.measure.clips import Clip
from parakeet_stt.text.transcript import Word

ROUTE = "/audio/transcriptions"
DEFAULT_MODEL = "whisper-1"  # where a server does not say which it has
BUSY = frozenset({429, 500, 502, 503, 504})  # worth another try
TRIES = 6
LONGEST_WAIT_SECONDS = 60.0


@dataclass(frozen=True)
class Target:
    """A server to measure. url: the base of its API, without a slash at the end. key: a bearer key, or empty."""

    name: str
    url: str
    model: str = DEFAULT_MODEL
    key: str = ""

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"} if self.key else {}


@dataclass(frozen=True)
class Answer:
    """What came back. seconds: from the request to its end. error: a sentence, empty if the answer is good.

    retry_after: seconds to wait before another try; None if another try is of no use.
    """

    text: str = ""
    words: tuple[Word, ...] = ()
    seconds: float = 0.0
    error: str = ""
    retry_after: float | None = None


@dataclass(frozen=True)
class Abilities:
    """What a server supports of what is measured. Each is empty if it does, or says in a sentence why not."""

    models: str = ""
    words: str = ""
    stream: str = ""
    realtime: str = ""


class Clients:
    """HTTP clients, one for each request under way, which keep their connections.

    A client of httpx looks at all its connections several times a request: with 64 of them that takes 10 ms.
    """

    def __init__(self, timeout: float) -> None:
        """timeout: of one request, in seconds."""
        self._timeout = timeout
        self._verify = httpx.create_ssl_context()  # one for all: it takes as long as several requests
        self._idle: list[httpx.AsyncClient] = []
        self._made = AsyncExitStack()

    @asynccontextmanager
    async def one(self) -> AsyncIterator[httpx.AsyncClient]:
        """A client that nobody else uses meanwhile."""
        if not self._idle:
            client = httpx.AsyncClient(timeout=self._timeout, verify=self._verify)
            self._idle.append(await self._made.enter_async_context(client))
        client = self._idle.pop()
        try:
            yield client
        finally:
            self._idle.append(client)

    async def __aenter__(self) -> Clients:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._made.aclose()


async def transcribe(
    client: httpx.AsyncClient, target: Target, clip: Clip, *, words: bool = False, language: str = ""
) -> Answer:
    """One request. words: ask for the words' times. Never raises: what goes wrong is in the answer."""
    form = {"model": target.model, "response_format": "verbose_json" if words else "json"}
    form |= {"timestamp_granularities[]": "word"} if words else {}
    form |= {"language": language} if language else {}
    began = time.monotonic()
    try:
        response = await client.post(
            target.url + ROUTE, files={"file": (clip.filename, clip.data)}, data=form, headers=target.headers
        )
    except httpx.TransportError as error:
        return Answer(seconds=time.monotonic() - began, error=describe(error), retry_after=0.0)
    seconds = time.monotonic() - began
    if response.status_code != 200:
        after = _retry_after(response) if response.status_code in BUSY else None
        return Answer(seconds=seconds, error=f"{response.status_code}: {read_message(response)}", retry_after=after)
    try:
        body = response.json()
        return Answer(str(body["text"]), tuple(_read_words(body)), seconds)
    except (ValueError, KeyError, TypeError):
        return Answer(seconds=seconds, error=f"the answer is no JSON with a text: {response.text[:100]!r}")


async def transcribe_patiently(
    client: httpx.AsyncClient, target: Target, clip: Clip, *, words: bool = False, language: str = ""
) -> Answer:
    """As `transcribe`, but a busy server and a broken connection get another try, up to `TRIES`, when they say so."""
    backoff = wait_exponential(multiplier=0.5, max=LONGEST_WAIT_SECONDS)

    def wait(state: RetryCallState) -> float:
        asked = state.outcome.result().retry_after if state.outcome else None
        return min(max(asked or 0.0, backoff(state)), LONGEST_WAIT_SECONDS)

    retrying = AsyncRetrying(
        stop=stop_after_attempt(TRIES),
        wait=wait,
        retry=retry_if_result(lambda answer: answer.retry_after is not None),
        retry_error_callback=lambda state: state.outcome.result() if state.outcome else None,
    )
    answer: Answer = await retrying(transcribe, client, target, clip, words=words, language=language)
    return answer


async def find_model(client: httpx.AsyncClient, target: Target) -> tuple[str, str]:
    """The first model that the server lists; or `DEFAULT_MODEL`, and why. Raises httpx.TransportError if it is away."""
    response = await client.get(f"{target.url}/models", headers=target.headers)
    if response.status_code != 200:
        return DEFAULT_MODEL, f"/models answers {response.status_code}: {read_message(response)}"
    try:
        return str(response.json()["data"][0]["id"]), ""
    except (ValueError, LookupError, TypeError):
        return DEFAULT_MODEL, "/models lists no model"


async def has_word_times(client: httpx.AsyncClient, target: Target, clip: Clip) -> str:
    """Empty if verbose_json has the words' times for a clip with speech in it; or why not."""
    answer = await transcribe(client, target, clip, words=True)
    if answer.error:
        return answer.error
    return "" if answer.words else "verbose_json has no words"


async def has_stream(client: httpx.AsyncClient, target: Target, clip: Clip) -> str:
    """Empty if stream=true is answered with deltas; or why not."""
    form = {"model": target.model, "stream": "true"}
    files = {"file": (clip.filename, clip.data)}
    try:
        response = await client.post(target.url + ROUTE, files=files, data=form, headers=target.headers)
    except httpx.TransportError as error:
        return describe(error)
    if response.status_code != 200:
        return f"{response.status_code}: {read_message(response)}"
    kind = response.headers.get("content-type", "")
    return "" if "transcript.text.delta" in response.text else f"stream=true is answered with {kind or 'no events'}"


def read_message(response: httpx.Response) -> str:
    """What an error says: OpenAI's envelope, FastAPI's, or the beginning of the body."""
    try:
        body = response.json()
    except ValueError:
        body = None
    found = body
    for name in ("error", "detail", "message"):
        found = found[name] if isinstance(found, Mapping) and name in found else found
    message = found if isinstance(found, str) else json.dumps(found) if found else response.text
    return " ".join(message.split())[:200] or response.reason_phrase


def _read_words(body: Mapping[str, Any]) -> list[Word]:
    return [
        Word(str(word["word"]).strip(), float(word["start"]), float(word["end"]), ())
        for word in body.get("words") or ()
    ]


def _retry_after(response: httpx.Response) -> float:
    try:
        return max(0.0, float(response.headers.get("retry-after", 0)))
    except ValueError:  # a date
        return 0.0


def describe(error: httpx.TransportError) -> str:
    """What went wrong with a connection."""
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
