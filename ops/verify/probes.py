"""What several checks ask a host, each with an answer that a person can act on."""

from __future__ import annotations

import json
from typing import Any

from testinfra.host import Host as Connection

JOURNAL_LINES = 15

HTTP_PROBE = """
import json, ssl, sys, urllib.error, urllib.request
ask = json.loads(sys.argv[1])
body = json.dumps(ask["body"]).encode() if ask["body"] is not None else None
headers = {"Content-Type": "application/json"}
request = urllib.request.Request(ask["url"], data=body, headers=headers)
context = ssl.create_default_context(cafile=ask["ca"]) if ask["ca"] else None
opener = urllib.request.build_opener(
    urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
try:
    with opener.open(request, timeout=ask["seconds"]) as response:
        print(json.dumps([response.status, response.read(ask["most"]).decode(errors="replace")]))
except urllib.error.HTTPError as error:
    print(json.dumps([error.code, error.read(ask["most"]).decode(errors="replace")]))
except OSError as error:
    print(json.dumps([0, str(error)]))
"""


def ask(host: Connection, command: str, *arguments: str) -> str:
    """Return a command's output; fail with its error stream where it fails.

    Args:
        host: where to run it.
        command: with a `%s` for each argument.
        arguments: quoted and put in.
    """
    result = host.run(command, *arguments)
    assert result.rc == 0, result.stderr.strip() or f"status {result.rc}: {command}"
    return str(result.stdout).strip()


def assert_unit_runs(host: Connection, unit: str, *, enabled: bool = True) -> None:
    """Fail with the unit's last journal lines unless it is active and enabled."""
    shown = host.run("systemctl show -p ActiveState -p SubState -p UnitFileState %s", unit).stdout
    state = dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)
    journal = ""
    if state.get("ActiveState") != "active":
        lines = host.run("journalctl -u %s -n %s --no-pager -o short-iso", unit, str(JOURNAL_LINES))
        journal = f"\nlast lines of its journal:\n{lines.stdout.strip()}"
    found = f"{state.get('ActiveState')} ({state.get('SubState')})"
    assert state.get("ActiveState") == "active", f"{unit} is {found}, not active{journal}"
    if enabled:
        wanted = ("enabled", "enabled-runtime", "static", "generated")
        assert state.get("UnitFileState") in wanted, (
            f"{unit} is {state.get('UnitFileState') or 'not enabled'}: it would not come back "
            f"after a reboot\ncure: systemctl enable {unit}"
        )


def listeners(host: Connection) -> set[tuple[str, int]]:
    """Return (address, port) of every listening TCP socket; `*` and `::` read as 0.0.0.0."""
    found = set()
    for line in ask(host, "ss -Hltn").splitlines():
        address, _, port = line.split()[3].rpartition(":")
        address = address.strip("[]").partition("%")[0]
        found.add(("0.0.0.0" if address in ("*", "::") else address, int(port)))  # noqa: S104
    return found


def assert_listens_only_at(host: Connection, port: int, addresses: set[str]) -> None:
    """Fail unless a port is open at these addresses and at no other."""
    found = {address for address, number in listeners(host) if number == port}
    assert found == addresses, (
        f"port {port} listens on {', '.join(sorted(found)) or 'nothing'}, "
        f"not on {', '.join(sorted(addresses))}"
    )


def assert_access(host: Connection, path: str, owner: str, group: str, mode: int) -> None:
    """Fail unless a file or folder has exactly this owner, group and mode."""
    shown = host.run("stat -L -c '%%U %%G %%a' %s", path)
    assert shown.rc == 0, f"{path} does not exist"
    found = shown.stdout.split()
    wanted = [owner, group, f"{mode:o}"]
    assert found == wanted, f"{path} is {' '.join(found)}, not {' '.join(wanted)}"


def http(
    host: Connection,
    url: str,
    *,
    body: Any = None,
    ca: str = "",
    seconds: int = 30,
    most_bytes: int = 20_000,
) -> tuple[int, str]:
    """Ask a URL from the host itself.

    Args:
        host: where to ask from.
        url: what to ask.
        body: sent as JSON by POST.
        ca: path on the host of the roots to trust.
        seconds: how long to wait.
        most_bytes: of an answer; the rest is not read.

    Returns:
        Status and body; status 0 and the reason where there was no answer.
    """
    ask = json.dumps({"url": url, "body": body, "ca": ca, "seconds": seconds, "most": most_bytes})
    result = host.run("python3 -c %s %s", HTTP_PROBE, ask)
    assert result.rc == 0, f"no answer from {url}: {result.stderr.strip()[-500:]}"
    status, text = json.loads(result.stdout)
    return int(status), str(text)
