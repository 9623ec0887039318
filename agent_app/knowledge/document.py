"""What a file says, as far as a search is concerned."""

from dataclasses import dataclass


class Unreadable(Exception):
    """The file gives no text; the message tells why and what would help."""


@dataclass(frozen=True, slots=True)
class Section:
    """Text under one heading: paragraphs, parted by empty lines."""

    headings: tuple[str, ...]
    """The headings above it, outermost first; the document's title is none of them."""
    text: str


@dataclass(frozen=True, slots=True)
class Document:
    """A title, sections in their order, and where people read it, where the file says so."""

    title: str
    sections: tuple[Section, ...]
    url: str = ""


class SectionBuilder:
    """Puts sections together from headings and text as they come."""

    def __init__(self) -> None:
        self.title = ""
        self._path: list[tuple[int, str]] = []
        self._text: list[str] = []
        self._sections: list[Section] = []

    def heading(self, level: int, words: str) -> None:
        """Begin a section; the first heading of all, where nothing came before, is the title."""
        first = not self.title and not self._sections and not "".join(self._text).strip()
        self._close()
        if first:
            self.title = words
            return
        self._path = [(depth, name) for depth, name in self._path if depth < level]
        self._path.append((level, words))

    def add(self, text: str) -> None:
        """Add text of the section."""
        self._text.append(text)

    def build(self, *, fallback: str, url: str = "") -> Document:
        """Return the document.

        Args:
            fallback: Its title where it has none.
            url: Its address, or "".
        """
        self._close()
        return Document(self.title or fallback, tuple(self._sections), url)

    def _close(self) -> None:
        text = "".join(self._text).strip()
        self._text = []
        if text:
            self._sections.append(Section(tuple(name for _, name in self._path), text))
