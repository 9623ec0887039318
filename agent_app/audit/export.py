"""The audit as a file: an entry a line, and last a signed manifest, to be verified anywhere."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import psycopg

from agent_app.audit.chain import START, Chained, Head, Link, canonical, digest, walk
from agent_app.audit.reading import Chosen, Opener, one_moment, read_entries, read_start
from agent_app.audit.seal import read_head
from agent_app.audit.vault import Vault, is_signed
from agent_app.errors import InvalidRequest
from agent_app.state.audit import Entry, append_now, current_operator


def export(connection: psycopg.Connection[Any], vault: Vault, chosen: Chosen) -> Iterator[str]:
    """Yield the lines of an export; it is itself an entry of the audit.

    Each line is an entry as it is chained, and `opened`: its details, null where they were erased.
    """
    lines, count, first = hashlib.sha256(), 0, None
    opener = Opener(vault)
    with one_moment(connection):
        start, head = read_start(connection), read_head(connection)
        for entry, wrapped in read_entries(connection, chosen):
            line = _line(entry, opener.open(entry, wrapped))
            lines.update(line.encode() + b"\n")
            count += 1
            first = entry.number if first is None else first
            yield line
    manifest = {
        "entries": count,
        "first": first,
        "whole": chosen.is_all,
        "since": _iso(chosen.since),
        "until": _iso(chosen.until),
        "key_id": str(chosen.key_id) if chosen.key_id else None,
        "start": {"number": start.number, "hash": start.hash},
        "head": {"number": head.number, "hash": head.hash},
        "sha256": lines.hexdigest(),
        "exported_at": datetime.now(UTC).isoformat(),
        "public_key": vault.public_key,
    }
    told = {name: manifest[name] for name in ("entries", "since", "until", "key_id", "head")}
    actor = f"operator {current_operator()}"
    append_now(connection, Entry("audit.export", actor=actor, details=told))
    yield canonical({"manifest": manifest, "signature": vault.sign(manifest)})


def _line(entry: Chained, opened: str | None) -> str:
    document = {**entry.content(), "hash": entry.hash}
    document["opened"] = json.loads(opened) if opened is not None else None
    return canonical(document)


def _iso(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None


@dataclass(slots=True)
class FileVerdict:
    """What a check of an export found; `problems` is empty where all holds."""

    entries: int = 0
    head: Head = START
    public_key: str = ""
    problems: list[str] = field(default_factory=list)


def verify_file(lines: Iterable[str], *, public_key: str | None) -> FileVerdict:
    """Check an export without the database.

    Args:
        lines: The file.
        public_key: Whose signature it must bear; None only checks that it bears its own.

    Raises:
        InvalidRequest: It is no export.
    """
    verdict, whole, last = FileVerdict(), hashlib.sha256(), None
    links: list[Link] = []
    for number, line in enumerate(lines, 1):
        if last is not None:
            raise InvalidRequest("there is more after the manifest", place=f"line {number}")
        document = _read(line, number)
        if "manifest" in document:
            last = document
            continue
        whole.update(line.rstrip("\n").encode() + b"\n")
        links.append(_link(document, number))
    if last is None:
        raise InvalidRequest("the manifest is missing: the file was cut", place="last line")
    _judge(verdict, last, links, whole.hexdigest(), public_key)
    return verdict


def _judge(
    verdict: FileVerdict,
    last: dict[str, Any],
    links: list[Link],
    sha256: str,
    public_key: str | None,
) -> None:
    manifest = last["manifest"]
    verdict.entries, verdict.public_key = len(links), str(manifest.get("public_key"))
    verdict.head = Head(manifest["head"]["number"], manifest["head"]["hash"])
    if not is_signed(manifest, str(last.get("signature")), public_key or verdict.public_key):
        verdict.problems.append("the signature is not of this manifest and key")
    if manifest["entries"] != len(links):
        verdict.problems.append(
            f"{manifest['entries']} entries were exported, here are {len(links)}"
        )
    if manifest["sha256"] != sha256:
        verdict.problems.append("the lines are not those that were exported")
    start = Head(manifest["start"]["number"], manifest["start"]["hash"])
    if manifest["whole"]:
        found = walk(links, start, pinned=verdict.head)
        broken = found.broken
    else:
        broken = next((b for run in _stretches(links) if (b := _check_stretch(run))), None)
    if broken is not None:
        verdict.problems.append(f"entry {broken.number}: {broken.why}")


def _stretches(links: list[Link]) -> Iterator[list[Link]]:
    """Yield runs of entries with nothing left out between them."""
    run: list[Link] = []
    for link in links:
        if run and link.number != run[-1].number + 1:
            yield run
            run = []
        run.append(link)
    if run:
        yield run


def _check_stretch(run: list[Link]) -> Any:
    return walk(run, Head(run[0].number - 1, run[0].previous)).broken


def _read(line: str, number: int) -> dict[str, Any]:
    try:
        document = json.loads(line)
    except ValueError as error:
        raise InvalidRequest("not JSON", place=f"line {number}") from error
    if not isinstance(document, dict):
        raise InvalidRequest("not an entry", place=f"line {number}")
    return document


def _link(document: dict[str, Any], number: int) -> Link:
    content = {k: v for k, v in document.items() if k not in ("hash", "opened")}
    try:
        return Link(content["number"], content["previous"], document["hash"], digest(content))
    except KeyError as error:
        raise InvalidRequest(f"{error} is missing", place=f"line {number}") from error
