"""Shows how to read a transcript while the file is still being transcribed: stream=true and its deltas.

python examples/stream.py [--url http://127.0.0.1:3000] [FILE]
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import openai

SAMPLE = Path(__file__).parents[1] / "models/parakeet-tdt-tiny/samples/two-minutes.flac"


def main() -> None:
    """Print each delta when it arrives; all deltas together are the text."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:3000", help="of the service")
    parser.add_argument("file", nargs="?", type=Path, default=SAMPLE)
    arguments = parser.parse_args()

    client = openai.OpenAI(base_url=f"{arguments.url}/v1", api_key=os.environ.get("OPENAI_API_KEY", "none"))
    events = client.audio.transcriptions.create(file=arguments.file, model="gpt-4o-transcribe", stream=True)
    for event in events:
        if event.type == "transcript.text.delta":
            print(event.delta, end="", flush=True)
        elif event.type == "transcript.text.done":
            print()
            return
    sys.exit("stream.py: the stream ended before its last event")


if __name__ == "__main__":
    try:
        main()
    except (OSError, openai.APIError) as exc:
        sys.exit(f"stream.py: {exc}")
