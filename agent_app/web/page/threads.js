// The list of conversations, and the one that is open: its id is the address's fragment.

import { showPending } from "./approvals.js";
import { $, make } from "./dom.js";
import { notice, showEmpty, showThread } from "./messages.js";
import { ask, askJson } from "./server.js";
import { state } from "./state.js";
import { complain, goingOn, leave, stopElsewhere } from "./turn.js";

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

export function setThread(id) {
  state.thread = id;
  $("delete-thread").hidden = !id;
  const wanted = id ? `#${id}` : "";
  if (location.hash !== wanted) history.pushState(null, "", wanted || location.pathname);
  markThread();
}

function markThread() {
  let title = "New conversation";
  for (const item of $("thread-list").querySelectorAll("a")) {
    const here = item.dataset.id === state.thread;
    if (here) {
      item.setAttribute("aria-current", "page");
      title = item.textContent;
    } else item.removeAttribute("aria-current");
  }
  $("title").textContent = title;
}

export async function listThreads(more = false) {
  const query = more && state.cursor ? `?cursor=${encodeURIComponent(state.cursor)}` : "";
  const page = await askJson(`/threads${query}`);
  const items = page.threads.map(({ id, title }) => {
    const item = make("a", { href: `#${id}`, title }, title || "Untitled");
    item.dataset.id = id;
    return make("li", {}, item);
  });
  if (more) $("thread-list").append(...items);
  else $("thread-list").replaceChildren(...items);
  state.cursor = page.next_cursor;
  $("more-threads").hidden = !page.next_cursor;
  markThread();
}

export async function openThread(id) {
  leave();
  notice("");
  setThread(id);
  openList(false);
  if (!id) {
    showEmpty();
    $("message").focus();
    return;
  }
  try {
    const thread = await askJson(`/threads/${id}`);
    if (state.thread !== id) return;
    const reply = showThread(thread) || undefined;
    $("title").textContent = thread.title || "Untitled";
    if (thread.status === "interrupted") {
      notice("The last answer was not finished.", goingOn({ resume: true }, reply));
    } else if (thread.status === "waiting" && reply) {
      await showPending(id, reply);
      return;
    } else if (thread.status === "running") {
      notice("An answer is under way elsewhere.", { name: "Stop it", run: stopElsewhere });
    }
    $("message").focus();
  } catch (error) {
    if (error.status === 404) {
      setThread("");
      showEmpty();
      notice("That conversation is not there any more.");
    } else complain(error);
  }
}

export async function deleteThread() {
  const id = state.thread;
  if (!id || !confirm("Delete this conversation for good?")) return;
  try {
    await ask(`/threads/${id}`, { method: "DELETE" });
    await openThread("");
    await listThreads();
  } catch (error) {
    complain(error);
  }
}

export function openList(open) {
  $("threads").classList.toggle("open", open);
  $("open-threads").setAttribute("aria-expanded", String(open));
}

export function hashThread() {
  const id = location.hash.slice(1);
  return UUID.test(id) ? id : "";
}
