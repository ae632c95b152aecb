"""Shows what keywords[] change: transcribes a noisy recording without and with words to listen for.

python examples/keywords.py [--url http://127.0.0.1:3000] [FILE KEYWORD ...]
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from pathlib import Path

import numpy as np
import openai
import soundfile

SAMPLE = Path(__file__).parents[1] / "models/parakeet-tdt-tiny/samples/two-sentences.flac"
SAMPLE_KEYWORDS = ["left once more"]


def with_noise(path: Path) -> bytes:
    """The recording as wav, with white noise at half its level: without noise the sample is understood anyway."""
    sound, rate = soundfile.read(path, dtype="float32")
    noise = np.random.default_rng(5).normal(0, np.sqrt(np.mean(sound**2)) / 2, len(sound))
    wav = io.BytesIO()
    soundfile.write(wav, sound + noise.astype("float32"), rate, format="WAV", subtype="FLOAT")
    return wav.getvalue()


def main() -> None:
    """Print both transcripts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:3000", help="of the service")
    parser.add_argument("file", nargs="?", type=Path)
    parser.add_argument("keywords", nargs="*", default=SAMPLE_KEYWORDS)
    arguments = parser.parse_args()

    audio = arguments.file.read_bytes() if arguments.file else with_noise(SAMPLE)
    client = openai.OpenAI(base_url=f"{arguments.url}/v1", api_key=os.environ.get("OPENAI_API_KEY", "none"))
    phrases: list[list[str]] = [[], arguments.keywords]
    for keywords in phrases:
        # Older versions of the client have no parameter `keywords`; extra_body works with all. It sends keywords[].
        transcript = client.audio.transcriptions.create(
            file=("audio.wav", audio), model="whisper-1", extra_body={"keywords": keywords}
        )
        print(f"{', '.join(keywords) or 'no keywords'}: {transcript.text}")


if __name__ == "__main__":
    try:
        main()
    except (OSError, openai.APIError) as exc:
        sys.exit(f"keywords.py: {exc}")
