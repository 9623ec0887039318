"""Markdown and plain text: headings outside of code, and what the front matter says."""

import re
from typing import Any

import yaml

from agent_app.knowledge.document import Document, SectionBuilder

_FRONT_MATTER = re.compile(r"\A---[ \t]*\n(.*?)\n(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.DOTALL)
_ATX = re.compile(r"^ {0,3}(#{1,6})[ \t]+(.+?)[ \t]*#*[ \t]*$")
_SETEXT = re.compile(r"^ {0,3}(=+|-+)[ \t]*$")
_TEXT_LINE = re.compile(r"^ {0,3}[^\s>|*+#-]")  # what an underline can make a heading of
_FENCE = re.compile(r"^ {0,3}(`{3,}|~{3,})")


def read_markdown(text: str, *, fallback: str) -> Document:
    """Return a Markdown document; `title` and `url` of its front matter win.

    Args:
        text: The file's.
        fallback: The title where it names none.
    """
    about, text = _front_matter(text)
    builder = SectionBuilder()
    builder.title = str(about.get("title") or "")
    fence, before = "", ""
    for line in text.splitlines():
        opened = _FENCE.match(line)
        if fence:
            if opened and opened[1].startswith(fence):
                fence = ""
        elif opened:
            fence = opened[1]
        elif (found := _ATX.match(line)) is not None:
            builder.add(before)
            builder.heading(len(found[1]), found[2])
            before = ""
            continue
        elif _TEXT_LINE.match(before) and (under := _SETEXT.match(line)) is not None:
            builder.heading(1 if under[1].startswith("=") else 2, before.strip())
            before = ""
            continue
        builder.add(before)
        before = f"{line}\n"
    builder.add(before)
    return builder.build(fallback=fallback, url=str(about.get("url") or about.get("source") or ""))


def read_text(text: str, *, fallback: str) -> Document:
    """Return plain text: one section without a heading, called by its file."""
    builder = SectionBuilder()
    builder.add(text)
    return builder.build(fallback=fallback)


def _front_matter(text: str) -> tuple[dict[str, Any], str]:
    found = _FRONT_MATTER.match(text)
    if found is None:
        return {}, text
    try:
        about = yaml.safe_load(found[1])
    except yaml.YAMLError:
        return {}, text
    return (about, text[found.end() :]) if isinstance(about, dict) else ({}, text)
