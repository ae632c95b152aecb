"""The official Python client: files, events, and realtime sessions."""

from __future__ import annotations

import base64
import sys
import wave

# configure:
from openai import OpenAI

client = OpenAI(base_url=f"{sys.argv[1]}/v1", api_key="none")
# end

_, _, speech, pauses, conversation = sys.argv


def realtime(**audio_input: object) -> str:
    with wave.open(pauses) as file:
        sound = file.readframes(file.getnframes())
    with client.realtime.connect(extra_query={"intent": "transcription"}) as connection:
        connection.session.update(session={"type": "transcription", "audio": {"input": audio_input}})
        for at in range(0, len(sound), 4800):
            connection.input_audio_buffer.append(audio=base64.b64encode(sound[at : at + 4800]).decode())
        connection.input_audio_buffer.commit()
        for event in connection:
            if event.type == "error":
                return event.error.message
            if event.type.endswith("transcription.completed") and event.transcript:
                return event.transcript
    return ""


with open(speech, "rb") as file:
    print("file", client.audio.transcriptions.create(model="whisper-1", file=file).text, sep="\t")
with open(speech, "rb") as file:
    verbose = client.audio.transcriptions.create(
        model="whisper-1", file=file, response_format="verbose_json", timestamp_granularities=["word"]
    )
    print("words", " ".join(word.word for word in verbose.words), sep="\t")
with open(speech, "rb") as file:
    events = client.audio.transcriptions.create(model="gpt-4o-transcribe", file=file, stream=True)
    print("events", "".join(event.delta for event in events if event.type.endswith("delta")), sep="\t")
speakers = {"model": "gpt-4o-transcribe-diarize", "response_format": "diarized_json", "chunking_strategy": "auto"}
with open(conversation, "rb") as file:
    diarized = client.audio.transcriptions.create(file=file, **speakers)
assert {segment.speaker for segment in diarized.segments} == {"A", "B"}
print("speakers", " ".join(segment.text for segment in diarized.segments), sep="\t")
with open(conversation, "rb") as file:
    events = list(client.audio.transcriptions.create(file=file, stream=True, **speakers))
segments = [event for event in events if event.type == "transcript.text.segment"]
assert {segment.speaker for segment in segments} == {"A", "B"}
assert events[-1].type == "transcript.text.done"
print("events with speakers", events[-1].text, sep="\t")
print("realtime, commits", realtime(turn_detection=None), sep="\t")
print("realtime, server_vad", realtime(turn_detection={"type": "server_vad"}), sep="\t")
