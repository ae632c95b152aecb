// The official Node client: files, events, and a realtime session, which insists on wss.
import fs from "node:fs";
const [url, speech, pauses] = process.argv.slice(2);

// configure:
import OpenAI from "openai";
import { OpenAIRealtimeWS } from "openai/realtime/ws";
import net from "node:net";

const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "none" });
// The client rewrites the address to wss. Without TLS in front of the service, give it a plain connection:
const plain = { createConnection: (to) => net.connect(to.port, to.host) };
const realtime = new OpenAIRealtimeWS({ model: "gpt-4o-transcribe", options: plain }, client);
// end

const said = (name, text) => console.log(`${name}\t${text}`);
const file = () => fs.createReadStream(speech);
said("file", (await client.audio.transcriptions.create({ model: "whisper-1", file: file() })).text);
let text = "";
const events = await client.audio.transcriptions.create({ model: "gpt-4o-transcribe", file: file(), stream: true });
for await (const event of events) text += event.delta ?? "";
said("events", text);

const sound = fs.readFileSync(pauses).subarray(44);
realtime.on("error", (error) => { said("realtime", error.message); process.exit(1); });
realtime.on("conversation.item.input_audio_transcription.completed", (event) => {
  said("realtime", event.transcript);
  realtime.close();
});
const talk = () => {
  const input = { turn_detection: null, transcription: { model: "gpt-4o-transcribe" } };
  realtime.send({ type: "session.update", session: { type: "transcription", audio: { input } } });
  for (let at = 0; at < sound.length; at += 4800)
    realtime.send({ type: "input_audio_buffer.append", audio: sound.subarray(at, at + 4800).toString("base64") });
  realtime.send({ type: "input_audio_buffer.commit" });
};
if (realtime.socket.readyState === 1) talk();
else realtime.socket.on("open", talk);
