"""JSON responses whose long lists are written a part at a time."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from typing import Any

from fastapi.responses import JSONResponse

from parakeet_stt.text.lazy_sequence import LazySequence

ITEMS_AT_ONCE = 1000  # of a lazy sequence, that exist at the same time
_dumps = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode  # as JSONResponse has it


class LazyJSONResponse(JSONResponse):
    """A JSON response whose content may have lazy sequences in its mappings."""

    def render(self, content: Any) -> bytes:
        """The body. Called by Starlette."""
        return json_bytes(content)


def json_bytes(value: Any) -> bytes:
    """A value as UTF-8 JSON. At most `ITEMS_AT_ONCE` items of a lazy sequence exist at the same time."""
    written = io.BytesIO()
    for part in _parts(value):
        written.write(part.encode())
    return written.getvalue()


def _parts(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping) and _has_lazy(value):
        before = "{"
        for name, item in value.items():
            yield f"{before}{_dumps(name)}:"
            yield from _parts(item)
            before = ","
        yield "}"
    elif isinstance(value, LazySequence):
        yield "["
        for start in range(0, len(value), ITEMS_AT_ONCE):
            yield ("," if start else "") + _dumps(value[start : start + ITEMS_AT_ONCE])[1:-1]
        yield "]"
    else:
        yield _dumps(value)


def _has_lazy(value: Any) -> bool:
    return isinstance(value, LazySequence) or (isinstance(value, Mapping) and any(map(_has_lazy, value.values())))
