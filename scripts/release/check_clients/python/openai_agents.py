"""The OpenAI Agents SDK: its speech-to-text model of voice pipelines, for a recording and for a stream."""

from __future__ import annotations

import asyncio
import sys
import wave

# configure:
from agents.voice.models.openai_stt import OpenAISTTModel
from openai import AsyncOpenAI

client = AsyncOpenAI(base_url=f"{sys.argv[1]}/v1", api_key="none")
model = OpenAISTTModel("gpt-4o-transcribe", client)  # of a VoicePipeline: stt_model=model
# end

import numpy as np
from agents.voice import AudioInput, StreamedAudioInput, STTModelSettings


async def main() -> None:
    with wave.open(sys.argv[3]) as file:
        sound = np.frombuffer(file.readframes(file.getnframes()), np.int16)
    arguments = STTModelSettings(), False, False
    print("recording", await model.transcribe(AudioInput(buffer=sound, frame_rate=24_000), *arguments), sep="\t")
    stream = StreamedAudioInput()
    session = await model.create_session(stream, *arguments)

    async def talk() -> None:
        for at in range(0, len(sound), 2400):
            await stream.add_audio(sound[at : at + 2400])
            await asyncio.sleep(0.02)
        await stream.add_audio(None)

    talking = asyncio.create_task(talk())
    texts = [text async for text in session.transcribe_turns()]
    await talking
    await session.close()
    print("stream, semantic_vad", " ".join(texts), sep="\t")


asyncio.run(main())
