// Signing in with a key, which is kept for the tab or, where one ticks it, for the browser.

import { $ } from "./dom.js";
import { state } from "./state.js";
import { hashThread, listThreads, openThread } from "./threads.js";
import { complain, leave } from "./turn.js";

const KEY = "rackhand-key";

export function rememberedKey() {
  return sessionStorage.getItem(KEY) || localStorage.getItem(KEY) || "";
}

export function rememberKey(lasting) {
  (lasting ? localStorage : sessionStorage).setItem(KEY, state.key);
}

export function signOut(why = "") {
  leave();
  sessionStorage.removeItem(KEY);
  localStorage.removeItem(KEY);
  state.key = "";
  $("usage").close();
  $("usage-body").replaceChildren();
  $("messages").replaceChildren();
  $("thread-list").replaceChildren();
  $("chat").hidden = true;
  $("sign-in").hidden = false;
  $("key-error").textContent = why;
  $("key").focus();
}

export async function enter() {
  const problem = await listThreads().catch((error) => error);
  if (problem && (problem.status === 401 || problem.status === 403)) {
    signOut(problem.message);
    return false;
  }
  $("sign-in").hidden = true;
  $("chat").hidden = false;
  await openThread(hashThread());
  if (problem) complain(problem);
  return Boolean(state.key);
}
