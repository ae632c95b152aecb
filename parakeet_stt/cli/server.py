"""How the commands find a server that speaks OpenAI's API: its address and key, as OpenAI's clients take them."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

import typer

DEFAULT_URL = "http://127.0.0.1:3000/v1"

Url = Annotated[
    str,
    typer.Option(
        "--url",
        envvar="OPENAI_BASE_URL",
        help="Address of a server that speaks OpenAI's API; /v1 is added where no path is given.",
        show_envvar=True,
    ),
]
ApiKey = Annotated[
    str, typer.Option("--api-key", envvar="OPENAI_API_KEY", help="Bearer key of that server.", show_envvar=True)
]


def api_url(address: str) -> str:
    """The base of the API, without a slash at its end. address: with or without `/v1`, and `http://` may be left out.

    Raises typer.BadParameter if it is no address.
    """
    given = address if "://" in address else f"http://{address}"
    try:
        parts = urlsplit(given)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        is_address = False
    if not is_address:
        raise typer.BadParameter(f"{address!r} is no address of a server, as http://127.0.0.1:3000 is one")
    return given.rstrip("/") if parts.path.strip("/") else f"{parts.scheme}://{parts.netloc}/v1"
