"""Serves the bare recognizer with OpenAI's route: no detector, no batches, no limits. For comparisons only.

    python -m scripts.bench.bare_server [--model NAME] [--port 3098]

A file is decoded as one utterance. So `parakeet evaluate` finds here what scripts/bench/accuracy.py finds without a
server, and what it finds elsewhere is what the service adds to the network or takes from it.
"""

from __future__ import annotations

import argparse
import io
import threading
from typing import Annotated, Any

import numpy as np
import soundfile
import uvicorn
from fastapi import FastAPI, File, Form

from parakeet_stt.audio import SAMPLE_RATE, Audio
from parakeet_stt.engines import catalogue
from parakeet_stt.engines.parakeet import Parakeet
from parakeet_stt.text.alignment import join_tokens


def make_app(model: Parakeet, name: str) -> FastAPI:
    """The route for transcriptions of 16 kHz mono files that libsndfile reads, and the list of models."""
    app = FastAPI()
    one_at_a_time = threading.Lock()

    @app.get("/v1/models")
    def list_models() -> dict[str, Any]:
        return {"object": "list", "data": [{"id": name, "object": "model"}]}

    @app.post("/v1/audio/transcriptions")
    def transcribe(file: Annotated[bytes, File()], response_format: Annotated[str, Form()] = "json") -> dict[str, Any]:
        samples, rate = soundfile.read(io.BytesIO(file), dtype="int16")
        assert rate == SAMPLE_RATE and samples.ndim == 1  # noqa: PT018
        audio = Audio(samples.astype(np.float32) / 32768)
        with one_at_a_time:
            (hypothesis,) = model.recognize([audio])
        words = join_tokens(hypothesis.tokens, audio.duration)
        body: dict[str, Any] = {"text": " ".join(word.text for word in words)}
        if response_format == "verbose_json":
            body["words"] = [{"word": word.text, "start": word.start, "end": word.end} for word in words]
        return body

    return app


def main() -> None:
    """Serve until it is stopped."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a catalogue name, path or store tag; the bundled model unless given")
    parser.add_argument("--port", type=int, default=3098)
    arguments = parser.parse_args()
    source = catalogue.resolve(arguments.model)
    uvicorn.run(make_app(Parakeet(source.path), source.name), port=arguments.port, log_level="warning")


if __name__ == "__main__":
    main()
