from __future__ import annotations

import re
from typing import Any

import pytest
from ansible.errors import AnsibleError
from rendering import BOOKWORM, JAMMY, TRIXIE, Role

from agent_app.api.page import CONTENT_SECURITY_POLICY, SCRIPTS

SITE = "host/etc/nginx/edge.d/site.conf.j2"


def edge(facts: dict[str, str] = BOOKWORM, **variables: Any) -> str:
    variables = {
        "nginx_server_names": ["agent.test"],
        "nginx_backends": ["10.0.0.1:8200", "10.0.0.2:8200"],
    } | variables
    return Role("nginx", facts, **variables).render(SITE)


def location(site: str, path: str) -> str:
    found = re.search(rf"location = {re.escape(path)} {{\n(.*?)\n    }}", site, re.DOTALL)
    assert found, f"no location {path} in\n{site}"
    return found[1]


def test_streams_are_unbuffered_and_other_answers_are_not() -> None:
    site = edge()
    assert "proxy_buffering off;" in location(site, "/chat")
    assert "proxy_buffering off;" in location(site, "/v1/chat/completions")
    assert "proxy_buffering off;" in location(site, "/v1/responses")
    assert "proxy_buffering" not in location(site, "/v1/models")


def test_every_location_is_exact_and_the_rest_is_not_found() -> None:
    https = edge().split("server {")[-1]
    open_ended = re.findall(r"location (?!=)(.+) {\n(?:\s+internal;\n)?\s+(.+)", https)
    assert ("/", "return 404;") in open_ended
    anchored = {name for name, _ in open_ended if re.fullmatch(r'~ "\^/[^"]+\$"', name)}
    assert {name for name, _ in open_ended} - anchored == {"/", "@refused"}
    assert len(anchored) == 8


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/threads/6c0f2e0e-2f57-4ab4-a1c6-1f0a3b1f9d2e", True),
        ("/threads/6c0f2e0e-2f57-4ab4-a1c6-1f0a3b1f9d2e/stop", True),
        ("/threads/6c0f2e0e-2f57-4ab4-a1c6-1f0a3b1f9d2e/other", False),
        ("/jobs/6c0f2e0e-2f57-4ab4-a1c6-1f0a3b1f9d2e", True),
        ("/jobs/6c0f2e0e-2f57-4ab4-a1c6-1f0a3b1f9d2e/cancel", True),
        ("/jobs/6c0f2e0e-2f57-4ab4-a1c6-1f0a3b1f9d2e/stop", False),
        ("/threads/6c0f2e0e-2f57-4ab4-a1c6-1f0a3b1f9d2e/approvals", True),
        ("/threads/6c0f2e0e-2f57-4ab4-a1c6-1f0a3b1f9d2e/approvals/3f9a01c2b", True),
        ("/threads/6c0f2e0e-2f57-4ab4-a1c6-1f0a3b1f9d2e/approvals/3f9a01c2b/x", False),
        ("/threads/6c0f2e0e-2f57-4ab4-a1c6-1f0a3b1f9d2e/approvals/{call}", False),
        ("/threads/6c0f2e0e", False),
        ("/threads/../metrics", False),
        ("/x/threads/6c0f2e0e-2f57-4ab4-a1c6-1f0a3b1f9d2e", False),
    ],
)
def test_a_thread_or_a_job_is_found_by_its_uuid_and_by_nothing_else(path: str, found: bool) -> None:
    patterns = re.findall(r'location ~ "(.+)" {', edge())
    assert any(re.search(pattern, path) for pattern in patterns) is found


def test_the_pages_modules_are_found_and_nothing_else_of_their_folder() -> None:
    modules = {path for path in SCRIPTS if path.startswith("page/")}
    assert modules
    patterns = re.findall(r'location ~ "(.+)" {', edge())
    for path in modules:
        assert any(re.search(pattern, f"/{path}") for pattern in patterns), path
    for path in ("/page/", "/page/x/y.js", "/page/../chat.js", "/page/dom.js.map"):
        assert not any(re.search(pattern, path) for pattern in patterns), path
    off = re.findall(r'location ~ "(.+)" {', edge(nginx_page_enabled=False))
    assert not any(re.search(pattern, "/page/dom.js") for pattern in off)


def test_the_pages_files_have_a_limit_of_their_own() -> None:
    site = edge(nginx_requests_per_second=10, nginx_request_burst=20)
    assert "zone=edge_page:10m rate=50r/s" in site
    assert "limit_req zone=edge_page burst=100 nodelay;" in location(site, "/app.js")
    assert "limit_req" not in location(site, "/chat")  # the server's


def test_the_page_can_be_switched_off_and_the_api_stays() -> None:
    for path in ("/", "/app.css", "/app.js"):
        assert "proxy_pass" in location(edge(), path)
        assert f"location = {path} {{" not in edge(nginx_page_enabled=False)
    assert location(edge(nginx_page_enabled=False), "/chat")


def test_the_security_headers_are_the_edges_alone_and_as_strict_as_the_apps() -> None:
    site = edge()
    for name in ("Content-Security-Policy", "X-Content-Type-Options", "Referrer-Policy"):
        assert site.count(f"add_header {name} ") == 1
        assert site.count(f"proxy_hide_header {name};") == 1
    assert f'add_header Content-Security-Policy "{CONTENT_SECURITY_POLICY}" always;' in site


def test_no_location_has_a_header_of_its_own_that_would_drop_the_servers() -> None:
    site = edge()
    for path in ("/chat", "/v1/models", "/health"):
        assert "add_header" not in location(site, path)


def test_limits_are_those_of_the_variables() -> None:
    site = edge(nginx_requests_per_second=3, nginx_request_burst=5, nginx_connections=7)
    assert "rate=3r/s;" in site
    assert "burst=5 nodelay;" in site
    assert "limit_conn edge_connections 7;" in site


def test_http2_is_asked_for_in_the_way_that_the_hosts_nginx_knows() -> None:
    assert "listen 443 ssl http2;" in edge(BOOKWORM)
    assert "http2 on;" not in edge(BOOKWORM)
    assert "http2 on;" in edge(TRIXIE)
    assert "listen 443 ssl;" in edge(TRIXIE)


def test_an_old_nginx_closes_on_unknown_names_instead_of_refusing_the_handshake() -> None:
    assert "ssl_reject_handshake on;" in edge(BOOKWORM)
    assert "ssl_reject_handshake" not in edge(JAMMY)


def test_backends_over_tls_are_verified() -> None:
    site = edge(nginx_backend_tls_enabled=True, nginx_backend_tls_name="agent-app")
    assert "proxy_ssl_verify on;" in site
    assert "proxy_ssl_name agent-app;" in site
    assert "proxy_pass http://" not in site


@pytest.mark.parametrize("empty", ["nginx_server_names", "nginx_backends"])
def test_an_edge_without_its_inventory_says_which_variable_is_empty(empty: str) -> None:
    with pytest.raises(AnsibleError, match=f"{empty} is empty"):
        edge(**{empty: []})


def test_the_access_log_keeps_no_query_string_and_no_credentials() -> None:
    log = Role("nginx", BOOKWORM).render("host/etc/nginx/nginx.conf.j2")
    log = log[log.index("log_format") : log.index("access_log")]
    for leak in ("$request ", '$request"', "$request_uri", "$args", "$http_authorization"):
        assert leak not in log


def test_only_a_sane_request_id_of_a_client_is_taken() -> None:
    text = Role("nginx", BOOKWORM).render("host/etc/nginx/nginx.conf.j2")
    found = re.search(r'"~(\^\S+\$)"\s+\$http_x_request_id', text)
    assert found
    pattern = re.compile(found[1])
    assert pattern.match("0123-abc_DEF.9")
    for bad in ("short", "x" * 65, "with space", 'quote"quote', "line\nbreak"):
        assert not pattern.match(bad)
