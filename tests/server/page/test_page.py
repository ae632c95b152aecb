"""The page at `/`: what is sent, what it may do in a browser, and that nothing of it is fetched from elsewhere."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import httpx
import pytest
from starlette.testclient import TestClient

from parakeet_stt.errors import NotAuthorized
from parakeet_stt.server.app import create_app
from parakeet_stt.server.http.auth import check_key
from parakeet_stt.server.http.client_secrets import ClientSecrets
from parakeet_stt.server.page import assets
from parakeet_stt.server.settings import Settings
from tests.conftest import Server

FILES = sorted(assets.FOLDER.iterdir())
IMPORT = re.compile(r'^(?:import|export)\b[^"]*"\./([^"]+)"', re.MULTILINE)
ADDRESS = re.compile(r"(?:https?:)?//[\w.-]+")
# Addresses that are only written down: of a standard, of an XML name space.
NAMED = {"https://www.w3.org", "http://www.w3.org"}


class Tags(HTMLParser):
    """All elements of a document, each as its name and attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def text_of(name: str) -> str:
    return (assets.FOLDER / name).read_text()


def policy_of(response: httpx.Response) -> dict[str, list[str]]:
    parts = (part.split() for part in response.headers["content-security-policy"].split(";"))
    return {name: values for name, *values in parts}


def test_every_file_is_served_as_what_it_is_and_none_of_them_leaves_its_confines(server: Server) -> None:
    for path in FILES:
        response = httpx.get(f"{server.url}/page/{path.name}")
        assert (response.status_code, response.content) == (200, path.read_bytes()), path.name
        assert response.headers["content-type"] == assets.MEDIA_TYPES[path.suffix]
        assert response.headers["x-content-type-options"] == "nosniff"
        assert policy_of(response)["default-src"] == ["'none'"]
    index = httpx.get(f"{server.url}/")
    assert index.content == (assets.FOLDER / "index.html").read_bytes()
    assert index.headers["referrer-policy"] == "no-referrer"


def test_the_policy_allows_nothing_inline_and_nothing_from_elsewhere(server: Server) -> None:
    policy = policy_of(httpx.get(f"{server.url}/"))
    values = {value for name, given in policy.items() if name not in ("require-trusted-types-for",) for value in given}
    assert values == {"'none'", "'self'", "blob:"}
    assert policy["media-src"] == ["blob:"]
    assert [name for name, given in policy.items() if "blob:" in given] == ["media-src"]
    assert policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == ["'none'"]
    assert policy["require-trusted-types-for"] == ["'script'"]


def test_a_browser_that_has_a_file_is_told_so(server: Server) -> None:
    for path in ("/", "/page/main.js"):
        first = httpx.get(server.url + path)
        again = httpx.get(server.url + path, headers={"if-none-match": first.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"] == first.headers["etag"]
        assert again.headers["content-security-policy"] == first.headers["content-security-policy"]
        other = httpx.get(server.url + path, headers={"if-none-match": '"another"'})
        assert other.content == first.content
        assert httpx.head(server.url + path).headers["content-length"] == str(len(first.content))


def test_files_that_are_not_of_the_page_are_not_there(server: Server) -> None:
    for path in ("/page/", "/page/routes.py", "/page/..%2froutes.py", "/page/%2e%2e/routes.py", "/page/static/main.js"):
        response = httpx.get(server.url + path)
        assert (response.status_code, response.json()["error"]["code"]) == (404, "not_found"), path
    assert httpx.post(f"{server.url}/").status_code == 405


def test_the_entity_tag_is_the_contents() -> None:
    tags = {asset.etag for asset in assets.load().values()}
    assert len(tags) == len(FILES) == len(assets.load())


def test_every_file_is_used_and_every_file_that_is_used_is_there() -> None:
    attributes = [value for _, given in Tags(text_of("index.html")).found for value in given.values() if value]
    used = {value.removeprefix("page/") for value in attributes if value.startswith("page/")}
    for path in FILES:
        if path.suffix == ".js":
            used |= set(IMPORT.findall(path.read_text()))
            used |= set(re.findall(r'address\("page/([^"]+)"\)', path.read_text()))
    assert used | {"index.html"} == {path.name for path in FILES}


def test_the_document_has_nothing_inline() -> None:
    for tag, given in Tags(text_of("index.html")).found:
        assert not [name for name in given if name == "style" or name.startswith("on")], tag
        assert tag != "style"
        assert tag != "script" or given.get("src")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_no_file_names_another_server(path: object) -> None:
    text = text_of(getattr(path, "name"))  # noqa: B009
    assert set(ADDRESS.findall(text)) <= NAMED
    assert not re.search(r"\binnerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text)


@pytest.mark.parametrize("path", [path for path in FILES if path.suffix in (".js", ".css")], ids=lambda path: path.name)
def test_every_script_says_what_it_is_for_and_is_short(path: object) -> None:
    lines = text_of(getattr(path, "name")).splitlines()  # noqa: B009
    assert lines[0].startswith(("// ", "/* "))
    assert len(lines) <= 400


def test_without_the_setting_the_service_answers_as_if_there_were_no_page() -> None:
    client, without = TestClient(create_app(has_page=True)), TestClient(create_app(has_page=False))
    for path in ("/", "/page/main.js"):
        assert client.get(path).status_code == 200
        for method in ("GET", "POST", "HEAD"):
            assert without.request(method, path).status_code == 404


@pytest.mark.parametrize("path", ["/", "/page/main.js"])
def test_the_page_needs_no_key_but_what_it_calls_does(path: str) -> None:
    def check(path: str, *, page: bool = True) -> None:
        scope = {"type": "http", "path": path, "headers": [], "query_string": b""}
        settings = Settings.model_validate({"STT_API_KEYS": "a-key", "STT_PAGE": page})
        check_key(scope, settings, ClientSecrets(b"x" * 16))

    check(path)
    for other in ("/status", "/v1/models", "/pages", "/page"):
        with pytest.raises(NotAuthorized):
            check(other)
    with pytest.raises(NotAuthorized):
        check(path, page=False)


def test_the_status_tells_what_is_served_and_what_is_refused(server: Server) -> None:
    status = httpx.get(f"{server.url}/status").json()
    assert status["model"] == {
        "name": "parakeet-tdt-tiny", "is_demo": True, "languages": ["en"], "device": "cpu", "precision": "float32",
        "tells_speakers": False,
    }  # fmt: skip
    assert status["speed"] > 0
    assert (status["waiting_seconds"], status["sessions"]) == (0, 0)
    assert status["limits"] == {"upload_bytes": 4 << 30, "audio_seconds": 43200, "sessions": 256}
