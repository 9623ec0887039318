"""Dashboards and the report on a fleet that serves: real exporters, a real Prometheus, real data.

Engines are the stand-in and GPUs the simulator's. Grafana's repository is out of reach here: the
role says so; what it does around the package is shown with a stand-in's.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from grafana_package import PORT, SERVER, Made, make
from operators import ops
from stack import STAND_IN, Lab, SiteRun, Stack, run_site
from traffic import traffic

from ops.demo.prepare import ensure_key
from ops.lab.fleet_plan import require_plan
from ops.monitoring import prometheus
from ops.report.answers import Answers, collect
from ops.report.question import Question
from ops.secrets.vault import read_secrets

pytestmark = [pytest.mark.lab, pytest.mark.long, pytest.mark.timeout(1800)]

WATCH, GPUS = "node1", "node2"
ASK = "curl -sf --retry 5 --retry-connrefused http://127.0.0.1:3000"
SCRAPE_SECONDS = 15
TRAFFIC_SECONDS = 75
#: Panels that say why they have nothing, and are right here: no MCP server, no tool called, nobody
#: had to wait, a stand-in without a prefix cache, simulated GPUs without a process and at rest.
MAY_LACK = {
    "MCP servers", "Time of a tool", "Queue", "Prefix cache", "Memory by owner",
    "Tokens per watt-hour",
}  # fmt: skip


@pytest.fixture(scope="module")
def stack(labs: Callable[..., Lab]) -> Iterator[Stack]:
    """node1: edge, app, data, monitoring; node2: two simulated GPUs and the engine."""
    made = Stack(labs(2, "ubuntu-24.04-facade", "H100:2"))
    # A load's requests, where the edge would take ten a second from one address; and the GPUs,
    # which the lab's model does not name.
    settings = {
        "edge": "nginx_requests_per_second: 1000\nnginx_request_burst: 200\n",
        "gpu": "gpu_exporter_expected: 2\n",
    }
    files = {made.lab.inventory / f"group_vars/{name}.yml": text for name, text in settings.items()}
    for path, text in files.items():
        path.write_text(f"---\n{text}")
    first = run_site(made.lab, "-e", STAND_IN)
    assert first.status == 0, first.output[-6000:]
    made.runs["first run"] = first
    made.key = ensure_key(made.fleet, require_plan(made.lab.name).paths.root / "test_key")
    made.wait_until_ready()
    yield made
    for path in files:
        path.unlink()


@pytest.fixture(scope="module")
def answers(stack: Stack) -> Answers:
    """What every panel says after a minute of load."""
    with traffic(stack) as running:
        time.sleep(TRAFFIC_SECONDS)
    assert running.failures == [], running.told()
    time.sleep(2 * SCRAPE_SECONDS)
    with prometheus(stack.fleet) as source:
        return collect(source, Question(time.time(), 600))


def test_every_query_is_understood_and_has_data_where_it_should(answers: Answers) -> None:
    lacking = {
        f"{board.name}: {answer.panel.title}": answer.why
        for board, found in answers.sections
        for answer in found
        if answer.why
        and not answer.why.startswith("None ")
        and not (answer.panel.optional and answer.panel.title in MAY_LACK)
    }
    assert lacking == {}


def test_every_series_has_a_name_and_a_true_value(answers: Answers, stack: Stack) -> None:
    told = {
        (board.name, answer.panel.title): {line.name: line.last for line in answer.lines}
        for board, found in answers.sections
        for answer in found
    }
    assert all("{{" not in name for lines in told.values() for name in lines)
    assert told["gpu", "GPUs that answer"] == {f"{GPUS} GPU 0": 1, f"{GPUS} GPU 1": 1}
    slots = told["engine", "Slots"]
    assert sorted(slots.values()) == [0, 1], slots
    up = told["fleet", "Hosts and services"]
    assert set(up.values()) == {1}, up
    assert {name.split(" on ")[1] for name in up} == {WATCH, GPUS}
    (requests,) = told["fleet", "Requests"].values()
    assert requests is not None and requests > TRAFFIC_SECONDS
    assert told["fleet", "Failed share"] == {"": 0.0}
    (days,) = told["edge", "Certificate"].values()
    assert days is not None and days > 1


def test_the_report_is_made_of_it(stack: Stack, answers: Answers, tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    said = ops(stack, "report", "--since", "10m", "--out", str(out), "--json")
    numbers, _ = json.JSONDecoder().raw_decode(said.output)  # what is told to people follows
    headline = {one["title"]: one["series"] for one in numbers["headline"]}
    assert headline["Requests"][0]["value"] > TRAFFIC_SECONDS
    assert headline["Availability"][0]["value"] > 0.9
    text = out.read_text()
    assert stack.fleet.domain in text
    assert text.count('class="plot"') > 40
    one = ops(stack, "report", "--since", "10m", "--limit", GPUS, "--json")
    seen = json.dumps(json.loads(one.output)["sections"])
    assert f"{GPUS} GPU 0" in seen
    assert f"node on {WATCH}" not in seen


# -- Grafana ------------------------------------------------------------------------------------


def play(stack: Stack, *arguments: str) -> SiteRun:
    return run_site(stack.lab, "--tags", "grafana", "--limit", WATCH, "-e", STAND_IN, *arguments)


def on_watch(stack: Stack, command: str, *, check: bool = True) -> str:
    return stack.lab.ssh(WATCH, command, check=check)


def test_a_grafana_that_cannot_be_had_is_told_in_one_line_and_nothing_is_left(
    stack: Stack,
) -> None:
    told = " ".join(stack.runs["first run"].output.split())  # Ansible folds it as it likes
    assert told.count("Grafana is left out: https://apt.grafana.com is out of reach, ") == 1
    assert "Cure: set grafana_repo_url" in told
    again = play(stack, "--diff")
    assert (again.status, again.total("changed")) == (0, 0), again.output[-3000:]
    assert (
        on_watch(stack, "ls /etc/grafana /etc/apt/sources.list.d/*grafana* 2>&1; true").count(
            "No such file"
        )
        == 2
    )


@pytest.fixture(scope="module")
def repository(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """The stand-in's repository, served by the host itself."""
    made = make(tmp_path_factory.mktemp("grafana"))
    on_watch(
        stack,
        f"printf '%s' {made.archive} | base64 -d | tar -xzC /srv && "
        f"printf '%s' '{SERVER}' > /run/systemd/system/grafana-repo.service && "
        "systemctl daemon-reload && systemctl start grafana-repo && sleep 1",
    )
    return made


def settings(made: Made, **more: Any) -> tuple[str, str]:
    return "-e", json.dumps(
        {
            "grafana_repo_url": f"http://127.0.0.1:{PORT}",
            "grafana_repo_key_file": str(made.key),
            "grafana_repo_key_fingerprint": made.fingerprint,
            **more,
        }
    )


@pytest.fixture(scope="module")
def installed(stack: Stack, repository: Made) -> SiteRun:
    """Grafana runs, and has a database: a password that changes then is another case."""
    check = play(stack, "--check", *settings(repository))
    assert check.status == 0, check.output[-4000:]
    assert "No such file" in on_watch(stack, "ls /etc/grafana 2>&1; true")
    first = play(stack, *settings(repository))
    assert first.status == 0, first.output[-4000:]
    on_watch(stack, f"{ASK} && test -e /var/lib/grafana/grafana.db")
    return first


def test_with_a_repository_it_runs_on_loopback_with_its_password(
    stack: Stack, repository: Made, installed: SiteRun
) -> None:
    again = play(stack, "--diff", *settings(repository))
    assert (again.status, again.total("changed")) == (0, 0), again.output[-4000:]
    secret = read_secrets(stack.lab.inventory)["grafana_admin"]["value"]
    answer = json.loads(on_watch(stack, ASK))
    assert answer["password"] == secret
    assert on_watch(stack, "ss -Hltn 'sport = 3000' | awk '{print $4}'") == "127.0.0.1:3000"
    folder = "/etc/grafana/rackhand_dashboards"
    assert on_watch(stack, f"ls {folder} | wc -l") == "6"
    said = on_watch(stack, "systemd-analyze security grafana-server --no-pager | tail -1")
    assert float(said.split()[-3]) <= 2.0, said
    assert secret not in installed.output
    assert secret not in on_watch(stack, "grep -rh . /etc/grafana; ps -ww -eo args")


@pytest.mark.usefixtures("installed")
def test_a_new_password_is_set_and_a_switched_off_grafana_stops(
    stack: Stack, repository: Made
) -> None:
    changed = play(stack, *settings(repository, grafana_admin_password="another"))
    assert changed.status == 0, changed.output[-4000:]
    assert on_watch(stack, "cat /var/lib/grafana/reset") == "another"
    off = play(stack, *settings(repository, grafana_enabled=False))
    assert (off.status, off.total("changed")) == (0, 1), off.output[-4000:]
    state = "systemctl is-active grafana-server; systemctl is-enabled grafana-server; true"
    assert on_watch(stack, state).split() == ["inactive", "disabled"]
    again = play(stack, *settings(repository, grafana_enabled=False))
    assert (again.status, again.total("changed")) == (0, 0), again.output[-4000:]
