// The page: signs in with a key, talks to /chat, lists /threads.
// Whatever the model, a tool or a person wrote is text: nodes are built, HTML is never parsed.

const KEY = "rackhand-key";
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;
const $ = (id) => document.getElementById(id);

const state = {
  key: sessionStorage.getItem(KEY) || localStorage.getItem(KEY) || "",
  thread: "",
  running: null, // AbortController of the answer under way
  cursor: null,
};

function make(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

// ---- the server -----------------------------------------------------------------------------

class Refusal extends Error {
  constructor(status, error) {
    super(error.message || `the server answers ${status}`);
    this.status = status;
    this.retryable = Boolean(error.retryable);
  }
}

async function ask(path, options = {}) {
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

async function askJson(path, options) {
  return (await ask(path, options)).json();
}

function post(body, signal) {
  const headers = { "Content-Type": "application/json" };
  return ask("/chat", { method: "POST", headers, body: JSON.stringify(body), signal });
}

async function* events(response) {
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

// ---- a small, safe part of Markdown ----------------------------------------------------------

const INLINE = /`([^`\n]+)`|\*\*([^*\n]+)\*\*|\[([^\]\n]+)\]\((https?:\/\/[^\s()]+)\)|(https?:\/\/[^\s<>()"'`]+[^\s<>()"'`.,;:!?])/g;

function link(text, address) {
  return make("a", { href: address, rel: "noopener noreferrer", target: "_blank" }, text);
}

function inline(text) {
  const nodes = [];
  let from = 0;
  for (const found of text.matchAll(INLINE)) {
    nodes.push(text.slice(from, found.index));
    if (found[1]) nodes.push(make("code", {}, found[1]));
    else if (found[2]) nodes.push(make("strong", {}, found[2]));
    else if (found[3]) nodes.push(link(found[3], found[4]));
    else nodes.push(link(found[5], found[5]));
    from = found.index + found[0].length;
  }
  nodes.push(text.slice(from));
  return nodes;
}

const BULLET = /^\s*[-*•]\s+(.*)$/;
const NUMBER = /^\s*\d+[.)]\s+(.*)$/;
const HEADING = /^#{1,6}\s+(.*)$/;

function markdown(text) {
  const nodes = [];
  const fences = text.split(/^```.*$/m);
  fences.forEach((part, index) => {
    if (index % 2) nodes.push(make("pre", { tabIndex: 0 }, make("code", {}, part.trim())));
    else nodes.push(...paragraphs(part));
  });
  return nodes;
}

function paragraphs(text) {
  const nodes = [];
  let open = null;
  for (const line of text.split("\n")) {
    const bullet = line.match(BULLET);
    const item = bullet || line.match(NUMBER);
    const heading = line.match(HEADING);
    const tag = bullet ? "UL" : item ? "OL" : "P";
    if (!line.trim()) {
      open = null;
      continue;
    }
    if (heading) {
      nodes.push(make("p", {}, make("strong", {}, ...inline(heading[1]))));
      open = null;
      continue;
    }
    if (!open || open.tagName !== tag) nodes.push((open = make(tag.toLowerCase())));
    else if (tag === "P") open.append("\n");
    if (item) open.append(make("li", {}, ...inline(item[1])));
    else open.append(...inline(line));
  }
  return nodes;
}

// ---- messages --------------------------------------------------------------------------------

function showUser(text) {
  $("messages").querySelector(".empty")?.remove();
  $("messages").append(make("div", { className: "message user" }, text));
}

function pretty(json) {
  try {
    return JSON.stringify(JSON.parse(json), null, 2);
  } catch {
    return json;
  }
}

class Reply {
  constructor() {
    this.body = make("div", { className: "message assistant" });
    this.wait = make("p", { className: "waiting" }, "Thinking…");
    this.parts = new Map(); // message id → its text and its node
    this.tools = new Map();
    this.stale = new Set(); // messages that will be told anew from their start
    this.foot = [];
    this.body.append(this.wait);
    $("messages").append(this.body);
    this.drawing = 0;
  }

  again() {
    this.stale = new Set(this.parts.keys());
    this.foot.splice(0).forEach((node) => node.remove());
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

  token({ text, message_id: id }) {
    const part = this.part(id);
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
    for (const part of this.parts.values()) {
      if (part.changed) part.node.replaceChildren(...markdown(part.text));
      part.changed = false;
    }
    if (follow) toEnd();
  }

  tool(event) {
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
    this.tools.set(id, { name, box, mark, list });
    this.body.insertBefore(box, this.wait);
  }

  endTool({ id, ok, result }) {
    const tool = this.tools.get(id);
    if (!tool) return;
    tool.mark.textContent = ok ? "done" : ok === null ? "no result" : "failed";
    tool.mark.classList.add(ok ? "good" : "bad");
    if (result !== null) {
      tool.list.append(make("dt", {}, "Result"), make("dd", {}, scroll(result)));
    }
    tool.result = ok ? result : "";
  }

  usage(usage) {
    const line = `${usage.prompt_tokens} prompt + ${usage.completion_tokens} answer tokens`;
    this.foot.push(make("p", { className: "usage" }, line));
  }

  sources(listed = []) {
    const named = listed.map((source) => source.title || source.path || String(source));
    for (const { name, result } of this.tools.values()) {
      if (name !== "search_knowledge") continue;
      for (const found of (result || "").matchAll(/^\[\d+\] ([^:\n]{1,120}):/gm)) named.push(found[1]);
    }
    if (!named.length) return;
    const text = `Sources: ${[...new Set(named)].join(" · ")}`;
    this.foot.unshift(make("p", { className: "sources" }, text));
  }

  end(listed) {
    cancelAnimationFrame(this.drawing);
    this.draw();
    const follow = atEnd();
    this.wait.remove();
    this.sources(listed);
    this.body.append(...this.foot);
    if (!this.body.childNodes.length) this.body.remove();
    if (follow) toEnd();
  }

  spoken() {
    return [...this.parts.values()].map((part) => part.node.textContent).join("\n");
  }
}

function scroll(text) {
  return make("pre", { tabIndex: 0 }, text);
}

function atEnd() {
  const box = $("scroller");
  return box.scrollHeight - box.scrollTop - box.clientHeight < 80;
}

function toEnd() {
  $("scroller").scrollTop = $("scroller").scrollHeight;
}

function showThread(thread) {
  $("messages").replaceChildren();
  let reply = null;
  let sources = [];
  const finish = () => reply && reply.end(sources);
  for (const message of thread.messages) {
    if (message.role === "user") {
      finish();
      [reply, sources] = [null, []];
      showUser(message.content);
      continue;
    }
    reply ||= new Reply();
    if (message.content) reply.token({ text: message.content, message_id: message.id });
    for (const tool of message.tools) {
      reply.beginTool(tool);
      reply.endTool(tool);
      sources.push(...tool.sources);
    }
  }
  finish();
  toEnd();
  return reply;
}

function showEmpty() {
  const words = "Ask about anything the agent knows, or has a tool for.";
  $("messages").replaceChildren(make("p", { className: "empty" }, words));
}

function notice(text, action) {
  $("notice").replaceChildren(text);
  if (action) {
    const button = make("button", { type: "button" }, action.name);
    button.addEventListener("click", action.run);
    $("notice").append(button);
  }
}

// The same message again, or `resume`, goes on with a turn that was not finished.
function goingOn(body, reply) {
  return { name: "Go on", run: () => talk(body, reply?.again()) };
}

// ---- a turn ----------------------------------------------------------------------------------

async function talk(body, reply = new Reply()) {
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
  await listThreads().catch(() => {});
}

async function hear(response, reply) {
  for await (const [name, data] of events(response)) {
    if (name === "done") return;
    if (name === "error") throw new Refusal(200, data);
    if (["token", "tool", "retract", "usage"].includes(name)) reply[name](data);
  }
  throw new Refusal(0, { message: "the connection ended before the answer did", retryable: true });
}

function complain(error, action) {
  if (error.status === 401 || error.status === 403) {
    signOut(error.message);
    return;
  }
  const words = error.message.charAt(0).toUpperCase() + error.message.slice(1);
  notice(`${words}.`, error.retryable ? action : undefined);
}

function stop() {
  state.running?.abort(); // leaving its stream ends the run
}

async function stopElsewhere() {
  const id = state.thread;
  try {
    await ask(`/threads/${id}/stop`, { method: "POST" });
    if (state.thread === id) await openThread(id);
  } catch (error) {
    complain(error);
  }
}

function leave() {
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

// ---- threads ---------------------------------------------------------------------------------

function setThread(id) {
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

async function listThreads(more = false) {
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

async function openThread(id) {
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

async function deleteThread() {
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

function openList(open) {
  $("threads").classList.toggle("open", open);
  $("open-threads").setAttribute("aria-expanded", String(open));
}

// ---- signing in ------------------------------------------------------------------------------

function signOut(why = "") {
  leave();
  sessionStorage.removeItem(KEY);
  localStorage.removeItem(KEY);
  state.key = "";
  $("messages").replaceChildren();
  $("thread-list").replaceChildren();
  $("chat").hidden = true;
  $("sign-in").hidden = false;
  $("key-error").textContent = why;
  $("key").focus();
}

async function enter() {
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

function hashThread() {
  const id = location.hash.slice(1);
  return UUID.test(id) ? id : "";
}

// ---- what a person does ----------------------------------------------------------------------

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
    (remember ? localStorage : sessionStorage).setItem(KEY, state.key);
    $("key").value = "";
  }
});

$("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  const message = $("message").value.trim();
  if (!message || state.running) return;
  $("message").value = "";
  grow();
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
  if (event.key !== "Escape") return;
  stop();
  openList(false);
});

$("stop").addEventListener("click", stop);
$("new-thread").addEventListener("click", () => openThread(""));
$("more-threads").addEventListener("click", () => listThreads(true).catch(complain));
$("delete-thread").addEventListener("click", deleteThread);
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

if (state.key) enter();
else signOut();
