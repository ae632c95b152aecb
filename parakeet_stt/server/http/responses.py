"""Knows how values are written as JSON, long sequences a part at a time. Does not know what they say."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from fastapi.responses import JSONResponse

from parakeet_stt.text.lazy_sequence import Lazy

AT_ONCE = 1000  # items that exist while they are written
_text = partial(json.dumps, ensure_ascii=False, allow_nan=False, separators=(",", ":"))  # as JSONResponse has it


class JsonAnswer(JSONResponse):
    """A response in JSON, whose content may hold `Lazy` sequences in its mappings."""

    def render(self, content: Any) -> bytes:
        """The body. Called by Starlette."""
        return json_bytes(content)


def json_bytes(value: Any) -> bytes:
    """A value in UTF-8; of a `Lazy` sequence in its mappings, no more than `AT_ONCE` items exist at once."""
    written = io.BytesIO()
    for part in _parts(value):
        written.write(part.encode())
    return written.getvalue()


def _parts(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        before = "{"
        for name, item in value.items():
            yield f"{before}{_text(name)}:"
            yield from _parts(item)
            before = ","
        yield "}" if value else "{}"
    elif isinstance(value, Lazy):
        yield "["
        for start in range(0, len(value), AT_ONCE):
            yield ("," if start else "") + _text(value[start : start + AT_ONCE])[1:-1]
        yield "]"
    else:
        yield _text(value)
