"""Each alert fires by its condition and ends with it; what it reads and says exists."""

from __future__ import annotations

import re
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from rendering import BOOKWORM, JAMMY, ROOT, Role
from rules import alerts, metrics_of, rendered, rules, runbooks, write, write_behind

HERE = Path(__file__).parent
CASES: dict[str, dict[str, Any]] = yaml.load(
    (HERE / "rule_cases.yml").read_text(),
    yaml.BaseLoader,  # 0x20 is twenty-one zeros, no number
)
LAYERS = {"gpu", "engine", "app", "edge", "data", "host", "watch"}


def group(name: str, case: dict[str, Any]) -> dict[str, Any]:
    """Return one case as promtool takes it."""
    labels = {"alertname": name.split()[0], "alertstate": "firing", **case.get("labels", {})}
    matchers = ",".join(f'{key}="{value}"' for key, value in labels.items())
    wanted = [(case["fires"], [{"labels": "{}", "value": 1}])] if "fires" in case else []
    wanted += [(moment, []) for moment in case["quiet"]]
    return {
        "name": name,
        "interval": case.get("interval", "1m"),
        "input_series": [
            {"series": series, "values": values} for series, values in case["series"].items()
        ],
        "promql_expr_test": [
            {
                "expr": f"count(ALERTS{{{matchers}}}) # {name}",
                "eval_time": moment,
                "exp_samples": samples,
            }
            for moment, samples in wanted
        ],
    }


@pytest.fixture(scope="module")
def complaints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What promtool says against each case, all of them asked in one run."""
    folder = tmp_path_factory.mktemp("rules")
    cases: dict[str, list[str]] = {}
    for name in CASES:
        cases.setdefault(name.split()[0], []).append(name)
    paths = []
    for alert, names in cases.items():
        document = {
            "rule_files": [write_behind(alert, folder).name],
            "evaluation_interval": "15s",
            "tests": [group(name, CASES[name]) for name in names],
        }
        paths.append(folder / f"{alert}.test.yml")
        paths[-1].write_text(yaml.safe_dump(document))
    done = subprocess.run(["promtool", "test", "rules", *paths], capture_output=True, text=True)
    said = done.stdout + done.stderr
    found: dict[str, str] = {}
    for name, what in re.findall(r'expr: ".* # (.*)", (time: (?:.*\n)*?.*got:.*)', said):
        found[name] = found.get(name, "") + what + "\n"
    if done.returncode and not found:
        pytest.fail(said, pytrace=False)
    return found


@pytest.mark.parametrize("name", CASES)
def test_it_fires_by_its_condition_and_ends_with_it(name: str, complaints: dict[str, str]) -> None:
    assert complaints.get(name, "") == ""


def test_every_alert_has_a_case_that_fires() -> None:
    assert {name.split()[0] for name, case in CASES.items() if "fires" in case} == set(alerts())


def test_promtool_takes_the_rules_of_every_release(tmp_path: Path) -> None:
    done = subprocess.run(
        ["promtool", "check", "rules", *write(tmp_path)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "keep_firing_for" in rendered("app")
    assert "keep_firing_for" not in rendered("app", JAMMY)


def test_an_alert_that_nobody_is_told_of_explains_no_other() -> None:
    off = ["NotReady", "RedisDown"]
    text = rendered("edge", prometheus_alerts_off=off) + rendered("app", prometheus_alerts_off=off)
    assert '"ModelDown|PostgresDown|EdgeDown|NginxDown"' in text
    host = rendered("host", prometheus_alerts_off=["HostDown", "EngineDown"])
    assert 'alertname=~"", alertstate' in host
    assert 'alertname="EngineDown"' not in host
    assert 'alertname="AppDown"' in host
    assert 'alertname=~"NotReady"' not in text
    assert 'alertname=~"NotReady"' in rendered("app")


def test_waiting_times_are_scaled_by_one_variable() -> None:
    whole, tenth = (
        yaml.safe_load(rendered("host", prometheus_time_scale=scale))["groups"][0]["rules"]
        for scale in (1.0, 0.1)
    )
    found = {rule["alert"]: rule for rule in tenth if "alert" in rule}
    for rule in (rule for rule in whole if "for" in rule):
        assert int(found[rule["alert"]]["for"][:-1]) == int(rule["for"][:-1]) / 10
    assert "[60s]" in found["OutOfMemoryKill"]["expr"]


@pytest.mark.parametrize("name", alerts())
def test_an_alert_says_how_grave_it_is_and_what_cures_it(name: str) -> None:
    document = alerts()[name].document
    labels, annotations = document["labels"], document["annotations"]
    assert labels["severity"] in {"critical", "warning"}
    assert labels["layer"] in LAYERS
    assert set(annotations) == {"summary", "description", "runbook", "cure"}
    assert annotations["runbook"] == f"docs/runbooks/{name}.md"
    assert annotations["cure"].startswith("ops ")


def test_the_missions_floors_are_the_defaults() -> None:
    role = Role("prometheus", BOOKWORM)
    floors = {
        "prometheus_gpu_temperature_celsius": 85,
        "prometheus_gpu_memory_ratio": 0.95,
        "prometheus_app_error_ratio": 0.05,
        "prometheus_disk_ratio": 0.85,
    }
    assert {name: role.value(name) for name in floors} == floors


def test_every_threshold_of_the_role_is_used() -> None:
    texts = (
        "".join(
            path.read_text()
            for path in (ROOT / "roles/prometheus").rglob("*")
            if path.suffix == ".j2"
        )
        + (ROOT / "roles/prometheus/vars/main.yml").read_text()
    )
    names = yaml.safe_load((ROOT / "roles/prometheus/defaults/main.yml").read_text())
    assert [name for name in names if name not in texts] == []


def test_annotations_name_labels_that_their_alert_has() -> None:
    for name, case in CASES.items():
        if "fires" not in case or " " in name:
            continue
        rule = alerts()[name]
        text = " ".join(rule.document["annotations"].values())
        used = set(re.findall(r"\$labels\.(\w+)", text))
        known = {"alertname", "severity", "layer"}
        for series in case["series"]:
            known |= set(re.findall(r"(\w+)=", series))
        by = re.search(r"(?:sum|max|count|histogram_quantile).*? by \(([^)]*)\)", rule.expression)
        aggregated = rule.expression.lstrip("( \n").startswith(("sum by", "max by", "count by"))
        if by and aggregated:
            known = set(re.split(r",\s*", by[1]))
        assert used <= known | {"model"}, f"{name}: {used - known}"


# -- what the rules read exists -----------------------------------------------------------------


def names_of_page(text: str) -> set[str]:
    """Name the series of a page, those of histograms that have no sample yet as well."""
    found = {re.split(r"[{ ]", line)[0] for line in text.splitlines() if line[:1] not in ("#", "")}
    for name, kind in re.findall(r"^# TYPE (\S+) (\w+)", text, re.MULTILINE):
        ends = {"histogram": ("_bucket", "_sum", "_count")}.get(kind, ("",))
        found |= {name + end for end in ends}
    return found


@cache
def known_metrics() -> set[str]:
    from prometheus_client import REGISTRY, generate_latest

    import agent_app.observability.metrics  # noqa: F401 # registers the app's

    versions: dict[str, list[set[str]]] = {}
    for path in sorted((HERE / "pages").glob("*.txt")):
        versions.setdefault(path.stem.partition("-")[0], []).append(names_of_page(path.read_text()))
    pages = [path.read_text() for path in (ROOT / "tests/contract/recorded").glob("vllm*.txt")]
    pages.append(generate_latest(REGISTRY).decode())
    found = set().union(*map(names_of_page, pages))
    # Of an exporter whose pages of several releases are here, what every one of them has.
    found |= set().union(*(set.intersection(*names) for names in versions.values()))
    # What a simulated GPU lacks or has not had yet, by the page that a test holds to the exporter.
    exporter = (ROOT / "docs/gpu-exporter.md").read_text()
    found |= set(re.findall(r"^\| `(gpu_\w+)", exporter, re.MULTILINE))
    facts = (ROOT / "roles/exporters/files/facts.py").read_text()
    found |= set(re.findall(r'^    "(rackhand_\w+)":', facts, re.MULTILINE))
    found |= {rule.record for rule in rules() if rule.record}
    for program in ("backup/files/backup.py", "wal_stream/files/wal_guard.py"):
        text = (ROOT / "roles" / program).read_text()
        found |= set(re.findall(r'^    "(rackhand_\w+)":', text, re.MULTILINE))
    return found | {"up", "ALERTS"}  # Prometheus' own


def test_the_parser_of_expressions_sees_metrics_and_nothing_else() -> None:
    expression = (
        'sum by (host) (rate(a:b_total{x=~"y|z"}[5m])) / on (host) c_d > bool 0.5 and e unless f'
    )
    assert metrics_of(expression) == {"a:b_total", "c_d", "e", "f"}


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule.alert or rule.record)
def test_every_metric_that_a_rule_reads_is_on_a_recorded_page(rule: Any) -> None:
    assert metrics_of(rule.expression) - known_metrics() == set()


# -- runbooks -----------------------------------------------------------------------------------


def test_each_alert_has_a_runbook_and_each_runbook_an_alert() -> None:
    assert runbooks() == set(alerts())


def commands_of(text: str) -> set[str]:
    """The commands of `ops` that a text names, in backticks or, as a cure does, after a comma."""
    named = re.findall(r"(?<![\w-])ops [a-z][^`,;)]*", re.sub(r"{{.*?}}", "1", text))
    return {words.strip() for words in named}


def complaint(words: str) -> str:
    """What `ops` says against a command line, empty if it takes it. Placeholders stand as values;
    a command may be named without what it needs."""
    import typer

    from ops.cli.main import COMMANDS

    _, name, *rest = (word for word in words.split() if word != "--help")
    if name not in COMMANDS:
        return f"no command {name}"
    command = typer.main.get_command(COMMANDS[name].load())
    while below := getattr(command, "commands", None):
        if not rest or rest[0] not in below:
            return f"{name} has no command {rest[0]}" if rest else ""
        name = rest.pop(0)
        command = below[name]
    numbers = ["1" if word == "N" else word for word in rest]
    try:
        command.make_context(name, numbers)
    except Exception as error:  # typer has its own click, whose exceptions it does not export
        return "" if type(error).__name__ == "MissingParameter" else str(error)
    return ""


def test_ops_takes_every_command_that_alerts_and_runbooks_name() -> None:
    cures = {name: rule.document["annotations"]["cure"] for name, rule in alerts().items()}
    pages = {path.name: path.read_text() for path in (ROOT / "docs/runbooks").glob("*.md")}
    named = [
        (name, words)
        for name, text in cures.items()
        for words in commands_of(text.replace(", or ", " , "))
    ]
    named += [
        (name, words)
        for name, text in pages.items()
        for span in re.findall(r"`(ops [^`]*)`", text)
        for words in commands_of(span)
    ]
    refused = {f"{name}: {words}: {why}" for name, words in named if (why := complaint(words))}
    assert refused == set()


@pytest.mark.parametrize("name", sorted(runbooks()))
def test_a_runbook_says_what_to_look_at_and_which_command_cures_it(name: str) -> None:
    text = (ROOT / f"docs/runbooks/{name}.md").read_text()
    assert text.startswith(f"# {name}\n")
    assert "\n## Look\n- " in text
    cure = text.partition("\n## Cure\n")[2]
    assert commands_of(cure) or "](" in cure
