// An answer: its text as it comes, its tools, its sources.

import { approvalBox, decideOn } from "./approvals.js";
import { $, atEnd, make, scroll, toEnd } from "./dom.js";
import { markdown } from "./markdown.js";
import { Sources } from "./sources.js";

const THINKING = "Thinking…";

function pretty(json) {
  try {
    return JSON.stringify(JSON.parse(json), null, 2);
  } catch {
    return json;
  }
}

export class Reply {
  constructor() {
    this.body = make("div", { className: "message assistant" });
    this.wait = make("p", { className: "waiting" }, THINKING);
    this.parts = new Map(); // message id → its text and its node
    this.tools = new Map();
    this.approvals = new Map(); // call id → its box, until the call has run or was refused
    this.undecided = new Set();
    this.stale = new Set(); // messages that will be told anew from their start
    this.sources = new Sources();
    this.foot = [];
    this.body.append(this.wait);
    $("messages").append(this.body);
    this.drawing = 0;
  }

  again() {
    this.stale = new Set(this.parts.keys());
    this.foot.splice(0).forEach((node) => node.remove());
    this.wait.textContent = THINKING;
    this.wait.hidden = false;
    this.body.append(this.wait);
    $("messages").append(this.body);
    return this;
  }

  part(id) {
    if (!this.parts.has(id)) {
      const node = make("div", { className: "text" });
      this.body.insertBefore(node, this.wait);
      this.parts.set(id, { text: "", node });
    }
    return this.parts.get(id);
  }

  queued({ position }) {
    this.wait.textContent = `Waiting, position ${position}`;
    this.wait.hidden = false;
  }

  token({ text, message_id: id }) {
    const part = this.part(id);
    this.wait.textContent = THINKING;
    part.text = this.stale.delete(id) ? text : part.text + text;
    this.wait.hidden = true;
    this.redraw(part);
  }

  retract({ message_id: id }) {
    this.parts.get(id)?.node.remove();
    this.parts.delete(id);
    this.wait.hidden = false;
  }

  redraw(part) {
    part.changed = true;
    this.drawing ||= requestAnimationFrame(() => this.draw());
  }

  draw() {
    this.drawing = 0;
    const follow = atEnd();
    if ([...this.parts.values()].some((part) => part.changed)) this.sources.forget();
    else return;
    for (const part of this.parts.values()) {
      part.node.replaceChildren(...markdown(part.text, (number) => this.sources.cite(number)));
      part.changed = false;
    }
    if (follow) toEnd();
  }

  tool(event) {
    this.wait.textContent = THINKING;
    if (event.phase === "start") this.beginTool(event);
    if (event.phase === "end") this.endTool(event);
    this.wait.hidden = false;
  }

  beginTool({ id, name, arguments: given }) {
    const mark = make("span", { className: "state" }, "running");
    const list = make("dl", {}, make("dt", {}, "Arguments"), make("dd", {}, scroll(pretty(given))));
    const box = make("details", { className: "tool" },
      make("summary", {}, "Tool ", make("b", {}, name), mark), list);
    this.tools.get(id)?.box.remove();
    this.approvals.get(id)?.remove();
    this.approvals.delete(id);
    this.undecided.delete(id);
    this.tools.set(id, { name, box, mark, list });
    this.body.insertBefore(box, this.wait);
  }

  endTool({ id, ok, result, sources }) {
    this.sources.add(sources);
    const tool = this.tools.get(id);
    if (!tool) return;
    tool.mark.textContent = ok ? "done" : ok === null ? "no result" : "failed";
    tool.mark.classList.add(ok ? "good" : "bad");
    if (result !== null) {
      tool.list.append(make("dt", {}, "Result"), make("dd", {}, scroll(result)));
    }
  }

  approval({ id, name, arguments: given }) {
    this.tools.get(id)?.box.remove();
    this.approvals.get(id)?.remove();
    const box = approvalBox(name, given, (decision, note) => decideOn(this, id, box, decision, note));
    this.approvals.set(id, box);
    this.undecided.add(id);
    this.body.insertBefore(box, this.wait.isConnected ? this.wait : null);
    this.wait.hidden = true;
  }

  usage(usage) {
    const line = `${usage.prompt_tokens} prompt + ${usage.completion_tokens} answer tokens`;
    this.foot.push(make("p", { className: "usage" }, line));
  }

  end() {
    cancelAnimationFrame(this.drawing);
    this.draw();
    const follow = atEnd();
    this.wait.remove();
    const sources = this.sources.render();
    if (sources) this.foot.unshift(sources);
    this.body.append(...this.foot);
    if (!this.body.childNodes.length) this.body.remove();
    if (follow) toEnd();
  }

  spoken() {
    const texts = [...this.parts.values()].map((part) => part.node.textContent);
    for (const id of this.undecided) texts.push(this.approvals.get(id).getAttribute("aria-label"));
    return texts.join("\n");
  }
}
