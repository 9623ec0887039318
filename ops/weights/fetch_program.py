"""Runs on a host that is to have a revision: gets it from a host that has it.

Takes up where an earlier run ended: files whose checksum is right stay, a part of one is continued.
What arrives is held against the manifest, whose own checksum came over SSH; then it is put into
place as module `weights` does. Lives as long as its standard input speaks: an operator who dies
ends it. Standard library of the host's Python.
"""

from __future__ import annotations

import fcntl
import hashlib
import http.client
import json
import os
import select
import shutil
import ssl
import sys
import threading
import time
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ops.weights.manifest import (
    CHUNK,
    MANIFEST,
    SPARE_BYTES,
    STAGING,
    Files,
    clear,
    digest,
    is_right,
    seal,
)

SOCKET_SECONDS = 30.0
SILENCE_SECONDS = 45.0
BEAT_SECONDS = 2.0
MOST_TRIES = 8
"""In a row without a byte; each waits a little longer, 40 s together."""
LOCK_SECONDS = 60.0
"""One whose operator's line was cut is gone after SILENCE_SECONDS."""


class Refused(Exception):
    """Trying again would not help; the message is for a person."""


class Broken(Exception):
    """The line or the other side broke: go on where it did."""


class Fetcher:
    """Brings one revision here."""

    def __init__(self, values: dict[str, Any]) -> None:
        self.values = values
        self.path = values["path"]
        self.folder = self.path + STAGING
        self.peer = f"{values['host']}:{values['port']}"
        self.context = ssl.create_default_context(cafile=values["ca_file"])
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self.connection: http.client.HTTPSConnection | None = None
        self.have = self.whole = self.fetched = 0

    def run(self) -> None:
        """Fetch what is missing, verify, put into place."""
        if os.path.exists(os.path.join(self.path, MANIFEST)):
            return
        os.makedirs(self.folder, mode=0o755, exist_ok=True)
        self.lock()
        if os.path.exists(os.path.join(self.path, MANIFEST)):
            return
        manifest = self.manifest()
        files = manifest["files"]
        self.whole = sum(entry["size"] for entry in files.values())
        clear(self.folder, files)
        self.require_space(files)
        for name, entry in files.items():
            self.file(name, entry)
        seal(self.folder, self.path, manifest["source"], files)

    def lock(self) -> None:
        """Be the only one that writes there."""
        folder, deadline = os.open(self.folder, os.O_RDONLY), time.monotonic() + LOCK_SECONDS
        while True:
            try:
                return fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                if time.monotonic() > deadline:
                    raise Refused(f"another process writes to {self.folder}") from None
                time.sleep(0.5)

    def manifest(self) -> dict[str, Any]:
        """Return what the other host has: exactly what the control machine says it has."""
        text = b"".join(self.persist(MANIFEST, 0, -1))
        try:
            found: dict[str, Any] = json.loads(text)
            same = digest(found["files"]) == self.values["digest"]
        except (ValueError, KeyError, TypeError):
            same = False
        if not same:
            raise Refused(f"{self.peer} has another manifest than it told")
        for name in found["files"]:
            if os.path.isabs(name) or ".." in Path(name).parts:
                raise Refused(f"the manifest names {name!r}, outside of its folder")
        return found

    def require_space(self, files: Files) -> None:
        """Refuse before a byte moves when the rest does not fit."""
        there = 0
        for name, entry in files.items():
            path = os.path.join(self.folder, name)
            there += min(os.path.getsize(path), entry["size"]) if os.path.exists(path) else 0
        free, needed = shutil.disk_usage(self.folder).free, self.whole - there
        if free < needed + SPARE_BYTES:
            raise Refused(
                f"{os.path.dirname(self.path)} has {free / 2**30:.1f} GiB free and what is missing "
                f"takes {needed / 2**30:.1f} GiB and {SPARE_BYTES / 2**30:.0f} to spare"
            )

    def file(self, name: str, entry: dict[str, Any]) -> None:
        """Bring one file: what is right stays, a part is continued, a wrong one comes anew."""
        path = os.path.join(self.folder, name)
        if is_right(path, entry):
            self.have += entry["size"]
            return
        os.makedirs(os.path.dirname(path), exist_ok=True)
        part = os.path.getsize(path) if os.path.exists(path) else 0
        if part >= entry["size"] and part:
            os.unlink(path)
            part = 0
        for _ in range(2 if part else 1):
            if self.rest(name, path, entry) == entry["sha256"]:
                return
            self.have -= entry["size"]
            os.unlink(path)
        raise Refused(f"{name} of {self.peer} is not what its manifest says: corrupted there")

    def rest(self, name: str, path: str, entry: dict[str, Any]) -> str:
        """Append what is missing of a file, and return the checksum of the whole."""
        found = hashlib.sha256()
        with open(path, "a+b") as stream:
            stream.seek(0)
            while chunk := stream.read(CHUNK):
                found.update(chunk)
                self.have += len(chunk)
            for chunk in self.persist(name, stream.tell(), entry["size"]):
                stream.write(chunk)
                found.update(chunk)
                self.have += len(chunk)
                self.fetched += len(chunk)
        return found.hexdigest()

    def persist(self, name: str, start: int, size: int) -> Iterator[bytes]:
        """Yield a file's bytes from a place on, going on as often as the line breaks."""
        tries = 0
        while True:
            try:
                for chunk in self.ask(name, start, size):
                    start, tries = start + len(chunk), 0
                    yield chunk
                return
            except (Broken, OSError, http.client.HTTPException) as error:
                self.hang_up()
                if isinstance(error, ssl.SSLCertVerificationError):
                    raise Refused(f"{self.peer} is not who it should be: {error}") from error
                tries += 1
                if tries > MOST_TRIES:
                    raise Refused(f"{self.peer} does not answer: {error or error!r}") from error
                time.sleep(min(8.0, 0.25 * 2**tries) * float(self.values["pause"]))

    def ask(self, name: str, start: int, size: int) -> Iterator[bytes]:
        """Yield the answer to one request; `size` is the file's, -1 where it is not known."""
        if start == size:
            return
        if self.connection is None:
            self.connection = http.client.HTTPSConnection(
                self.values["host"], self.values["port"],
                timeout=SOCKET_SECONDS, context=self.context,
            )  # fmt: skip
        headers = {"Range": f"bytes={start}-"} if start else {}
        self.connection.request("GET", f"/{self.values['token']}/{quote(name)}", headers=headers)
        answer = self.connection.getresponse()
        if answer.status == HTTPStatus.NOT_FOUND:
            raise Refused(
                f"{self.peer} does not let us have {name}: another token, or not its file"
            )
        if answer.status == HTTPStatus.GONE:
            raise Refused(f"{self.peer} has lost {name}")
        if answer.status != (HTTPStatus.PARTIAL_CONTENT if start else HTTPStatus.OK):
            raise Broken(f"status {answer.status}")
        left = int(answer.headers["Content-Length"])
        if size >= 0 and left != size - start:
            raise Refused(f"{self.peer} has {name} in another size")
        while left > 0:
            chunk = answer.read(min(CHUNK, left))
            if not chunk:
                raise Broken("the line was cut")
            left -= len(chunk)
            yield chunk
        answer.read()

    def hang_up(self) -> None:
        """Begin the next request on a new connection."""
        if self.connection is not None:
            self.connection.close()
            self.connection = None

    def tell(self, **more: Any) -> None:
        """Print a line of JSON: how far it is."""
        line = {"have": self.have, "of": self.whole, "fetched": self.fetched, **more}
        os.write(1, json.dumps(line).encode() + b"\n")


def beat(fetcher: Fetcher) -> None:
    """Tell how far it is, and end it when the operator is gone: input at its end, or silent."""
    heard = time.monotonic()
    while True:
        if select.select([0], [], [], BEAT_SECONDS)[0]:
            if not os.read(0, 1 << 12):
                os._exit(3)
            heard = time.monotonic()
        if time.monotonic() - heard > SILENCE_SECONDS:
            os._exit(3)
        try:
            fetcher.tell()
        except OSError:
            os._exit(3)


def main(values: dict[str, Any]) -> None:
    """Fetch; the last line has `complete` or `refused`."""
    os.nice(10)
    fetcher = Fetcher(values)
    threading.Thread(target=beat, args=(fetcher,), daemon=True).start()
    try:
        fetcher.run()
    except Refused as error:
        fetcher.tell(refused=str(error))
        sys.exit(2)
    except OSError as error:
        fetcher.tell(refused=f"{fetcher.folder}: {error}")
        sys.exit(2)
    fetcher.tell(complete=True)
