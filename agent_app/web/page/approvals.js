// Calls that a person must allow: a box each, and the turn goes on once all are decided.

import { $, make, scroll, toEnd } from "./dom.js";
import { notice } from "./messages.js";
import { ask, askJson } from "./server.js";
import { state } from "./state.js";
import { goingOn, talk } from "./turn.js";

// What is shown is the very text that runs: JSON.parse would round numbers and hide characters.
export function approvalBox(name, given, decide) {
  const outcome = make("p", { className: "state" });
  outcome.setAttribute("role", "status");
  const note = make("input", { type: "text", maxLength: 500, autocomplete: "off" });
  const buttons = [["Approve", "approve", "primary"], ["Deny", "deny", ""]].map(([text, how, kind]) => {
    const button = make("button", { type: "button", className: kind }, text);
    button.addEventListener("click", () => decide(how, note.value.trim()));
    return button;
  });
  const long = given.length > 600 ? ` (${given.length} characters, scroll to read all)` : "";
  const box = make("div", { className: "approval", tabIndex: -1 },
    make("p", {}, "The agent wants to run ", make("b", {}, name), ". Nothing happens until you decide."),
    make("p", { className: "label" }, `Arguments${long}`), scroll(given),
    make("label", {}, "Note, told to the agent if you deny ", note),
    make("div", { className: "choice" }, ...buttons), outcome);
  box.setAttribute("role", "group");
  box.setAttribute("aria-label", `Your approval is needed to run ${name}`);
  return box;
}

function settle(box, text) {
  for (const control of box.querySelectorAll("button, label")) control.hidden = true;
  box.querySelector(".state").textContent = text;
}

export async function decideOn(reply, id, box, decision, note) {
  if (state.running) return;
  const buttons = box.querySelectorAll("button");
  buttons.forEach((button) => (button.disabled = true));
  try {
    const headers = { "Content-Type": "application/json" };
    const body = JSON.stringify({ decision, note });
    await ask(`/threads/${state.thread}/approvals/${id}`, { method: "POST", headers, body });
  } catch (error) {
    box.querySelector(".state").textContent = `Not decided: ${error.message}.`;
    buttons.forEach((button) => (button.disabled = error.status === 409));
    if (error.status === 409) notice("This call cannot be decided any more.", goingOn({ resume: true }, reply));
    return;
  }
  settle(box, decision === "approve" ? "You approved this call." : "You denied this call.");
  box.focus();
  reply.undecided.delete(id);
  if (!reply.undecided.size) await talk({ resume: true }, reply.again());
}

export function voidApprovals() {
  for (const box of document.querySelectorAll(".approval")) {
    if (box.querySelector("button:not([hidden])")) settle(box, "Not decided: you went on with something else.");
  }
}

export function showWaiting(reply) {
  const [first] = reply.undecided;
  if (!first) return;
  notice("The agent waits for your decision.");
  toEnd();
  if (!$("message").value) reply.approvals.get(first).focus();
}

export async function showPending(id, reply) {
  const { approvals } = await askJson(`/threads/${id}/approvals`);
  if (state.thread !== id) return;
  for (const { call_id: call, tool, arguments: given, status } of approvals) {
    if (status === "pending") reply.approval({ id: call, name: tool, arguments: given });
  }
  if (reply.undecided.size) showWaiting(reply);
  else notice("The agent can go on.", goingOn({ resume: true }, reply));
}
