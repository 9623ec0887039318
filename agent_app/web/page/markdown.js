// A small, safe part of Markdown.

import { make } from "./dom.js";

const INLINE = /`([^`\n]+)`|\*\*([^*\n]+)\*\*|\[(\d{1,3}(?:, ?\d{1,3})*)\](?!\()|\[([^\]\n]+)\]\((https?:\/\/[^\s()]+)\)|(https?:\/\/[^\s<>()"'`]+[^\s<>()"'`.,;:!?])/g;

function link(text, address) {
  return make("a", { href: address, rel: "noopener noreferrer", target: "_blank" }, text);
}

// [1], or as some write them, [1, 2]
function citations(numbers, cite) {
  return numbers.split(",").map((text) => cite(Number(text)) || `[${text.trim()}]`);
}

// `cite` makes a link of a citation's number, or nothing where it is none.
function inline(text, cite) {
  const nodes = [];
  let from = 0;
  for (const found of text.matchAll(INLINE)) {
    nodes.push(text.slice(from, found.index));
    if (found[1]) nodes.push(make("code", {}, found[1]));
    else if (found[2]) nodes.push(make("strong", {}, ...inline(found[2], cite)));
    else if (found[3]) nodes.push(...citations(found[3], cite));
    else if (found[4]) nodes.push(link(found[4], found[5]));
    else nodes.push(link(found[6], found[6]));
    from = found.index + found[0].length;
  }
  nodes.push(text.slice(from));
  return nodes;
}

const BULLET = /^\s*[-*•]\s+(.*)$/;
const NUMBER = /^\s*\d+[.)]\s+(.*)$/;
const HEADING = /^#{1,6}\s+(.*)$/;

export function markdown(text, cite = () => null) {
  const nodes = [];
  const fences = text.split(/^```.*$/m);
  fences.forEach((part, index) => {
    if (index % 2) nodes.push(make("pre", { tabIndex: 0 }, make("code", {}, part.trim())));
    else nodes.push(...paragraphs(part, cite));
  });
  return nodes;
}

function paragraphs(text, cite) {
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
      nodes.push(make("p", {}, make("strong", {}, ...inline(heading[1], cite))));
      open = null;
      continue;
    }
    if (!open || open.tagName !== tag) nodes.push((open = make(tag.toLowerCase())));
    else if (tag === "P") open.append("\n");
    if (item) open.append(make("li", {}, ...inline(item[1], cite)));
    else open.append(...inline(line, cite));
  }
  return nodes;
}
