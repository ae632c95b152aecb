"""Pipecat: the service for segments, and the realtime service, whose turns a detector in the pipeline ends."""

from __future__ import annotations

import asyncio
import sys
import wave

# configure:
from pipecat.services.openai.stt import OpenAIRealtimeSTTService, OpenAISTTService

segments = OpenAISTTService(base_url=f"{sys.argv[1]}/v1", api_key="none")
realtime = OpenAIRealtimeSTTService(base_url=f"{sys.argv[1].replace('http', 'ws')}/v1/realtime", api_key="none")
# end

from pipecat.frames.frames import (
    EndFrame,
    Frame,
    InputAudioRawFrame,
    TranscriptionFrame,
    VADUserStartedSpeakingFrame,
    VADUserStoppedSpeakingFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.runner import PipelineRunner
from pipecat.pipeline.task import PipelineParams, PipelineTask
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor

RATE = 24_000


class Collector(FrameProcessor):
    """Keeps the texts of final transcriptions."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, TranscriptionFrame):
            self.texts.append(frame.text)
        await self.push_frame(frame, direction)


async def heard(service: FrameProcessor) -> str:
    collector = Collector()
    task = PipelineTask(Pipeline([service, collector]), params=PipelineParams(audio_in_sample_rate=RATE))
    with wave.open(sys.argv[3]) as file:
        data = file.readframes(file.getnframes())

    async def talk() -> None:
        await asyncio.sleep(1)
        await task.queue_frame(VADUserStartedSpeakingFrame())
        for at in range(0, len(data), RATE // 25):
            await task.queue_frame(InputAudioRawFrame(data[at : at + RATE // 25], RATE, 1))
            await asyncio.sleep(0.01)
        await task.queue_frame(VADUserStoppedSpeakingFrame())
        for _ in range(150):
            await asyncio.sleep(0.1)
            if collector.texts:
                break
        await task.queue_frame(EndFrame())

    await asyncio.gather(PipelineRunner(handle_sigint=False).run(task), talk())
    return " ".join(collector.texts)


async def main() -> None:
    print("segments", await heard(segments), sep="\t")
    print("realtime, commits", await heard(realtime), sep="\t")


asyncio.run(main())
