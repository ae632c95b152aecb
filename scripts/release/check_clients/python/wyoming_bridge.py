"""wyoming-openai, the bridge of Home Assistant: whole recordings, events, and realtime sessions."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import wave

with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    PORT = probe.getsockname()[1]
# configure:
COMMAND = [
    "python", "-m", "wyoming_openai", "--uri", f"tcp://127.0.0.1:{PORT}", "--languages", "en",
    "--stt-openai-url", f"{sys.argv[1]}/v1", "--stt-openai-key", "none",
    "--stt-models", "whisper-1", "--stt-streaming-models", "gpt-4o-transcribe",
    "--stt-realtime-models", "gpt-realtime-whisper",
]  # fmt: skip
# end

from wyoming.asr import Transcribe, Transcript
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.client import AsyncTcpClient


async def heard(model: str) -> str:
    with wave.open(sys.argv[3]) as file:
        data = file.readframes(file.getnframes())
    async with AsyncTcpClient("127.0.0.1", PORT) as client:
        await client.write_event(Transcribe(name=model, language="en").event())
        await client.write_event(AudioStart(24_000, 2, 1).event())
        for at in range(0, len(data), 4800):
            await client.write_event(AudioChunk(24_000, 2, 1, data[at : at + 4800]).event())
        await client.write_event(AudioStop().event())
        while (event := await asyncio.wait_for(client.read_event(), 60)) is not None:
            if Transcript.is_type(event.type):
                return Transcript.from_event(event).text
    return ""


async def until_it_listens() -> None:
    for _ in range(300):
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", PORT)
        except OSError:
            await asyncio.sleep(0.1)
        else:
            writer.close()
            return


async def main() -> None:
    await until_it_listens()
    for model in ("whisper-1", "gpt-4o-transcribe", "gpt-realtime-whisper"):
        print(model, await heard(model), sep="\t")


bridge = subprocess.Popen([sys.executable, *COMMAND[1:]], stdout=sys.stderr)
try:
    asyncio.run(main())
finally:
    bridge.terminate()
