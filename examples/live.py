"""Shows live captions over /v1/realtime: sends a recording as a microphone would, prints words as they come.

python examples/live.py [--url http://127.0.0.1:3000] [FILE]        # wav or flac
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import os
from pathlib import Path
from typing import Any

import numpy as np
import openai
import soundfile

SAMPLE = Path(__file__).parents[1] / "models/parakeet-tdt-tiny/samples/two-sentences.flac"


async def caption(url: str, file: Path) -> None:
    sound, rate = soundfile.read(file, dtype="int16", always_2d=True)
    mono = np.concatenate([sound.mean(axis=1), np.zeros(rate)]).astype("<i2")  # a second of silence ends the speech
    client = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=os.environ.get("OPENAI_API_KEY", "none"))
    async with client.realtime.connect(extra_query={"intent": "transcription"}) as connection:
        # OpenAI's own service takes 24,000 Hz only; this one takes 8,000 to 48,000 Hz.
        session: Any = {"type": "transcription", "audio": {"input": {"format": {"type": "audio/pcm", "rate": rate}}}}
        await connection.session.update(session=session)
        all_sent, unfinished = asyncio.Event(), set[str]()  # items that have a `committed` and no `completed` yet

        async def send() -> None:  # chunks of 0.1 s
            for chunk in np.array_split(mono, round(10 * len(mono) / rate)):
                await connection.input_audio_buffer.append(audio=base64.b64encode(chunk.tobytes()).decode())
                await asyncio.sleep(0.1)
            all_sent.set()
            await connection.input_audio_buffer.commit()

        sending = asyncio.create_task(send())
        async for event in connection:
            if event.type == "input_audio_buffer.committed":
                unfinished.add(event.item_id)
            elif event.type == "conversation.item.input_audio_transcription.delta":
                print(f"  … {(event.delta or '').strip()}", flush=True)
            elif event.type == "conversation.item.input_audio_transcription.completed":
                unfinished.discard(event.item_id)
                print(event.transcript or "(silence)", flush=True)
                if all_sent.is_set() and not unfinished:
                    return await sending
            elif event.type == "error" or event.type == "conversation.item.input_audio_transcription.failed":
                raise SystemExit(f"live.py: {event.error.message}")
    raise SystemExit("live.py: the service closed the session")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:3000", help="of the service")
    parser.add_argument("file", nargs="?", type=Path, default=SAMPLE)
    asyncio.run(caption(**vars(parser.parse_args())))
