"""Command lines of `agent-app`, built apart from where they run."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping

#: What `ingest` reads by its names; the app judges what each file holds.
SUFFIXES = frozenset({".htm", ".html", ".markdown", ".md", ".pdf", ".txt"})

#: A private folder that is gone afterwards, however this ends: on the end of its input, of the
#: command, of the connection. Only the app's account can enter it.
_WITH_FOLDER = """\
set -eu
folder=$(mktemp -d /var/tmp/rackhand-knowledge.XXXXXXXX)
trap 'rm -rf "$folder"' EXIT
trap 'exit 143' HUP INT TERM PIPE
tar -xf - -C "$folder" --no-same-owner --no-same-permissions
chown -R agent_app:agent_app "$folder"
{command}"""


def agent_app(*words: str, **options: str | int | bool | Iterable[str] | None) -> str:
    """Return a command line for the host's shell, everything quoted.

    Args:
        words: The command and its arguments; what follows a `--` stays behind the options.
        options: `base_url="x"` is `--base-url x`; True is a flag, a list repeats the option, and
            what is empty, None or False is left out.
    """
    given = [
        word
        for name, value in options.items()
        for word in _option(f"--{name.replace('_', '-')}", value)
    ]
    end = words.index("--") if "--" in words else len(words)
    return shlex.join(["agent-app", *words[:end], *given, *words[end:]])


def _option(flag: str, value: str | int | bool | Iterable[str] | None) -> list[str]:
    if value is None or value is False or value == "":
        return []
    if value is True:
        return [flag]
    if isinstance(value, (str, int)):
        return [flag, str(value)]
    return [word for item in value for word in (flag, item)]


def ingest_from_input(options: Mapping[str, str | bool]) -> str:
    """Return a script that takes a tar as its input and ingests what is in it."""
    command = agent_app("knowledge", "ingest", "FOLDER", json=True, **options)
    return _WITH_FOLDER.format(command=command.replace("FOLDER", '"$folder"', 1))
