# Copyright: the Rackhand founders
"""An apt repository as one deb822 file with its own key, the key known by its fingerprint."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

SOURCES_FOLDER = "/etc/apt/sources.list.d"
KEYS_FOLDER = "/etc/apt/keyrings"
#: `deb [options] address suite components…`
ONE_LINE = re.compile(r"^deb(?:-src)?\s+(?:\[[^\]]*\]\s+)?(\S+)\s+(\S+)\s*(.*)$")
PUBLIC_KEY, PUBLIC_SUBKEY = 6, 14  # OpenPGP packet tags (RFC 9580, section 5)


def sources_path(name: str) -> str:
    """Where a repository's sources stand on a host."""
    return f"{SOURCES_FOLDER}/{name}.sources"


def key_path(name: str) -> str:
    """Where a repository's key stands on a host."""
    return f"{KEYS_FOLDER}/{name}.asc"


def sources_text(repository: Mapping[str, Any], key: str = "") -> str:
    """A repository as deb822.

    Args:
        repository: name, url, suites (`/` for a flat one) and components (none for a flat one).
        key: Path of the key; the repository's own place if empty.
    """
    lines = [
        "# Laid down by Rackhand; changes here are overwritten.",
        "Types: deb",
        f"URIs: {repository['url']}",
        f"Suites: {repository['suites']}",
    ]
    if repository.get("components"):
        lines.append(f"Components: {repository['components']}")
    lines.append(f"Signed-By: {key or key_path(repository['name'])}")
    return "\n".join(lines) + "\n"


def is_covered(repository: Mapping[str, Any], url: str, suites: str, components: str) -> bool:
    """Whether an entry offers nothing but what a repository of ours offers."""
    if url.rstrip("/") != str(repository["url"]).rstrip("/"):
        return False
    ours = str(repository["suites"]).split()
    theirs = ["/" if suite == "./" else suite for suite in suites.split()]
    offered = str(repository.get("components") or "").split()
    return set(theirs) <= set(ours) and set(components.split()) <= set(offered)


def without_doubles(text: str, is_one_line: bool, repositories: Iterable[Mapping[str, Any]]) -> str:
    """A source file with the entries switched off that stand in a file of ours, under its own key.

    apt stops altogether when one repository is given two keys.

    Args:
        text: The file.
        is_one_line: Whether it is of the old form (`.list`), else deb822.
        repositories: Ours.
    """
    known = list(repositories)
    return one_lines_off(text, known) if is_one_line else stanzas_off(text, known)


def one_lines_off(text: str, repositories: Iterable[Mapping[str, Any]]) -> str:
    """The old form: covered lines become comments."""
    lines = []
    for line in text.splitlines(keepends=True):
        entry = ONE_LINE.match(line.strip())
        for repository in repositories if entry else ():
            if entry and is_covered(repository, entry[1], entry[2], entry[3].partition("#")[0]):
                line = f"# stands in {sources_path(repository['name'])}: {line}"  # noqa: PLW2901
                break
        lines.append(line)
    return "".join(lines)


def stanzas_off(text: str, repositories: Iterable[Mapping[str, Any]]) -> str:
    """deb822: covered stanzas get `Enabled: no`."""
    stanzas = re.split(r"(\n[ \t]*\n)", text)
    for index, stanza in enumerate(stanzas):
        fields = {
            k.lower(): v for k, v in re.findall(r"^([\w-]+):[ \t]*(.*)$", stanza, re.MULTILINE)
        }
        if not fields.get("uris") or fields.get("enabled", "").strip().lower() in ("no", "false"):
            continue
        suites, components = fields.get("suites", ""), fields.get("components", "")
        covered = all(
            any(is_covered(r, url, suites, components) for r in repositories)
            for url in fields["uris"].split()
        )
        if covered:
            body = re.sub(r"^Enabled:.*\n?", "", stanza, flags=re.MULTILINE | re.IGNORECASE)
            stanzas[index] = re.sub(
                r"^(Types:)", r"Enabled: no\n\1", body, count=1, flags=re.MULTILINE
            )
    return "".join(stanzas)


def fingerprint(armored: str) -> str:
    """Fingerprint of an armored OpenPGP public key (version 4: SHA-1 of its first packet).

    Raises:
        ValueError: the text is no such key.
    """
    found = re.search(
        r"-----BEGIN PGP PUBLIC KEY BLOCK-----\r?\n(?:.*?\n)??\r?\n(.*?)\r?\n(?:=.{4}\r?\n)?-----END",
        armored,
        re.DOTALL,
    )
    if not found:
        raise ValueError("no armored OpenPGP public key")
    try:
        data = base64.b64decode("".join(found[1].split()), validate=True)
    except binascii.Error as error:
        raise ValueError(f"an OpenPGP key whose armor is damaged: {error}") from error
    tag, body = first_packet(data)
    if tag not in (PUBLIC_KEY, PUBLIC_SUBKEY) or body[:1] != b"\x04":
        raise ValueError("no OpenPGP public key of version 4")
    framed = b"\x99" + len(body).to_bytes(2, "big") + body
    return hashlib.sha1(framed, usedforsecurity=False).hexdigest().upper()


def first_packet(data: bytes) -> tuple[int, bytes]:
    """Tag and body of the first OpenPGP packet (RFC 9580, section 4.2)."""
    if len(data) < 3 or not data[0] & 0x80:
        raise ValueError("no OpenPGP packet")
    if data[0] & 0x40:  # the new form
        tag, size, start = data[0] & 0x3F, data[1], 2
        if size == 255:
            size, start = int.from_bytes(data[2:6], "big"), 6
        elif size >= 192:
            size, start = ((size - 192) << 8) + data[2] + 192, 3
    else:
        tag, octets = (data[0] >> 2) & 0x0F, 1 << (data[0] & 0x03)
        if octets > 4:
            raise ValueError("an OpenPGP packet without a length")
        size, start = int.from_bytes(data[1 : 1 + octets], "big"), 1 + octets
    return tag, data[start : start + size]
