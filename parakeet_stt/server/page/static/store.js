// What is kept in the browser: finished transcripts with their audio, and the captions of the microphone. Nothing of it
// is on the server.

const NAME = "parakeet";
const MAX_AUDIO = 200e6; // bytes: a larger file is kept without its audio

let opening;
function open() {
  opening ??= new Promise((resolve, reject) => {
    const request = indexedDB.open(NAME, 1);
    request.onupgradeneeded = () => {
      request.result.createObjectStore("files", { keyPath: "id" });
      request.result.createObjectStore("live");
    };
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
  return opening;
}

async function run(store, mode, work) {
  const database = await open();
  return new Promise((resolve, reject) => {
    const transaction = database.transaction(store, mode);
    const request = work(transaction.objectStore(store));
    transaction.oncomplete = () => resolve(request.result);
    transaction.onerror = transaction.onabort = () => reject(transaction.error ?? request.error);
  });
}

/** All finished files, the newest first; none where the browser keeps nothing (a private window, say). */
export async function loadFiles() {
  try {
    const found = await run("files", "readonly", (store) => store.getAll());
    return found.sort((one, other) => other.date - one.date);
  } catch {
    return [];
  }
}

/** Keep a finished file; without its audio if that is large, or the browser has no room. */
export async function saveFile({ audio, ...record }) {
  try {
    const kept = audio && audio.size <= MAX_AUDIO ? { ...record, audio } : record;
    await run("files", "readwrite", (store) => store.put(kept));
  } catch {
    await run("files", "readwrite", (store) => store.put(record)).catch(() => {});
  }
}

export const removeFile = (id) => run("files", "readwrite", (store) => store.delete(id)).catch(() => {});

export const loadLive = () => run("live", "readonly", (store) => store.get("last")).catch(() => undefined);
export const saveLive = (captions) => run("live", "readwrite", (store) => store.put(captions, "last")).catch(() => {});
