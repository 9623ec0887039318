"""What the public side promises, asked from here, as a client would."""

from __future__ import annotations

import pytest
from testinfra.host import Host as Connection

from ops.fleet import Fleet, Host
from ops.verify.edge import Edge
from ops.verify.probes import assert_unit_runs

GROUPS = ("edge",)
LEAST_DAYS = 10


@pytest.fixture
def edge(fleet: Fleet, target: Host, trusted: str) -> Edge:
    """The edge at hand, as seen from here."""
    return Edge(address=target.address, domain=fleet.domain, roots=trusted)


def test_nginx_runs_and_comes_back_after_a_reboot(host: Connection) -> None:
    assert_unit_runs(host, "nginx.service")


def test_the_certificate_is_trusted_and_names_the_domain(edge: Edge) -> None:
    edge.certificate()


def test_the_certificate_does_not_lapse_soon(edge: Edge) -> None:
    days = edge.days_left()
    assert days >= LEAST_DAYS, (
        f"it lapses in {days:.1f} days\ncure: journalctl -u certbot; certbot renew"
    )


@pytest.mark.parametrize("version", ["TLSv1", "TLSv1.1"])
def test_old_tls_is_refused(edge: Edge, version: str) -> None:
    assert not edge.speaks(version), f"{version} is accepted"


@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
def test_modern_tls_is_spoken(edge: Edge, version: str) -> None:
    assert edge.speaks(version), f"{version} is refused"


def test_an_unknown_name_gets_no_certificate(edge: Edge) -> None:
    assert not edge.speaks("TLSv1.3", name="unknown.invalid"), "the handshake succeeds"


def test_plain_http_leads_to_https(edge: Edge) -> None:
    status, headers = edge.plain("/chat")
    assert status in (301, 308), f"answers {status}"
    assert headers.get("location") == f"https://{edge.domain}/chat"


def test_security_headers_are_sent(edge: Edge) -> None:
    _, headers = edge.ask("GET", "/")
    age = headers.get("strict-transport-security", "")
    assert "max-age=" in age, "no Strict-Transport-Security"
    assert int(age.split("max-age=")[1].split(";")[0]) >= 15_768_000, (
        f"HSTS of less than 6 months: {age}"
    )
    assert headers.get("x-content-type-options") == "nosniff"
    assert headers.get("referrer-policy"), "no Referrer-Policy"
    framed = headers.get("x-frame-options", "") + headers.get("content-security-policy", "")
    assert "DENY" in framed or "frame-ancestors" in framed, "the page can be framed"


def test_the_server_does_not_tell_its_version(edge: Edge) -> None:
    _, headers = edge.ask("GET", "/")
    assert "/" not in headers.get("server", ""), headers.get("server")


@pytest.mark.parametrize(
    "path", ["/no-such-path", "/metrics", "/docs", "/openapi.json", "/v1/load_lora_adapter"]
)
def test_whatever_is_not_served_is_not_found(edge: Edge, path: str) -> None:
    status, _ = edge.ask("GET", path)
    assert status == 404, f"{path} answers {status}"


def test_no_one_chats_without_a_key(edge: Edge) -> None:
    status, headers = edge.ask("POST", "/chat", body=b'{"message": "Hello"}')
    assert status == 401, f"answers {status}"
    assert headers.get("x-request-id"), "the answer has no X-Request-ID"


def test_a_body_over_1_mb_is_refused(edge: Edge) -> None:
    status, _ = edge.ask("POST", "/chat", body=b"x" * 1_100_000)
    assert status == 413, f"answers {status}"
