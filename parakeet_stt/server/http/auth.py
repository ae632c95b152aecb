"""Authorization: which key a request carries; whether the key, the page in a browser, or the name called by may be."""

from __future__ import annotations

import hmac
import ipaddress
import socket
from urllib.parse import urlsplit

from starlette.datastructures import Headers, QueryParams
from starlette.types import Scope

from parakeet_stt.errors import HostRefused, NotAuthorized, OriginRefused
from parakeet_stt.server.http.client_secrets import ClientSecrets
from parakeet_stt.server.settings import Settings, hash_key

OPEN_PATHS = frozenset({"/healthz", "/livez", "/readyz"})
PAGE_PATHS = ("/", "/page/")  # of the page, and where its files begin
# Ends of names that nobody can register for a site: RFC 6761, 6762 and 8375, ICANN's for private use, home routers',
# and Kubernetes'.
PRIVATE_ENDS = (".localhost", ".local", ".internal", ".home.arpa", ".lan", ".svc")
REALTIME_PATH = "/v1/realtime"  # where keys for one session are valid
# How a page in a browser, whose sockets can't have headers, sends its key to OpenAI: as a subprotocol.
SUBPROTOCOL = "openai-insecure-api-key."


def key_of(scope: Scope) -> str:
    """The key of a request or socket, its bytes read as Latin-1, as Starlette reads headers; empty if it has none."""
    headers = Headers(scope=scope)
    scheme, _, given = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return given.strip()
    if scope["type"] != "websocket":
        return ""
    named = [one.removeprefix(SUBPROTOCOL) for one in scope.get("subprotocols", ()) if one.startswith(SUBPROTOCOL)]
    in_query = QueryParams(scope["query_string"]).get("api_key", "")
    return named[0] if named else in_query.encode().decode("latin-1")


def check_key(scope: Scope, settings: Settings, secrets: ClientSecrets) -> None:
    """Raise NotAuthorized unless no keys are set, the path is open, or the request carries a valid key."""
    path = scope["path"]
    if not settings.key_hashes or path in OPEN_PATHS | settings.open_paths:
        return
    if settings.page and (path == PAGE_PATHS[0] or path.startswith(PAGE_PATHS[1])):
        return
    key = key_of(scope)
    opens_session = scope["type"] == "websocket" and path == REALTIME_PATH and secrets.session_of(key) is not None
    if not opens_session and not is_known(key, settings):
        raise NotAuthorized("Incorrect or missing API key: send `Authorization: Bearer <key>`.")


def check_origin(scope: Scope, settings: Settings) -> None:
    """Raise OriginRefused for a socket that another site's page opens: browsers do not check sockets themselves."""
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


def check_host(scope: Scope, settings: Settings) -> None:
    """Raise HostRefused for a name of somebody else's site, where no keys are set.

    A site can have its own name resolve to this service's address (DNS rebinding). A browser then lets the site's pages
    call it, and read the answers, as if it were the site.
    """
    if settings.key_hashes or scope["path"] in OPEN_PATHS:
        return
    host = Headers(scope=scope).get("host", "")
    try:
        name = (urlsplit(f"//{host}").hostname or "").rstrip(".")
    except ValueError:
        name = host
    if not _is_own(name, settings.allowed_hosts):
        raise HostRefused(
            f"This service is not called {name}. Without API keys it answers to localhost, to addresses, to names "
            "without a dot or for private use, and to those in STT_ALLOWED_HOSTS."
        )


def _is_own(name: str, allowed: list[str]) -> bool:
    """Whether no other site can have this name. allowed: names; with a dot before, of all that end so; or `*`."""
    if "." not in name or name.endswith(PRIVATE_ENDS) or name == socket.gethostname().lower():
        return True
    if any(one == "*" or name == one.lstrip(".") or (one.startswith(".") and name.endswith(one)) for one in allowed):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def is_known(key: str, settings: Settings) -> bool:
    """Whether this is a configured key. All are compared, each in constant time, so that the time tells nothing."""
    given = hash_key(key.encode("latin-1", "replace"))
    return sum(hmac.compare_digest(given, known) for known in settings.key_hashes) > 0
