// The messages of a conversation, and the line beneath them that says what happened.

import { $, make, toEnd } from "./dom.js";
import { Reply } from "./reply.js";

export function showUser(text) {
  $("messages").querySelector(".empty")?.remove();
  $("messages").append(make("div", { className: "message user" }, text));
}

export function showThread(thread) {
  $("messages").replaceChildren();
  let reply = null;
  for (const message of thread.messages) {
    if (message.role === "user") {
      reply?.end();
      reply = null;
      showUser(message.content);
      continue;
    }
    reply ||= new Reply();
    if (message.content) reply.token({ text: message.content, message_id: message.id });
    for (const tool of message.tools) {
      reply.beginTool(tool);
      reply.endTool(tool);
    }
  }
  reply?.end();
  toEnd();
  return reply;
}

export function showEmpty() {
  const words = "Ask about anything the agent knows, or has a tool for.";
  $("messages").replaceChildren(make("p", { className: "empty" }, words));
}

export function notice(text, action) {
  $("notice").replaceChildren(text);
  if (action) {
    const button = make("button", { type: "button" }, action.name);
    button.addEventListener("click", action.run);
    $("notice").append(button);
  }
}
