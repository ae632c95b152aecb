"""LiveKit Agents with the OpenAI plugin: a file, and streams whose turns the server or LiveKit's own detector ends."""

from __future__ import annotations

import asyncio
import sys
import wave

# configure:
from livekit.plugins import openai

OPTIONS = {"base_url": f"{sys.argv[1]}/v1", "api_key": "none"}
stt = openai.STT(model="gpt-live-transcribe", **OPTIONS)
# end

from livekit import rtc
from livekit.agents import stt as agents_stt
from livekit.agents.utils import http_context


def frames() -> list[rtc.AudioFrame]:
    with wave.open(sys.argv[3]) as file:
        data, rate = file.readframes(file.getnframes()), file.getframerate()
    step = rate // 50 * 2
    return [rtc.AudioFrame(data[at : at + step], rate, 1, len(data[at : at + step]) // 2)
            for at in range(0, len(data), step)]  # fmt: skip


async def hear(name: str, used: openai.STT) -> None:
    """Play the recording twice, in real time, as LiveKit sends a room's sound, and print the text of each time."""
    stream, texts = used.stream(), []

    async def listen() -> None:
        async for event in stream:
            if event.type == agents_stt.SpeechEventType.FINAL_TRANSCRIPT:
                texts.append(event.alternatives[0].text)

    listening = asyncio.create_task(listen())
    for _ in range(2):
        for frame in frames():
            stream.push_frame(frame)
            await asyncio.sleep(0.02)
    for _ in range(100):
        await asyncio.sleep(0.1)
        if len(texts) == 2 or listening.done():
            break
    if listening.done():
        await listening  # raises what ended it
    await stream.aclose()
    for text in texts:
        print(name, text, sep="\t")


async def main() -> None:
    async with http_context.open():
        file = openai.STT(model="whisper-1", use_realtime=False, **OPTIONS)
        event = await file.recognize(frames())
        print("file", event.alternatives[0].text, sep="\t")
        await hear("stream, its own detector", stt)
        vad = openai.STT(model="gpt-4o-transcribe", use_realtime=True, **OPTIONS)
        await hear("stream, server_vad", vad)


asyncio.run(main())
