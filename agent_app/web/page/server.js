// The server: requests with the key, refusals as errors, streams as events.

import { state } from "./state.js";

export class Refusal extends Error {
  constructor(status, error) {
    super(error.message || `the server answers ${status}`);
    this.status = status;
    this.retryable = Boolean(error.retryable);
  }
}

export async function ask(path, options = {}) {
  const headers = { Authorization: `Bearer ${state.key}`, ...options.headers };
  let response;
  try {
    response = await fetch(path, { ...options, headers, cache: "no-store" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal(0, { message: "the server cannot be reached", retryable: true });
  }
  if (response.ok) return response;
  const body = await response.json().catch(() => ({}));
  throw new Refusal(response.status, body.error || {});
}

export async function askJson(path, options) {
  return (await ask(path, options)).json();
}

export function post(body, signal) {
  const headers = { "Content-Type": "application/json" };
  return ask("/chat", { method: "POST", headers, body: JSON.stringify(body), signal });
}

export async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const blocks = (rest + value).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const name = block.match(/^event: (.*)$/m);
      const data = block.match(/^data: (.*)$/m);
      if (name && data) yield [name[1], JSON.parse(data[1])];
    }
  }
}
