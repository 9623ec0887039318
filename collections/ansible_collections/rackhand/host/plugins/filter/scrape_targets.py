# Copyright: the Rackhand founders
"""What Prometheus scrapes of one host, from its groups and models."""

from __future__ import annotations

DOCUMENTATION = r"""
name: scrape_targets
short_description: What Prometheus scrapes of one host
description:
  - Gives the targets of a host from what the inventory says of it; nothing is discovered.
  - Every target has labels C(host) and C(instance); engines have C(model) and C(slot) as well.
options:
  _input:
    description:
      - "The host: C(name), C(groups), C(address) (where its private services listen), C(models),
        C(gpus) (how many it has or should have), C(single) (whether the fleet is this host alone),
        C(app_ports) and C(app_metrics_ports), C(redis) (URL by instance), C(domain),
        C(remediator_port) (0 where none runs here)."
    type: dict
    required: true
"""

EXAMPLES = r"""
targets: "{{ {'name': 'node1', 'groups': ['gpu'], 'address': '10.0.0.11', ...} | rackhand.host.scrape_targets }}"
"""

RETURN = r"""
_value:
  description: Entries with C(job), C(address) (host:port) and C(labels), as Prometheus' static_configs take them.
  type: list
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

LOOPBACK = "127.0.0.1"
#: Ports of docs/architecture.md; those of the exporters are their packages' own.
PROMETHEUS, ALERTMANAGER, NODE, POSTGRES, REDIS, NGINX, BLACKBOX, GPU = (
    *(9090, 9093, 9100, 9187, 9121, 9113, 9115, 9835),
)
FIRST_SLOT, SLOTS, SLOT_METRICS = 8100, ("blue", "green"), 8501
#: Paths that tell whether the edge serves: its chain up to the app, and all that the app needs.
PROBED = ("/health", "/ready")

Target = dict[str, Any]


def scrape_targets(host: Mapping[str, Any]) -> list[Target]:
    """Return the targets of a host, in a stable order."""
    return [target for part in PARTS for target in part(host)]


def target(host: Mapping[str, Any], job: str, port: int, **labels: str) -> Target:
    """Return one target."""
    named = {"host": host["name"], "instance": host["name"], **labels}
    return {"job": job, "address": f"{host['address']}:{port}", "labels": named}


def beside(found: Target) -> Target:
    """Return a target that is on the loopback of whoever scrapes it."""
    port = found["address"].rpartition(":")[2]
    return {**found, "address": f"{LOOPBACK}:{port}"}


def watch(host: Mapping[str, Any]) -> Iterator[Target]:
    """Prometheus and Alertmanager themselves, and the remediator."""
    if "monitoring" in host["groups"]:
        yield beside(target(host, "prometheus", PROMETHEUS))
        yield beside(target(host, "alertmanager", ALERTMANAGER))
    if host["remediator_port"]:
        yield beside(target(host, "remediator", int(host["remediator_port"])))


def machine(host: Mapping[str, Any]) -> Iterator[Target]:
    """The host itself, and its GPUs."""
    yield target(host, "node", NODE)
    if "gpu" in host["groups"] and int(host["gpus"]) > 0:
        yield target(host, "gpu", GPU)


def engines(host: Mapping[str, Any]) -> Iterator[Target]:
    """Both slots of each model: on loopback, or through nginx where Prometheus is elsewhere."""
    if "gpu" not in host["groups"]:
        return
    for index, model in enumerate(host["models"]):
        for offset, slot in enumerate(SLOTS):
            labels = {
                "instance": f"{model['name']}-{slot}",
                "model": model["name"],
                "slot": slot,
            }
            if host["single"]:
                yield target(host, "engine", FIRST_SLOT + 2 * index + offset, **labels)
            else:
                labels["__metrics_path__"] = f"/{model['name']}/{slot}/metrics"
                labels["__scheme__"] = "https"
                yield target(host, "engine", SLOT_METRICS, **labels)


def app(host: Mapping[str, Any]) -> Iterator[Target]:
    """Each instance of the agent app."""
    if "agent" in host["groups"]:
        for port, metrics in zip(host["app_ports"], host["app_metrics_ports"], strict=True):
            yield target(host, "agent_app", metrics, instance=f"agent_app@{port}")


def data(host: Mapping[str, Any]) -> Iterator[Target]:
    """PostgreSQL, and each instance of Redis through its exporter."""
    if "data" in host["groups"]:
        yield target(host, "postgres", POSTGRES)
        for name, url in host["redis"].items():
            labels = {"instance": name, "__metrics_path__": "/scrape", "__param_target": url}
            yield target(host, "redis", REDIS, **labels)


def edge(host: Mapping[str, Any]) -> Iterator[Target]:
    """The host's nginx, and what a client of the edge sees."""
    if {"gpu", "edge"} & set(host["groups"]):
        yield target(host, "nginx", NGINX)
    if "edge" in host["groups"]:
        for path in PROBED:
            labels = {
                "instance": f"{host['domain']}{path}",
                "__metrics_path__": "/probe",
                "__param_module": "edge",
                "__param_target": f"https://{host['address']}{path}",
            }
            yield beside(target(host, "blackbox", BLACKBOX, **labels))


PARTS = (watch, machine, engines, app, data, edge)


class FilterModule:
    """The collection's filters of this file."""

    def filters(self) -> dict[str, Callable[..., list[Target]]]:
        """Name to function."""
        return {"scrape_targets": scrape_targets}
