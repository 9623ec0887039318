"""Judges that we did not write, asked about a lab host: each gives its findings by identifier."""

import json
import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stack import Lab

from ops.lab.fleet_plan import OUTSIDE
from ops.places import ROOT

LYNIS = ("usr/sbin/lynis", "usr/share/lynis", "etc/lynis")
EXPOSURE = re.compile(r"^(\S+\.service)\s+([\d.]+)\s", re.MULTILINE)
LYNIS_REPORT = "/var/log/lynis-report.dat"
SCANNED = ("ops", "agent_app", "roles", "collections", "stand_in_engine", "scripts")
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
    """What systemd-analyze says of every service that is loaded."""
    shown = lab.ssh(host, "systemd-analyze security --no-pager")
    return {unit: float(level) for unit, level in EXPOSURE.findall(shown)}


def testssl(lab: Lab, address: str, domain: str, roots: str) -> Verdict:
    """testssl.sh's grade of the edge, asked from `outside`; findings above INFO."""
    lab.ssh(OUTSIDE, "command -v testssl || apt-get install -y -q testssl.sh bsdextrautils")
    lab.ssh(OUTSIDE, f"cat >/root/roots.pem <<'END'\n{roots}\nEND")
    run = (
        "cd /root; rm -f report.json; testssl --quiet --color 0 --warnings off --add-ca roots.pem "
        f"--jsonfile report.json --ip {address} {domain}:443 >/dev/null; cat report.json"
    )
    report: list[dict[str, Any]] = json.loads(lab.ssh(OUTSIDE, run, check=False))
    grade = next((each["finding"] for each in report if each["id"] == "overall_grade"), "none")
    found = {
        each["id"]: f"{each['severity']}: {each['finding']}"
        for each in report
        if each["severity"] not in MINOR or each["id"].startswith("grade_cap_reason")
    }
    found.pop("overall_grade", None)
    return Verdict(grade, found)


def gixy(lab: Lab, host: str, scratch: Path) -> Verdict:
    """gixy over everything that nginx reads on a host."""
    dump = scratch / f"nginx-{host}.conf"
    dump.write_text(lab.ssh(host, "nginx -T 2>/dev/null") + "\n")
    files = dump.read_text().count("# configuration file ")
    done = subprocess.run(
        [str(ROOT / ".venv/bin/gixy"), "-f", "json", str(dump)], capture_output=True, text=True
    )
    assert done.stdout.strip(), done.stderr
    found: dict[str, str] = {}
    for each in json.loads(done.stdout):
        found.setdefault(each["plugin"], f"{each['severity']}: {each['summary']}: {each['reason']}")
    return Verdict(f"{len(found)} kinds of finding in {files} files", found)


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
