"""Cut a document into passages: short enough to be shown whole, each under its headings."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from agent_app.knowledge.document import Document, Section

VERSION = 2  # of this cutting: another one makes every document's passages anew
BETWEEN_HEADINGS = " › "  # noqa: RUF001 - as people write a path of headings


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of a section, and the headings above it as one line, or ""."""

    heading: str
    text: str


def cut(document: Document, *, characters: int, overlap: int) -> Iterator[Passage]:
    """Yield a document's passages in order; none reaches over a heading.

    Args:
        document: What to cut.
        characters: The most of one passage.
        overlap: How many of its end, in whole sentences, the next one begins with.
    """
    for section in document.sections:
        heading = BETWEEN_HEADINGS.join(section.headings)
        for text in _pack(list(_sentences(section, characters)), characters, overlap):
            yield Passage(heading, text)


def _sentences(section: Section, characters: int) -> Iterator[str]:
    """Yield a section's sentences; one that is too long is cut between words, or where it must."""
    for paragraph in re.split(r"\n\s*\n", section.text):
        for sentence in re.split(r"(?<=[.!?])\s+", " ".join(paragraph.split())):
            rest = sentence
            while len(rest) > characters:
                at = rest.rfind(" ", 1, characters + 1)
                at = at if at > 0 else characters
                yield rest[:at].strip()
                rest = rest[at:].strip()
            if rest:
                yield rest


def _pack(sentences: list[str], characters: int, overlap: int) -> Iterator[str]:
    passage: list[str] = []
    length = 0
    for sentence in sentences:
        if passage and length + 1 + len(sentence) > characters:
            yield " ".join(passage)
            passage = _tail(passage, min(overlap, characters - len(sentence) - 1))
            length = len(" ".join(passage))
        passage.append(sentence)
        length += len(sentence) + (len(passage) > 1)
    if passage:
        yield " ".join(passage)


def _tail(passage: list[str], characters: int) -> list[str]:
    """Return the last sentences that together are no longer than so many characters."""
    tail: list[str] = []
    room = characters
    for sentence in reversed(passage[1:]):  # never all of it: the next must be another
        room -= len(sentence) + 1
        if room < 0:
            break
        tail.insert(0, sentence)
    return tail
