// A turn: what was asked goes out, its answer comes in; it can be stopped and can go on.

import { showWaiting } from "./approvals.js";
import { $, toEnd } from "./dom.js";
import { notice } from "./messages.js";
import { Reply } from "./reply.js";
import { ask, events, post, Refusal } from "./server.js";
import { signOut } from "./session.js";
import { state } from "./state.js";
import { listThreads, openThread, setThread } from "./threads.js";

// The same message again, or `resume`, goes on with a turn that was not finished.
export function goingOn(body, reply) {
  return { name: "Go on", run: () => talk(body, reply?.again()) };
}

export async function talk(body, reply = new Reply()) {
  if (state.running) return;
  const running = (state.running = new AbortController());
  showRunning(true);
  notice("");
  toEnd();
  try {
    setThread(state.thread || crypto.randomUUID());
    const response = await post({ ...body, thread_id: state.thread }, running.signal);
    await hear(response, reply);
  } catch (error) {
    if (running.left) return;
    if (running.signal.aborted) notice("Stopped.", goingOn(body, reply));
    else complain(error, goingOn(body, reply));
  } finally {
    reply.end();
    if (state.running === running) {
      state.running = null;
      showRunning(false);
    }
  }
  $("spoken").textContent = reply.spoken();
  showWaiting(reply);
  await listThreads().catch(() => {});
}

async function hear(response, reply) {
  for await (const [name, data] of events(response)) {
    if (name === "done") return;
    if (name === "error") throw new Refusal(200, data);
    if (["queued", "token", "tool", "approval", "retract", "usage"].includes(name)) reply[name](data);
  }
  throw new Refusal(0, { message: "the connection ended before the answer did", retryable: true });
}

export function complain(error, action) {
  if (error.status === 401 || error.status === 403) {
    signOut(error.message);
    return;
  }
  const words = error.message.charAt(0).toUpperCase() + error.message.slice(1);
  notice(`${words}.`, error.retryable ? action : undefined);
}

export function stop() {
  state.running?.abort(); // leaving its stream ends the run
}

export async function stopElsewhere() {
  const id = state.thread;
  try {
    await ask(`/threads/${id}/stop`, { method: "POST" });
    if (state.thread === id) await openThread(id);
  } catch (error) {
    complain(error);
  }
}

export function leave() {
  if (!state.running) return;
  state.running.left = true;
  state.running.abort();
  state.running = null;
  showRunning(false);
}

function showRunning(on) {
  const focused = document.activeElement === $("stop");
  $("send").hidden = on;
  $("stop").hidden = !on;
  if (focused && !on) $("message").focus();
}
