"""What the one address of a host's engines promises."""

from __future__ import annotations

import json
from pathlib import PurePosixPath

import pytest
from testinfra.host import Host as Connection

from ops.fleet import Fleet, Host
from ops.verify.probes import assert_listens_only_at, assert_unit_runs, http

GROUPS = ("gpu",)
PRIVATE = ("/metrics", "/v1/load_lora_adapter", "/pause", "/tokenize", "/docs", "/openapi.json")
CA = "/etc/rackhand/tls/ca.crt"


@pytest.fixture
def base(fleet: Fleet, address: str) -> str:
    """The proxy's address without its port."""
    return f"http://{address}" if fleet.single else f"https://{address}"


@pytest.fixture
def roots(fleet: Fleet) -> str:
    """The roots that the proxy's certificate ends in."""
    return "" if fleet.single else CA


def test_nginx_runs_and_comes_back_after_a_reboot(host: Connection) -> None:
    assert_unit_runs(host, "nginx.service")


def test_the_configuration_on_disk_is_valid(host: Connection) -> None:
    result = host.run("nginx -t -q")
    assert result.rc == 0, result.stderr.strip()


def test_it_listens_on_the_private_address_only(
    host: Connection, target: Host, address: str
) -> None:
    for model in target.models:
        assert_listens_only_at(host, model.proxy_port, {address})


def test_every_model_answers_a_real_completion(
    host: Connection, target: Host, base: str, roots: str
) -> None:
    for model in target.models:
        url = f"{base}:{model.proxy_port}/v1/chat/completions"
        body = {
            "model": model.name,
            "messages": [{"role": "user", "content": "Hello"}],
            "max_tokens": 1,
        }
        status, text = http(host, url, body=body, ca=roots, seconds=60)
        assert status == 200, f"{model.name} answers {status}: {text[:300]}"
        tokens = json.loads(text)["usage"]["completion_tokens"]
        assert tokens == 1, f"{model.name} made {tokens} tokens"


@pytest.mark.parametrize("path", PRIVATE, ids=lambda path: PurePosixPath(path).name)
def test_the_engines_private_endpoints_are_not_found(
    host: Connection, target: Host, base: str, roots: str, path: str
) -> None:
    for model in target.models:
        status, _ = http(host, f"{base}:{model.proxy_port}{path}", ca=roots)
        assert status == 404, f"{path} of {model.name} answers {status}"
