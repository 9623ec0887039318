"""Judges that we did not write, on a host that serves: before role hardening and after.

Each test writes its part of docs/results/<date>-judges.md. What a judge still finds is explained in
explained.yml; a finding that is not fails.
"""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from judges import verdicts
from judges.explained import explanations, reason, unexplained
from judges.verdicts import Verdict
from results import add_to_result
from stack import STAND_IN, Lab, Stack, run_site

pytestmark = [pytest.mark.lab, pytest.mark.long, pytest.mark.timeout(1500)]

PARTS = ("firewall", "ssh", "upgrades", "fail2ban", "kernel", "accounts")
OFF = ("-e", json.dumps({f"hardening_{part}_enabled": False for part in PARTS}))
OURS = ("engine@", "agent_app@", "agent_app_", "gpu_exporter", "rackhand-", "remediator")
MOST_EXPOSED = 2.0
TITLE = "Judges that we did not write, before role hardening and after"
HEADINGS = ("Judge", "Of what", "Before", "After", "What is left, and why")
NOTES = """\
Lynis and systemd-analyze judge a booted lab host (a container: what the kernel and the boot loader
of its machine decide is left to that machine), testssl.sh its edge from another host, gixy all that
nginx reads there, bandit the source. Before: site.yml with every part of role hardening off."""


@pytest.fixture(scope="module")
def stack(labs: Callable[..., Lab]) -> Stack:
    """A host that serves, without role hardening."""
    made = Stack(labs(1, "trixie", purpose="judged"))
    first = run_site(made.lab, "-e", STAND_IN, *OFF)
    assert first.status == 0, first.output[-6000:]
    return made


@pytest.fixture(scope="module")
def before(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Verdict]:
    return verdicts_of(stack, tmp_path_factory.mktemp("before"))


@pytest.fixture(scope="module")
def after(
    stack: Stack, before: dict[str, Verdict], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Verdict]:
    assert before
    hardened = run_site(stack.lab, "-e", STAND_IN)
    assert hardened.status == 0, hardened.output[-6000:]
    return verdicts_of(stack, tmp_path_factory.mktemp("after"))


def verdicts_of(stack: Stack, scratch: Path) -> dict[str, Verdict]:
    edge = stack.fleet.first("edge")
    exposed = verdicts.exposures(stack.lab, edge.name)
    return {
        "lynis": verdicts.lynis(stack.lab, edge.name),
        "exposure": Verdict("", {unit: str(level) for unit, level in exposed.items()}),
        "testssl": verdicts.testssl(stack.lab, edge.address, stack.fleet.domain, stack.roots),
        "gixy": verdicts.gixy(stack.lab, edge.name, scratch),
    }


def write(judge: str, what: str, was: str, verdict: Verdict) -> None:
    """Write a judge's row, and a row for each finding that is left."""
    known = explanations(judge)
    rows = [(judge, what, was, verdict.figure, f"{len(verdict.findings)} findings, below")]
    for name, said in sorted(verdict.findings.items()):
        why = reason(known, name) or "NOT EXPLAINED"
        rows.append((judge, name, "", said.replace("|", "/").replace("\n", " "), why))
    add_to_result("judges", TITLE, HEADINGS, rows, NOTES, key=2)


def test_lynis_rates_the_host_higher_and_what_it_finds_is_explained(
    before: dict[str, Verdict], after: dict[str, Verdict]
) -> None:
    write("lynis", "hardening index", before["lynis"].figure, after["lynis"])
    assert int(after["lynis"].figure) > int(before["lynis"].figure)
    assert unexplained("lynis", after["lynis"].findings) == {}


def test_the_edge_gets_the_best_grade(
    before: dict[str, Verdict], after: dict[str, Verdict]
) -> None:
    write("testssl", "grade of the edge", before["testssl"].figure, after["testssl"])
    assert after["testssl"].figure == "A+", after["testssl"].findings
    assert unexplained("testssl", after["testssl"].findings) == {}


def test_gixy_finds_nothing_in_nginx_files_that_is_not_explained(
    before: dict[str, Verdict], after: dict[str, Verdict]
) -> None:
    write("gixy", "what nginx reads", before["gixy"].figure, after["gixy"])
    assert unexplained("gixy", after["gixy"].findings) == {}


def test_every_unit_of_ours_is_sandboxed_and_the_packages_are_as_recorded(
    before: dict[str, Verdict], after: dict[str, Verdict]
) -> None:
    known, was = explanations("exposure"), before["exposure"].findings
    rows, loose = [], {}
    for unit, level in sorted(after["exposure"].findings.items()):
        ours = unit.startswith(OURS)
        why = "" if ours else reason(known, unit)
        rows.append(("systemd-analyze", unit, was.get(unit, "-"), level, why or "ours"))
        if (ours and float(level) > MOST_EXPOSED) or not (ours or why):
            loose[unit] = level
    add_to_result("judges", TITLE, HEADINGS, rows, NOTES, key=2)
    assert [unit for unit in after["exposure"].findings if unit.startswith(OURS)]
    assert loose == {}


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
    add_to_result("judges", TITLE, HEADINGS, rows, NOTES, key=2)
    assert unexplained("bandit", verdict.findings) == {}
