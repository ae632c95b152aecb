// The microphone as int16 samples, in a rate that /v1/realtime takes.

import { address } from "./api.js";

export const RATE = 24_000; // Hz; OpenAI's

/** Open the microphone. onPart: called with {samples, peak} every 40 ms. Returns {rate, close}. Throws an Error whose
    message is a sentence. */
export async function openMicrophone(onPart) {
  if (!navigator.mediaDevices) {
    throw new Error(`Browsers give the microphone to pages over https or on this machine only, and ${location.origin} is neither.`);
  }
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({
      audio: { channelCount: 1, echoCancellation: false, noiseSuppression: false, autoGainControl: true },
    });
  } catch (error) {
    throw new Error(error.name === "NotAllowedError" ? "The microphone is not allowed for this page." : "No microphone was found.");
  }
  let context = new AudioContext({ sampleRate: RATE });
  let source;
  try {
    source = context.createMediaStreamSource(stream);
  } catch {
    await context.close(); // a browser that does not resample a microphone: the service does
    context = new AudioContext();
    source = context.createMediaStreamSource(stream);
  }
  await context.audioWorklet.addModule(address("page/worklet.js"));
  await context.resume();
  const node = new AudioWorkletNode(context, "capture", { numberOfOutputs: 0, channelCount: 1, channelCountMode: "explicit" });
  node.port.onmessage = ({ data }) => onPart(data);
  source.connect(node);
  return {
    rate: context.sampleRate,
    close() {
      stream.getTracks().forEach((track) => track.stop());
      node.port.onmessage = null;
      return context.close();
    },
  };
}
