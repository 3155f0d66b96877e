// Talks to the service. Every failure is an Error with `status` (0: no connection) and, for 429 and 503, `retryAfter`.

import { remember } from "./memory.js";

const key = remember("sessionStorage", "genrec.key");

export function setKey(value) {
  key.set(value);
}

function headers(extra = {}) {
  const given = key.get();
  return given ? { ...extra, Authorization: `Bearer ${given}` } : extra;
}

async function failure(response) {
  const problem = await response.json().catch(() => ({}));
  const error = new Error(problem.detail || response.statusText);
  error.status = response.status;
  error.retryAfter = Number(response.headers.get("Retry-After")) || 1;
  return error;
}

async function connect(path, options) {
  try {
    return await fetch(path, options);
  } catch (cause) {
    if (cause.name === "AbortError") throw cause;
    throw lost();
  }
}

function lost() {
  return Object.assign(new Error("The connection was lost."), { status: 0, retryAfter: 1 });
}

export async function get(path) {
  const response = await connect(path, { headers: headers() });
  if (!response.ok) throw await failure(response);
  return response.json();
}

export async function post(path, body) {
  const options = { method: "POST", headers: headers({ "Content-Type": "application/json" }), body: JSON.stringify(body) };
  const response = await connect(path, options);
  if (!response.ok) throw await failure(response);
  return response.json();
}

// Pictures go through fetch, so that the key can go with them.
export async function picture(path) {
  const response = await connect(path, { headers: headers() });
  if (!response.ok) throw await failure(response);
  return URL.createObjectURL(await response.blob());
}

// Posts and yields [event, data] for each server-sent event. A stream that ends before "turn" was cut off.
export async function* stream(path, body) {
  const sent = headers({ "Content-Type": "application/json", Accept: "text/event-stream" });
  const response = await connect(path, { method: "POST", headers: sent, body: JSON.stringify(body) });
  if (!response.ok) throw await failure(response);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    let part;
    try {
      part = await reader.read();
    } catch {
      throw lost();
    }
    if (part.done) throw lost();
    text += part.value;
    const events = text.split("\n\n");
    text = events.pop();
    for (const event of events) {
      const [, name, data] = event.match(/^event: (.*)\ndata: (.*)$/s);
      const values = JSON.parse(data);
      if (name === "problem") {
        throw Object.assign(new Error(values.detail), { status: values.status, retryAfter: 1 });
      }
      yield [name, values];
      if (name === "turn") return;
    }
  }
}
