"""What package clients on this machine need to reach their sources, for the hosts to use as well.

A closed site has its own mirrors, proxies and authorities; a lab inside it must use the same.
"""

from __future__ import annotations

import os
import re
import sys
from functools import cache
from pathlib import Path
from urllib.parse import urlparse

from ops.lab.commands import KEYRING, run

DEBIAN = "http://deb.debian.org/debian"
CARRIED_APT_SETTINGS = re.compile(r"Acquire::(https?::|Check-|Retries|AllowInsecure)")
CA_BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")
OWN_AUTHORITIES = Path("/usr/local/share/ca-certificates")


@cache
def debian_mirror() -> str:
    """The Debian archive: `RACKHAND_DEBIAN_MIRROR`, this machine's own, or Debian's."""
    if chosen := os.environ.get("RACKHAND_DEBIAN_MIRROR"):
        return chosen.rstrip("/")
    etc = Path("/etc/apt")
    for path in [etc / "sources.list", *sorted((etc / "sources.list.d").glob("*.*"))]:
        if path.suffix in {".list", ".sources"} and path.is_file():
            lines = [x for x in path.read_text().splitlines() if not x.lstrip().startswith("#")]
            found = re.search(r"https?://\S+/debian(?=/?(\s|$))", "\n".join(lines))
            if found:
                return found[0]
    return DEBIAN


def apt_sources(suite: str) -> list[tuple[str, str]]:
    """Archive and suite pairs for a Debian release."""
    mirror = debian_mirror()
    security = os.environ.get("RACKHAND_DEBIAN_SECURITY_MIRROR", f"{mirror}-security")
    return [(mirror, suite), (mirror, f"{suite}-updates"), (security, f"{suite}-security")]


def apt_sources_deb822(suite: str) -> str:
    """The same as a `debian.sources` file."""
    stanza = "Types: deb\nURIs: {}\nSuites: {}\nComponents: main\nSigned-By: {}\n"
    return "\n".join(stanza.format(uri, name, KEYRING) for uri, name in apt_sources(suite))


@cache
def apt_settings() -> list[str]:
    """Proxies and checks that this machine's apt is told, as lines of an apt.conf."""
    dump = run(["apt-config", "dump"]).stdout.splitlines()
    lines = [line for line in dump if CARRIED_APT_SETTINGS.match(line) and '""' not in line]
    for scheme in ("http", "https"):
        proxy = os.environ.get(f"{scheme}_proxy")
        if proxy and not any(f"::{scheme}::Proxy " in line for line in lines):
            lines.append(f'Acquire::{scheme}::Proxy "{proxy}";')
    return lines


def ca_bundle() -> Path | None:
    """The bundle of authorities that this machine trusts."""
    named = [os.environ.get(name) for name in ("SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE")]
    candidates = [*(Path(name) for name in named if name), CA_BUNDLE]
    return next((path for path in candidates if path.is_file()), None)


def own_authorities() -> list[Path]:
    """Authorities that this site added to the distribution's."""
    return sorted(OWN_AUTHORITIES.glob("*.crt"))


@cache
def pip_settings() -> dict[str, list[str]]:
    """This machine's pip settings that name sources, each as a list of values."""
    for command in ([sys.executable, "-m", "pip"], ["python3", "-m", "pip"]):
        done = run([*command, "config", "list"], check=False)
        if done.returncode == 0:
            break
    else:
        return {}
    settings: dict[str, list[str]] = {}
    for line in done.stdout.splitlines():
        name, _, value = line.partition("=")
        section, _, key = name.rpartition(".")
        if key in {"index-url", "extra-index-url", "find-links", "proxy"} and (
            key not in settings or section.startswith(":env:")
        ):
            settings[key] = value.strip("'\"").replace("\\n", " ").split()
    return settings


def remote_pip_settings() -> dict[str, list[str]]:
    """The pip settings that also hold on another host: those that name no folder of this one."""
    remote = {key: [v for v in found if not is_local(v)] for key, found in pip_settings().items()}
    return {key: found for key, found in remote.items() if found}


def is_local(source: str) -> bool:
    """Whether a package source is a folder of this machine."""
    return urlparse(source).scheme in {"", "file"}


def local_folder(source: str) -> Path:
    """The folder that a local source names."""
    return Path(urlparse(source).path)


def resolv_conf() -> str:
    """Name servers that a host on a bridge can reach, too.

    A stub on loopback (systemd-resolved) is replaced by the servers behind it.
    """
    text = Path("/etc/resolv.conf").read_text()
    upstream = Path("/run/systemd/resolve/resolv.conf")
    if re.search(r"^nameserver\s+127\.", text, re.MULTILINE) and upstream.exists():
        return upstream.read_text()
    return text
