// Citations: `[1]` in an answer leads to its source below, and from there back.

import { make } from "./dom.js";

let replies = 0; // ids of one answer's notes must not be another's

export class Sources {
  constructor() {
    this.name = `answer-${(replies += 1)}`;
    this.known = new Map(); // number → source
    this.cited = new Map(); // number → the first link in the text
    this.list = null;
  }

  add(sources = []) {
    for (const source of sources) {
      if (source.number) this.known.set(source.number, source);
    }
  }

  // The text is drawn anew as it grows: links of before are gone.
  forget() {
    this.cited.clear();
  }

  // A link to a source, or nothing where there is no such source.
  cite(number) {
    const source = this.known.get(number);
    if (!source) return null;
    const link = make("a", { className: "cite", href: `#${this.name}-${number}` }, `[${number}]`);
    link.setAttribute("role", "doc-noteref");
    link.setAttribute("aria-label", `Source ${number}: ${named(source)}`);
    link.addEventListener("click", (event) => {
      event.preventDefault(); // the address's fragment names the conversation
      this.show(number);
    });
    if (!this.cited.has(number)) this.cited.set(number, link);
    return link;
  }

  show(number) {
    const item = this.list?.querySelector(`[value="${number}"]`);
    if (!item) return;
    item.scrollIntoView({ block: "nearest" });
    item.focus();
  }

  // The list of what was cited; where the answer cites nothing, of all that was found.
  render() {
    const numbers = [...(this.cited.size ? this.cited : this.known).keys()].sort((a, b) => a - b);
    if (!numbers.length) return null;
    const title = make("h2", { id: `${this.name}-sources` }, this.cited.size ? "Sources" : "Found");
    this.list = make("ol", {}, ...numbers.map((number) => this.item(number)));
    const section = make("section", { className: "sources" }, title, this.list);
    section.setAttribute("role", "doc-endnotes");
    section.setAttribute("aria-labelledby", title.id);
    return section;
  }

  item(number) {
    const source = this.known.get(number);
    const item = make("li", { id: `${this.name}-${number}`, value: number, tabIndex: -1 });
    if (/^https?:\/\//.test(source.url || "")) {
      const address = { href: source.url, rel: "noopener noreferrer", target: "_blank" };
      item.append(make("a", address, named(source)));
    } else item.append(named(source));
    item.append(" ", make("span", { className: "path" }, source.path));
    if (this.cited.has(number)) {
      const back = make("a", { className: "back", href: `#${this.name}` }, "↩");
      back.setAttribute("role", "doc-backlink");
      back.setAttribute("aria-label", `Back to where source ${number} is cited`);
      back.addEventListener("click", (event) => {
        event.preventDefault();
        this.cited.get(number)?.focus();
      });
      item.append(" ", back);
    }
    return item;
  }
}

function named({ title, heading, path }) {
  return [title || path, heading].filter(Boolean).join(" › ");
}
