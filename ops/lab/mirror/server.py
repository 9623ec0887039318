"""The mirror as a lab sees it: a web server on `outside`, and the state that it is in."""

from __future__ import annotations

from pathlib import Path

from ops.errors import InputError
from ops.lab.mirror import catalogue
from ops.lab.paths import LabPaths
from ops.lab.upper import Upper

HOME = "/srv/mirror"
CHOICE = "/srv/mirror-choice"  # holds the link `current`, which moves
LINK = "current"
PROGRAM = "usr/local/lib/serve-mirror.py"
UNIT_NAME = "mirror.service"
UNIT = f"""\
[Unit]
Description=The lab's package mirror
After=network.target
[Service]
ExecStart=/usr/bin/python3 /{PROGRAM} {CHOICE}
DynamicUser=yes
AmbientCapabilities=CAP_NET_BIND_SERVICE
Restart=always
[Install]
WantedBy=multi-user.target
"""


def fill_upper(upper: Upper) -> None:
    """Lay down the web server and its unit."""
    upper.write(PROGRAM, Path(__file__).with_name("files").joinpath("serve.py").read_bytes())
    upper.write(f"etc/systemd/system/{UNIT_NAME}", UNIT)
    upper.link(f"etc/systemd/system/multi-user.target.wants/{UNIT_NAME}", f"../{UNIT_NAME}")


def binds(paths: LabPaths, mirror: Path) -> dict[str, str]:
    """Folders that `outside` sees: the mirror's states, and which of them is current.

    Args:
        paths: The lab's.
        mirror: The mirror's folder in the cache.
    """
    if not (paths.mirror / LINK).is_symlink():
        choose(paths, max(catalogue.load().states))
    return {HOME: str(mirror), CHOICE: str(paths.mirror)}


def choose(paths: LabPaths, state: str) -> None:
    """Move the lab's mirror to a state; the next request sees it.

    Raises:
        InputError: The mirror has no such state; the message lists those it has.
    """
    states = catalogue.load().state_names
    if state not in states:
        raise InputError(
            f"The mirror has no state {state!r}", cure=f"use one of {', '.join(states)}"
        )
    paths.mirror.mkdir(parents=True, exist_ok=True)
    new = paths.mirror / ".new"
    new.unlink(missing_ok=True)
    new.symlink_to(f"{HOME}/{state}")
    new.replace(paths.mirror / LINK)


def chosen(paths: LabPaths) -> str:
    """The state that the lab's mirror is in.

    Raises:
        InputError: The lab has no mirror.
    """
    link = paths.mirror / LINK
    if not link.is_symlink():
        raise InputError(
            f"The lab {paths.name} has no GPUs, and so no package mirror",
            cure=f"ops lab down --name {paths.name}; ops lab up --name {paths.name} --gpu H100:2",
        )
    return link.readlink().name
