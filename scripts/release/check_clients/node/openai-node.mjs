// The official Node client: files, events, speakers, and a realtime session, which insists on wss.
import assert from "node:assert/strict";
import fs from "node:fs";
const [url, speech, pauses, conversation] = process.argv.slice(2);

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

const speakers = { model: "gpt-4o-transcribe-diarize", response_format: "diarized_json", chunking_strategy: "auto" };
const diarize = (more) =>
  client.audio.transcriptions.create({ file: fs.createReadStream(conversation), ...speakers, ...more });
const check = (segments) => {
  assert.deepEqual([...new Set(segments.map((one) => one.speaker))].sort(), ["A", "B"]);
  for (const one of segments) {
    assert.deepEqual(Object.keys(one).sort(), ["end", "id", "speaker", "start", "text", "type"]);
    assert.equal(one.type, "transcript.text.segment");
    assert.ok(one.end > one.start);
  }
  return segments.map((one) => one.text).join(" ");
};
const body = await diarize();
assert.deepEqual([body.task, body.text, body.usage.type], ["transcribe", check(body.segments), "tokens"]);
said("speakers", body.text);
const seen = { "transcript.text.segment": [], "transcript.text.delta": [], "transcript.text.done": [] };
for await (const event of await diarize({ stream: true })) seen[event.type].push(event);
const [done] = seen["transcript.text.done"];
const deltas = seen["transcript.text.delta"];
assert.equal(check(seen["transcript.text.segment"]), done.text);
assert.equal(deltas.map((one) => one.delta).join(""), done.text);
assert.deepEqual(deltas.map((one) => one.segment_id), seen["transcript.text.segment"].map((one) => one.id));
said("events with speakers", done.text);

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
