// Sends one file and reads the events of its transcription.

import { Failure, address, authorization, nobody, toFailure } from "./api.js";

/** Transcribe a file. tellsSpeakers: whether to ask who says what. Calls onUpload(share) and onEvent(event); resolves after the last event, rejects with Failure.

    XMLHttpRequest, because fetch does not tell how much of a body has been sent. The file is read from the disk while
    it is sent. */
export function transcribe(file, { language, keywords, tellsSpeakers, signal, onUpload, onEvent }) {
  const form = new FormData();
  form.append("model", tellsSpeakers ? "gpt-4o-transcribe-diarize" : "gpt-4o-transcribe"); // whisper-1 streams nothing
  form.append("response_format", tellsSpeakers ? "diarized_json" : "verbose_json");
  form.append("stream", "true");
  form.append("timestamp_granularities[]", "word");
  form.append("timestamp_granularities[]", "segment");
  form.append("include[]", "logprobs");
  if (language) form.append("language", language);
  for (const keyword of keywords) form.append("keywords[]", keyword);
  form.append("file", file, file.name);

  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    const header = (name) => request.getResponseHeader(name);
    let at = 0; // characters of the answer that have been read
    let isDone = false;
    let failure;

    const read = () => {
      if (request.status !== 200 || failure) return;
      const text = request.responseText;
      for (let end; (end = text.indexOf("\n\n", at)) >= 0; at = end + 2) {
        const event = JSON.parse(text.slice(at + "data: ".length, end));
        if (event.error) {
          failure = new Failure(event.error.message, { status: 400, requestId: header("x-request-id") ?? "" });
        } else {
          isDone ||= event.type === "transcript.text.done";
          onEvent(event);
        }
      }
    };

    request.open("POST", address("v1/audio/transcriptions"));
    for (const [name, value] of Object.entries(authorization())) request.setRequestHeader(name, value);
    request.upload.onprogress = ({ loaded, total }) => onUpload(total ? loaded / total : 0);
    request.upload.onload = () => onUpload(1);
    request.onprogress = read;
    request.onload = () => {
      read();
      if (request.status !== 200) reject(toFailure(request.status, request.responseText, header));
      else if (failure) reject(failure);
      else if (isDone) resolve();
      else reject(nobody());
    };
    request.onerror = () => {
      read();
      reject(failure ?? nobody());
    };
    request.onabort = () => reject(signal.reason);
    signal.addEventListener("abort", () => request.abort());
    request.send(form);
  });
}
