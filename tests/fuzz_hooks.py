"""What schemathesis can't invent: a file with speech in it, and a model's name. Half of the cases get both."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import schemathesis

SPEECH = (Path(__file__).parents[1] / "models" / "parakeet-tdt-tiny" / "samples" / "short.flac").read_bytes()


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    body = case.body
    if isinstance(body, dict) and "file" in body and zlib.crc32(repr(sorted(body)).encode() + repr(body).encode()) % 2:
        case.body = {**body, "file": SPEECH, **({"model": "whisper-1"} if "model" in body else {})}
