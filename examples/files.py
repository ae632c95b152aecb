"""Shows how to transcribe files with OpenAI's client: the text, and each word with its times.

python examples/files.py [--url http://127.0.0.1:3000] [FILE ...]
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import openai

SAMPLE = Path(__file__).parents[1] / "models/parakeet-tdt-tiny/samples/short.flac"


def main() -> None:
    """Transcribe each file and print its words."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:3000", help="of the service")
    parser.add_argument("files", nargs="*", type=Path, default=[SAMPLE])
    arguments = parser.parse_args()

    client = openai.OpenAI(base_url=f"{arguments.url}/v1", api_key=os.environ.get("OPENAI_API_KEY", "none"))
    for path in arguments.files:
        transcript = client.audio.transcriptions.create(
            file=path,
            model="whisper-1",  # any of OpenAI's names means the served model
            response_format="verbose_json",
            timestamp_granularities=["word"],
        )
        print(f"{path.name}: {transcript.text}")
        for word in transcript.words or ():
            print(f"{word.start:8.2f} – {word.end:6.2f}  {word.word}")


if __name__ == "__main__":
    try:
        main()
    except (OSError, openai.APIError) as exc:
        sys.exit(f"files.py: {exc}")
