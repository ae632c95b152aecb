"""Knows how a caller shows its key, and who may come in: by key, by a key made for one session, from which page.

Does not know what is asked for, nor how a refusal is told.
"""

from __future__ import annotations

import hmac
from urllib.parse import urlsplit

from starlette.datastructures import Headers, QueryParams
from starlette.types import Scope

from parakeet_stt.errors import NotAuthorized, OriginRefused
from parakeet_stt.server.http.client_secrets import ClientSecrets
from parakeet_stt.server.settings import Settings, digest

OPEN_PATHS = frozenset({"/healthz", "/livez", "/readyz"})
REALTIME = "/v1/realtime"  # where keys made for one session open
# How a page in a browser, whose sockets can have no headers, shows its key to OpenAI: as a subprotocol.
SUBPROTOCOL = "openai-insecure-api-key."


def shown_key(scope: Scope) -> str:
    """The key that a request or socket comes with, its bytes read as Latin-1, as Starlette reads headers.

    Empty if it has none.
    """
    headers = Headers(scope=scope)
    scheme, _, given = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return given.strip()
    if scope["type"] != "websocket":
        return ""
    named = [one.removeprefix(SUBPROTOCOL) for one in scope.get("subprotocols", ()) if one.startswith(SUBPROTOCOL)]
    asked = QueryParams(scope["query_string"]).get("api_key", "")
    return named[0] if named else asked.encode().decode("latin-1")


def check_key(scope: Scope, settings: Settings, secrets: ClientSecrets) -> None:
    """Let it pass if no keys are set, it carries one of them, or anybody may see this. Raises NotAuthorized."""
    path = scope["path"]
    if not settings.key_digests or path in OPEN_PATHS | settings.opened:
        return
    key = shown_key(scope)
    is_made = scope["type"] == "websocket" and path == REALTIME and secrets.session_of(key) is not None
    if not is_made and not is_known(key, settings):
        raise NotAuthorized("Incorrect or missing API key: send `Authorization: Bearer <key>`.")


def check_origin(scope: Scope, settings: Settings) -> None:
    """Refuse a socket that a page of another site opens: browsers ask nobody else. Raises OriginRefused."""
    headers = Headers(scope=scope)
    origin = headers.get("origin")
    if origin is None or "*" in settings.cors_origins or origin in settings.cors_origins:
        return
    try:
        site = urlsplit(origin).netloc
    except ValueError:
        site = ""
    if site != headers.get("host"):
        raise OriginRefused(f"Pages of {origin} may not call this service: STT_CORS_ORIGINS does not have it.")


def is_known(key: str, settings: Settings) -> bool:
    """Whether this is one of the keys. All are compared, each in constant time, so that the time tells nothing."""
    given = digest(key.encode("latin-1", "replace"))
    return sum(hmac.compare_digest(given, known) for known in settings.key_digests) > 0
