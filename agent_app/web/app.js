// What a person does on the page; what comes of it is in page/, a module a topic.

import { voidApprovals } from "./page/approvals.js";
import { $ } from "./page/dom.js";
import { showUser } from "./page/messages.js";
import { enter, rememberedKey, rememberKey, signOut } from "./page/session.js";
import { state } from "./page/state.js";
import { deleteThread, hashThread, listThreads, openList, openThread } from "./page/threads.js";
import { complain, stop, talk } from "./page/turn.js";
import { openUsage } from "./page/usage.js";

function grow() {
  const box = $("message");
  box.style.height = "auto";
  box.style.height = `${box.scrollHeight + 2}px`;
}

$("key-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  state.key = $("key").value.trim();
  const remember = $("remember").checked;
  if (await enter()) {
    rememberKey(remember);
    $("key").value = "";
  }
});

$("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  const message = $("message").value.trim();
  if (!message || state.running) return;
  $("message").value = "";
  grow();
  voidApprovals();
  showUser(message);
  talk({ message });
});

$("message").addEventListener("input", grow);
$("message").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  $("ask").requestSubmit();
});

document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || $("usage").open) return; // which closes by it
  stop();
  openList(false);
});

$("stop").addEventListener("click", stop);
$("new-thread").addEventListener("click", () => openThread(""));
$("more-threads").addEventListener("click", () => listThreads(true).catch(complain));
$("delete-thread").addEventListener("click", deleteThread);
$("open-usage").addEventListener("click", openUsage);
$("close-usage").addEventListener("click", () => $("usage").close());
$("sign-out").addEventListener("click", () => signOut());
$("open-threads").addEventListener("click", () => {
  openList(!$("threads").classList.contains("open"));
});
$("thread-list").addEventListener("click", () => openList(false));
$("skip").addEventListener("click", (event) => {
  event.preventDefault(); // the fragment names the conversation
  $("message").focus();
});
addEventListener("popstate", () => openThread(hashThread()));

state.key = rememberedKey();
if (state.key) enter();
else signOut();
