"""Judges that we did not write, on a host that serves: before role hardening and after.

Each test writes its part of docs/results/<date>-judges.md. What a judge still finds is explained in
explained.yml; a finding that is not fails.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from judges import verdicts
from judges.explained import explanations, reason, recorded_exposure, unexplained
from judges.verdicts import Verdict
from results import add_to_result
from stack import STAND_IN, Lab, Stack, run_site

from ops.places import ROOT
from ops.remote import connect
from ops.remote.connection import open_line
from ops.remote.forward import forwarded
from ops.verify.ports import ssh_ports, world_ports

pytestmark = [pytest.mark.lab, pytest.mark.long, pytest.mark.timeout(1500)]

PARTS = ("firewall", "ssh", "upgrades", "fail2ban", "kernel", "accounts")
OFF = ("-e", json.dumps({f"hardening_{part}_enabled": False for part in PARTS}))
OURS = ("engine@", "agent_app@", "agent_app_", "gpu_exporter", "rackhand-", "remediator")
MOST_EXPOSED = 2.0
GPU_UNITS = ("gpu-partitions.service", "nvidia-persistenced.service")
GPU_TEMPLATES = ROOT / "roles/nvidia_driver/templates/host/etc/systemd/system"
TITLE = "Judges that we did not write, before role hardening and after"
HEADINGS = ("Judge", "Of what", "Before", "After", "What is left, and why")
NOTES = """\
Lynis and systemd-analyze judge a booted lab host (a container: what the kernel and the boot loader
of its machine decide is left to that machine), nmap its ports from a machine outside the fleet,
testssl.sh its edge from another host, gixy each file that nginx reads there, schemathesis the app
that serves there, shellcheck its scripts and the source's, bandit and ansible-lint the source.
Before: site.yml with every part of role hardening off; for a unit of a package, as the package
ships it. Semgrep is no judge here: its rules are not packaged, they come from its makers' registry
at the time of a run."""


@pytest.fixture(scope="module")
def stack(labs: Callable[..., Lab]) -> Stack:
    """A host that serves, without role hardening."""
    made = Stack(labs(1, "trixie", purpose="judged"))
    first = run_site(made.lab, "-e", STAND_IN, *OFF)
    assert first.status == 0, first.output[-6000:]
    return made


@pytest.fixture(scope="module")
def before(stack: Stack) -> dict[str, Verdict]:
    return verdicts_of(stack)


@pytest.fixture(scope="module")
def after(stack: Stack, before: dict[str, Verdict]) -> dict[str, Verdict]:
    assert before
    hardened = run_site(stack.lab, "-e", STAND_IN)
    assert hardened.status == 0, hardened.output[-6000:]
    return verdicts_of(stack)


def verdicts_of(stack: Stack) -> dict[str, Verdict]:
    """What role hardening may change a judge's mind of."""
    edge = stack.fleet.first("edge")
    return {
        "lynis": verdicts.lynis(stack.lab, edge.name),
        "nmap": verdicts.open_ports(edge.address),
        "testssl": verdicts.testssl(stack.lab, edge.address, stack.fleet.domain, stack.roots),
    }


def write(judge: str, what: str, was: str, verdict: Verdict) -> None:
    """Write a judge's row, and a row for each finding that is left."""
    known = explanations(judge)
    rows = [(judge, what, was, verdict.figure, f"{len(verdict.findings)} findings, below")]
    for name, said in sorted(verdict.findings.items()):
        why = reason(known, name) or "NOT EXPLAINED"
        rows.append((judge, name, "", said.replace("|", "/").replace("\n", " "), why))
    add_to_result("judges", TITLE, HEADINGS, rows, NOTES, key=2)


def write_rows(*rows: tuple[str, str, str, str, str]) -> None:
    add_to_result("judges", TITLE, HEADINGS, rows, NOTES, key=2)


def test_lynis_rates_the_host_higher_and_what_it_finds_is_explained(
    before: dict[str, Verdict], after: dict[str, Verdict]
) -> None:
    write("lynis", "hardening index", before["lynis"].figure, after["lynis"])
    assert int(after["lynis"].figure) > int(before["lynis"].figure)
    assert unexplained("lynis", after["lynis"].findings) == {}


def test_from_outside_only_the_ports_of_the_inventory_are_open_and_no_other_answers(
    stack: Stack, before: dict[str, Verdict], after: dict[str, Verdict]
) -> None:
    edge = stack.fleet.first("edge")
    wanted = {str(port): "open" for port in ssh_ports(edge) | world_ports(edge)}
    why = "what the inventory opens; from elsewhere there is no answer at any other"
    was, now = before["nmap"].figure, after["nmap"].figure
    write_rows(("nmap", "ports, from a machine outside the fleet", was, now, why))
    assert after["nmap"].findings == wanted


def test_the_edge_gets_the_best_grade(
    before: dict[str, Verdict], after: dict[str, Verdict]
) -> None:
    write("testssl", "grade of the edge", before["testssl"].figure, after["testssl"])
    assert after["testssl"].figure == "A+", after["testssl"].findings
    assert unexplained("testssl", after["testssl"].findings) == {}


def test_gixy_finds_nothing_in_nginx_files_that_is_not_explained(
    stack: Stack, after: dict[str, Verdict], tmp_path: Path
) -> None:
    assert after
    by_file = verdicts.gixy(stack.lab, stack.fleet.first("edge").name, tmp_path)
    known, unknown = explanations("gixy"), {}
    for name, verdict in by_file.items():
        unknown |= unexplained("gixy", verdict.findings)
        whys = [f"{each}: {reason(known, each) or said}" for each, said in verdict.findings.items()]
        write_rows(("gixy", name, "-", f"{verdict.figure} findings", "; ".join(whys) or "nothing"))
    assert len(by_file) > 3, "the main file, the edge's and the engines' are read"
    assert unknown == {}


def test_every_unit_of_ours_is_sandboxed_and_the_others_are_as_recorded(
    stack: Stack, after: dict[str, Verdict]
) -> None:
    assert after
    host = stack.fleet.first("edge").name
    levels = verdicts.exposures(stack.lab, host)
    packaged = verdicts.packaged_exposures(stack.lab, host)
    for unit in GPU_UNITS:  # this host has no GPU
        text = (GPU_TEMPLATES / f"{unit}.j2").read_text().replace("{{ ansible_managed }}", "")
        levels[unit] = verdicts.exposure_of_file(stack.lab, host, unit, text)
    rows, loose, others = [], {}, dict[str, list[str]]()
    for unit, level in sorted(levels.items()):
        ours = unit.startswith(OURS)
        most, why = (MOST_EXPOSED, "ours") if ours else recorded_exposure(unit)
        if level > most:
            loose[unit] = level
        was = packaged.get(re.sub(r"@[^.]*", "@", unit))
        if ours or was is not None or unit in GPU_UNITS:
            told = "-" if was is None else str(was)
            rows.append(("systemd-analyze", unit, told, str(level), why or "NOT EXPLAINED"))
        else:
            others.setdefault(why or "NOT EXPLAINED", []).append(f"{unit} {level}")
    for why, units in others.items():
        rows.append(("systemd-analyze", why, "-", f"{len(units)} units", ", ".join(units)))
    write_rows(*rows)
    assert [unit for unit in levels if unit.startswith(OURS)]
    assert [unit for unit in packaged if unit in levels]
    assert loose == {}


def test_schemathesis_finds_no_answer_of_the_app_that_its_document_does_not_know(
    stack: Stack, after: dict[str, Verdict], tmp_path: Path
) -> None:
    assert after
    host = stack.fleet.first("agent")
    made = stack.lab.ssh(
        host.name,
        "agent-app keys create --name judge --scope chat --scope admin --json "
        "--limit requests_per_minute=0 --limit tokens_per_minute=0 --limit concurrent_runs=0",
    )
    with connect(stack.fleet, host) as connection:
        open_line(connection)
        with forwarded(connection, 8200) as url:
            judged = verdicts.schemathesis(url, json.loads(made)["key"], tmp_path)
    said = f"{judged.cases} requests, " + ("no issues" if judged.sound else "ISSUES")
    write_rows(("schemathesis", "the app, by its OpenAPI document", "-", said, "nothing"))
    assert judged.sound, judged.output
    assert judged.cases > 100


def test_shellcheck_finds_nothing_in_the_scripts_of_the_source_and_of_the_host(
    stack: Stack, after: dict[str, Verdict], tmp_path: Path
) -> None:
    assert after
    verdict = verdicts.shellcheck(stack.lab, stack.fleet.first("edge").name, tmp_path)
    write_rows(("shellcheck", "shell scripts", "-", verdict.figure, "nothing"))
    assert verdict.findings == {}


def test_ansible_lint_finds_nothing_by_its_production_profile() -> None:
    verdict = verdicts.ansible_lint()
    write_rows(("ansible-lint", "roles and playbooks", "-", verdict.figure, "nothing"))
    assert verdict.findings == {}


def test_bandit_finds_nothing_in_the_source_that_is_not_explained() -> None:
    verdict = verdicts.bandit()
    known = explanations("bandit")
    by_test: dict[str, list[str]] = {}
    for finding in verdict.findings:
        by_test.setdefault(finding.partition(" ")[0], []).append(finding)
    rows = [("bandit", "the source", "-", verdict.figure, "below")]
    for test, findings in sorted(by_test.items()):
        reasons = dict.fromkeys(reason(known, each) or "NOT EXPLAINED" for each in findings)
        rows.append(("bandit", test, "-", f"in {len(findings)} files", "; ".join(reasons)))
    write_rows(*rows)
    assert unexplained("bandit", verdict.findings) == {}
