"""Judges that we did not write, asked about a lab host: each gives its findings by identifier."""

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from port_scan import scan
from schema_judge import Judged, judge_routes
from stack import Lab

from ops.lab.fleet_plan import OUTSIDE
from ops.places import ROOT

LYNIS = ("usr/sbin/lynis", "usr/share/lynis", "etc/lynis")
EXPOSURE = re.compile(r"exposure level for (\S+\.service): ([\d.]+)")
DROP_IN = "60-rackhand.conf"
UNITS = (
    "{ systemctl list-units --all --plain --no-legend --type=service | grep -v not-found; "
    "cd /etc/systemd/system; ls -d *.service *.service.d | sed 's/[.]d$//' | grep -v '@[.]'; }"
)
"""Every service that is loaded, and those of ours that rest until something starts them."""
OFFLINE = "/run/judged-units"
SHELL_SCRIPTS = (
    "grep -rIlE '^#!.*\\b(ba|da)?sh\\b' /usr/local/lib/rackhand /usr/local/bin /usr/local/sbin "
    "/etc/letsencrypt/renewal-hooks 2>/dev/null"
)
LYNIS_REPORT = "/var/log/lynis-report.dat"
SCANNED = ("ops", "agent_app", "roles", "collections", "stand_in_engine", "scripts")
LINTED = (
    *("playbooks", "roles", "collections", "molecule", "inventories/example", "inventories/fleet"),
)
UNJUDGED = "check failed because of connect problem"
TESTSSL_TRIES = 3
"""What testssl.sh could not look at, on a machine under load, is not judged: it is asked again."""
MINOR = {"OK", "INFO", "DEBUG"}
"""Severities of testssl that are no finding."""


@dataclass
class Verdict:
    """What a judge found: a figure, and what it says by identifier."""

    figure: str
    findings: dict[str, str] = field(default_factory=dict)


def ship(lab: Lab, host: str, base: Path, names: tuple[str, ...]) -> None:
    """Lay files of this machine down on a host, by tar."""
    packed = subprocess.run(
        ["tar", "-C", str(base), "-cf", "-", *names], check=True, capture_output=True
    ).stdout
    words = ["ops", "lab", "ssh", "--name", lab.name, host, "--", "tar -C / -xf -"]
    subprocess.run(words, input=packed, check=True, timeout=120)


def lynis(lab: Lab, host: str) -> Verdict:
    """Lynis' hardening index; warnings and suggestions by test."""
    ship(lab, host, Path("/"), LYNIS)
    run = "lynis audit system --quick --no-colors --quiet >/dev/null 2>&1; cat " + LYNIS_REPORT
    paths = " ".join(f"/{name}" for name in LYNIS)
    try:
        report = lab.ssh(host, run)
    finally:
        lab.ssh(host, f"rm -rf {paths} /var/log/lynis*")
    found: dict[str, str] = {}
    for line in report.splitlines():
        name, _, value = line.partition("=")
        if name in ("warning[]", "suggestion[]"):
            test, text, *details = value.split("|")
            detail = f" ({details[0]})" if details and details[0] not in ("", "-") else ""
            said = f"{name[:-2]}: {text}{detail}"
            found[test] = f"{found[test]}; {said}" if test in found else said
    index = re.search(r"^hardening_index=(\d+)", report, re.MULTILINE)
    assert index, report[-2000:]
    return Verdict(index.group(1), found)


def exposures(lab: Lab, host: str) -> dict[str, float]:
    """What systemd-analyze says of each service."""
    asked = (
        f"{UNITS} | awk '{{print $1}}' | sort -u "
        "| while read -r unit; do systemd-analyze security --no-pager $unit | tail -1; done"
    )
    return {unit: float(level) for unit, level in EXPOSURE.findall(lab.ssh(host, asked))}


def packaged_exposures(lab: Lab, host: str) -> dict[str, float]:
    """What it says of the packages' units that we lay a drop-in over, without that drop-in."""
    asked = f"""
        rm -rf {OFFLINE} && mkdir -p {OFFLINE}/usr/lib/systemd
        cp -a /usr/lib/systemd/system {OFFLINE}/usr/lib/systemd/
        cd /etc/systemd/system && for file in */{DROP_IN}; do
            systemd-analyze security --no-pager --offline=true --root={OFFLINE} ${{file%.d/*}} |
                tail -1
        done; rm -rf {OFFLINE}"""
    said = lab.ssh(host, asked)
    return {
        unit.replace("@test_instance.", "@."): float(level)
        for unit, level in EXPOSURE.findall(said)
    }


def exposure_of_file(lab: Lab, host: str, name: str, content: str) -> float:
    """What it says of a unit that this host has no use for."""
    folder = f"{OFFLINE}/etc/systemd/system"
    asked = (
        f"mkdir -p {folder} && cat >{folder}/{name} <<'END'\n{content}\nEND\n"
        f"systemd-analyze security --no-pager --offline=true --root={OFFLINE} {name} | tail -1; "
        f"rm -rf {OFFLINE}"
    )
    found = EXPOSURE.search(lab.ssh(host, asked))
    assert found, name
    return float(found[2])


def open_ports(address: str) -> Verdict:
    """TCP ports of a host that are open to a machine outside the fleet, and those that answer."""
    states = scan([address])[address]
    opened = [str(port) for port, state in states.items() if state == "open"]
    refusing = sum(state == "closed" for state in states.values())
    return Verdict(
        f"{', '.join(opened)} open; {refusing} others answer",
        {str(port): state for port, state in states.items() if state != "filtered"},
    )


def testssl(lab: Lab, address: str, domain: str, roots: str) -> Verdict:
    """testssl.sh's grade of the edge, asked from `outside`; findings above INFO."""
    lab.ssh(OUTSIDE, "command -v testssl || apt-get install -y -q testssl.sh bsdextrautils")
    lab.ssh(OUTSIDE, f"cat >/root/roots.pem <<'END'\n{roots}\nEND")
    run = (
        "cd /root; rm -f report.json; testssl --quiet --color 0 --warnings off --add-ca roots.pem "
        f"--jsonfile report.json --ip {address} {domain}:443 >/dev/null; cat report.json"
    )
    for _ in range(TESTSSL_TRIES):
        report: list[dict[str, Any]] = json.loads(lab.ssh(OUTSIDE, run, check=False))
        if not any(UNJUDGED in each["finding"] for each in report):
            break
    grade = next((each["finding"] for each in report if each["id"] == "overall_grade"), "none")
    found = {
        each["id"]: f"{each['severity']}: {each['finding']}"
        for each in report
        if each["severity"] not in MINOR or each["id"].startswith("grade_cap_reason")
    }
    found.pop("overall_grade", None)
    return Verdict(grade, found)


def gixy(lab: Lab, host: str, scratch: Path) -> dict[str, Verdict]:
    """gixy's findings in each file that nginx reads on a host."""
    dump = scratch / f"nginx-{host}.conf"
    dump.write_text(lab.ssh(host, "nginx -T 2>/dev/null") + "\n")
    read = re.findall(r"^# configuration file (\S+):$", dump.read_text(), re.MULTILINE)
    done = subprocess.run(
        [str(ROOT / ".venv/bin/gixy"), "-f", "json", str(dump)], capture_output=True, text=True
    )
    assert done.stdout.strip(), done.stderr
    by_file = {name: Verdict("0") for name in read}
    for each in json.loads(done.stdout):
        verdict = by_file[each["file"]]
        verdict.findings[each["plugin"]] = f"{each['severity']}: {each['summary']}"
        verdict.figure = str(int(verdict.figure) + 1)
    return by_file


def schemathesis(url: str, key: str, folder: Path) -> Judged:
    """Schemathesis' word on an app that serves, by the document of this source."""
    document = folder / "openapi.json"
    printed = subprocess.run(
        [sys.executable, "-m", "agent_app", "openapi"], cwd=ROOT, check=True, capture_output=True
    )
    document.write_bytes(printed.stdout)
    return judge_routes(
        str(document), key, folder, url=url, phases="examples,fuzzing", seconds=60, examples=30
    )


def ansible_lint() -> Verdict:
    """ansible-lint over all roles and playbooks, by its production profile."""
    done = subprocess.run(
        [str(ROOT / ".venv/bin/ansible-lint"), "--offline", "--strict", "--nocolor",
         "--profile", "production", *LINTED],
        cwd=ROOT, capture_output=True, text=True, timeout=900,
        env={**os.environ, "ANSIBLE_INVENTORY": "inventories/example"},
    )  # fmt: skip
    said = re.search(r"(\d+) failure\(s\), (\d+) warning\(s\) .*", done.stdout + done.stderr)
    assert said, done.stdout + done.stderr
    sound = done.returncode == 0
    return Verdict(said.group(0), {} if sound else {"ansible-lint": done.stdout[-4000:]})


def shellcheck(lab: Lab, host: str, scratch: Path) -> Verdict:
    """shellcheck over the source's shell scripts and those that a converged host has from us."""
    tracked = subprocess.run(
        ["git", "grep", "-lE", r"^#!.*\b(ba|da)?sh\b", "--", ":!*.j2"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    ).stdout.split()  # fmt: skip
    scripts = [ROOT / name for name in tracked]
    for name in lab.ssh(host, SHELL_SCRIPTS, check=False).split():
        laid_down = scratch / name.strip("/").replace("/", "_")
        laid_down.write_text(lab.ssh(host, f"cat {name}") + "\n")
        scripts.append(laid_down)
    done = subprocess.run(
        ["shellcheck", "-S", "warning", "-f", "json", *map(str, scripts)],
        capture_output=True,
        text=True,
    )
    found = {f"{each['file']}:{each['line']}": each["message"] for each in json.loads(done.stdout)}
    return Verdict(
        f"{len(found)} findings in {len(tracked)} scripts of the source and "
        f"{len(scripts) - len(tracked)} of a converged host",
        found,
    )


def bandit() -> Verdict:
    """Bandit over all that is shipped; findings by test and file."""
    done = subprocess.run(
        [str(ROOT / ".venv/bin/bandit"), "-q", "-f", "json", "-r", *SCANNED],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    results = json.loads(done.stdout)["results"]
    found = {
        f"{each['test_id']} {each['filename']}": f"{each['issue_severity']}: {each['issue_text']}"
        for each in results
    }
    high = sum(each["issue_severity"] == "HIGH" for each in results)
    medium = sum(each["issue_severity"] == "MEDIUM" for each in results)
    low = len(results) - high - medium
    return Verdict(f"{high} high, {medium} medium, {low} low", found)
