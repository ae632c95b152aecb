// AI SDK 7: transcribe, and streamTranscribe, which commits by itself.
import fs from "node:fs";
import WebSocket from "ws";
const [url, speech, pauses] = process.argv.slice(2);

// configure:
import { createOpenAI } from "@ai-sdk/openai";
import { experimental_streamTranscribe as streamTranscribe, transcribe } from "ai";

const openai = createOpenAI({ baseURL: `${url}/v1`, apiKey: "none", webSocket: WebSocket }); // ws: for Node before 22
// end

for (const model of ["gpt-4o-transcribe", "whisper-1"]) {
  const { text } = await transcribe({ model: openai.transcription(model), audio: fs.readFileSync(speech) });
  console.log(`${model}\t${text}`);
}
const sound = fs.readFileSync(pauses).subarray(44);
const audio = new ReadableStream({
  start(controller) {
    for (let at = 0; at < sound.length; at += 4800) controller.enqueue(new Uint8Array(sound.subarray(at, at + 4800)));
    controller.close();
  },
});
const model = openai.transcription("gpt-live-transcribe");
const result = streamTranscribe({ model, audio, inputAudioFormat: { type: "audio/pcm", rate: 24000 } });
console.log(`streamTranscribe\t${await result.text}`);
