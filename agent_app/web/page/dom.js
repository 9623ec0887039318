// Nodes: whatever the model, a tool or a person wrote is text, HTML is never parsed.

export const $ = (id) => document.getElementById(id);

export function make(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

export function scroll(text) {
  return make("pre", { tabIndex: 0 }, text);
}

export function atEnd() {
  const box = $("scroller");
  return box.scrollHeight - box.scrollTop - box.clientHeight < 80;
}

export function toEnd() {
  $("scroller").scrollTop = $("scroller").scrollHeight;
}
