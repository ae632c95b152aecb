// AI SDK 6: transcribe, with the two kinds of requests that it makes.
import fs from "node:fs";
const [url, speech] = process.argv.slice(2);

// configure:
import { createOpenAI } from "@ai-sdk/openai";
import { experimental_transcribe as transcribe } from "ai";

const openai = createOpenAI({ baseURL: `${url}/v1`, apiKey: "none" });
// end

for (const model of ["gpt-4o-transcribe", "whisper-1"]) {
  const providerOptions = { openai: { timestampGranularities: ["segment"] } };
  const { text } = await transcribe({ model: openai.transcription(model), audio: fs.readFileSync(speech), providerOptions });
  console.log(`${model}\t${text}`);
}
