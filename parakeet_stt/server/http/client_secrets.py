"""Short-lived keys for realtime sessions: makes and checks them. A key carries its own content, signed."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Callable, Mapping
from typing import Any

PREFIX = "ek_"


class ClientSecrets:
    """Keys signed with one signing key. clock: seconds since 1970."""

    def __init__(self, signing_key: bytes, *, clock: Callable[[], float] = time.time) -> None:
        self._signing_key = signing_key
        self._clock = clock

    def create(self, seconds: int, session: Mapping[str, Any]) -> tuple[str, int]:
        """A key that is valid for so many seconds, and when it expires. session: what sessions opened with it get."""
        expires_at = int(self._clock()) + seconds
        content = {"expires_at": expires_at, "session": session, "nonce": secrets.token_hex(8)}
        body = base64.urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")
        return f"{PREFIX}{body}.{self._signature(body)}", expires_at

    def session_of(self, key: str) -> Mapping[str, Any] | None:
        """The session that the key was made with; None if the key is not valid, or not valid any more."""
        body, _, signature = key.removeprefix(PREFIX).partition(".")
        if not key.startswith(PREFIX) or not hmac.compare_digest(signature.encode(), self._signature(body).encode()):
            return None
        try:
            content = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
        except (binascii.Error, ValueError):
            return None
        session: Mapping[str, Any] = content["session"]
        return session if content["expires_at"] >= self._clock() else None

    def _signature(self, body: str) -> str:
        return hmac.new(self._signing_key, body.encode(), hashlib.sha256).hexdigest()
