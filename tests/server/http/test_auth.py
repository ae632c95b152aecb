"""Which names a request may call the service by; keys and origins are tested over HTTP."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from parakeet_stt.errors import HostRefused
from parakeet_stt.server.http.auth import check_host
from parakeet_stt.server.settings import Settings

OWN = ("localhost", "LOCALHOST:3000", "127.0.0.1:3000", "10.1.2.3", "[::1]:3000", "[fe80::1]", "parakeet:3000", "gpu1",
       "page.localhost", "gpu1.local", "gpu1.lan:80", "stt.team.svc", "stt.team.svc.cluster.local", "stt.corp.internal",
       "localhost.", "", socket.gethostname())  # fmt: skip
OTHERS = ("evil.example.com", "evil.example.com:3000", "127.0.0.1.nip.io", "localhost.evil.com", "evil.com.", "a.b]:1",
          "xlocal.com")  # fmt: skip


def check(host: str, path: str = "/v1/models", **env: Any) -> None:
    headers = [(b"host", host.encode())] if host else []
    check_host({"type": "http", "path": path, "headers": headers}, Settings(**env))


@pytest.mark.parametrize("host", OWN)
def test_what_no_site_can_be_called_is_always_allowed(host: str) -> None:
    check(host)


@pytest.mark.parametrize("host", OTHERS)
def test_what_a_site_can_be_called_is_refused(host: str) -> None:
    with pytest.raises(HostRefused, match="STT_ALLOWED_HOSTS"):
        check(host)


def test_an_operator_allows_names_all_of_a_domain_or_any() -> None:
    check("stt.example.com", STT_ALLOWED_HOSTS="other, STT.example.com")
    check("a.b.example.com:443", STT_ALLOWED_HOSTS=".example.com")
    check("example.com", STT_ALLOWED_HOSTS=".example.com")
    check("evil.com", STT_ALLOWED_HOSTS="*")
    for host in ("notexample.com", "example.com.evil.com"):
        with pytest.raises(HostRefused):
            check(host, STT_ALLOWED_HOSTS=".example.com")


def test_with_keys_and_for_health_checks_any_name_will_do() -> None:
    check("evil.example.com", STT_API_KEYS="secret")
    check("evil.example.com", path="/readyz")
