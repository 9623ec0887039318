"""Which metrics an expression reads, and which there are."""

from __future__ import annotations

import re
from functools import cache

from prometheus_client import REGISTRY, generate_latest

import agent_app.observability.metrics  # noqa: F401 # registers the app's
from ops.gpu_exporter.page import HOST_METRICS, METRICS
from ops.places import ROOT

KEYWORDS = {"and", "or", "unless", "bool", "by", "on", "without", "ignoring"}
#: Prometheus makes these of each scrape and each alert.
ITS_OWN = {"up", "scrape_duration_seconds", "ALERTS"}


def metrics_of(expression: str) -> set[str]:
    """Name the metrics that an expression reads."""
    text = re.sub(r'"[^"]*"', '""', expression)
    text = re.sub(r"\{[^}]*\}|\[[^\]]*\]", "", text)
    text = re.sub(r"\b(by|on|without|ignoring|group_left)\s*\([^)]*\)", "", text)
    names = re.findall(r"(?<![\w.$])([a-zA-Z_:][\w:]*)(\s*\()?", text)
    return {name for name, call in names if not call and name not in KEYWORDS}


def names_of_page(text: str) -> set[str]:
    """Name the series of a page, those without a sample yet as well."""
    found = {re.split(r"[{ ]", line)[0] for line in text.splitlines() if line[:1] not in ("#", "")}
    for name, kind in re.findall(r"^# TYPE (\S+) (\w+)", text, re.MULTILINE):
        ends = ("_bucket", "_sum", "_count") if kind == "histogram" else ("",)
        found |= {name + end for end in ends}
    return found


@cache
def known_metrics() -> set[str]:
    """Name what recorded pages of the packages, and our own programs, show."""
    pages = [path.read_text() for path in (ROOT / "tests/unit/monitoring/pages").glob("*.txt")]
    pages += [path.read_text() for path in (ROOT / "tests/contract/recorded").glob("vllm*.txt")]
    pages.append(generate_latest(REGISTRY).decode())
    facts = (ROOT / "roles/exporters/files/facts.py").read_text()
    gpus = {metric.exposed_name for metric in (*HOST_METRICS, *METRICS)}
    told = set(re.findall(r'^    "(rackhand_\w+)":', facts, re.MULTILINE))
    return set().union(*map(names_of_page, pages), gpus, told, ITS_OWN)
