"""HTML, by the standard library's parser: it never stops at a fault, and runs nothing.

A library that finds "the article" of a page would guess; what is plainly not text (scripts, forms,
navigation) is left out, and the rest is kept.
"""

from html.parser import HTMLParser

from agent_app.knowledge.document import Document, SectionBuilder

_LEFT_OUT = {
    *("script", "style", "template", "noscript", "svg", "math", "nav", "header", "footer"),
    *("aside", "form", "button", "select", "iframe", "object"),
}
_BLOCKS = {
    *("p", "div", "section", "article", "main", "ul", "ol", "dl", "dt", "dd", "table", "tr"),
    *("blockquote", "figure", "figcaption", "pre", "hr", "address", "details", "summary"),
}
_HEADINGS = {f"h{level}": level for level in range(1, 7)}


class _Reader(HTMLParser):
    """Feeds a builder; depth counts how far inside left-out elements we are."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.builder = SectionBuilder()
        self.url = ""
        self.page_title = ""
        self._out: list[str] = []  # left-out elements that are open
        self._heading: list[str] | None = None
        self._in_title = False
        self._pre = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "link":
            self._link(dict(attrs))
        if tag in _LEFT_OUT:
            self._out.append(tag)
        if self._out:
            return
        if tag == "title":
            self._in_title = True
        elif tag in _HEADINGS:
            self._heading = []
        elif tag == "li":
            self.builder.add("\n\n- ")
        elif tag in ("td", "th"):
            self.builder.add(" ")
        elif tag == "br":
            self.builder.add("\n")
        elif tag in _BLOCKS:
            self._pre += tag == "pre"
            self.builder.add("\n\n")

    def handle_endtag(self, tag: str) -> None:
        if tag in self._out:
            while self._out.pop() != tag:
                pass
            return
        if self._out:
            return
        if tag == "title":
            self._in_title = False
        elif tag in _HEADINGS and self._heading is not None:
            words = " ".join("".join(self._heading).split())
            self._heading = None
            if words:
                self.builder.heading(_HEADINGS[tag], words)
        elif tag in _BLOCKS:
            self._pre = max(0, self._pre - (tag == "pre"))
            self.builder.add("\n\n")

    def handle_data(self, data: str) -> None:
        if self._in_title:
            self.page_title += data
        elif self._heading is not None:
            self._heading.append(data)
        elif not self._out:
            # Line ends within a paragraph mean nothing in HTML, except in <pre>.
            lines = data if self._pre else data.replace("\n", " ")
            self.builder.add(lines)

    def _link(self, attributes: dict[str, str | None]) -> None:
        if (attributes.get("rel") or "").lower() == "canonical":
            self.url = attributes.get("href") or ""


def read_html(text: str, *, fallback: str) -> Document:
    """Return an HTML document: its first heading or `<title>`, and its canonical address.

    Args:
        text: The file's.
        fallback: The title where it names none.
    """
    reader = _Reader()
    reader.feed(text)
    reader.close()
    page_title = " ".join(reader.page_title.split())
    return reader.builder.build(fallback=page_title or fallback, url=reader.url)
