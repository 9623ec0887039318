"""What the edge's certificate machinery promises."""

from __future__ import annotations

import pytest
from testinfra.host import Host as Connection

from ops.fleet import Fleet, Host
from ops.verify.probes import ask, assert_unit_runs

GROUPS = ("edge",)


@pytest.fixture(autouse=True)
def issued_by_certbot(target: Host) -> None:
    """Pass over hosts whose certificate comes from elsewhere."""
    if not target.variables.get("certbot_enabled", True):
        pytest.skip("certbot_enabled is false: the certificate is handed over by variables")


def test_renewal_runs_by_its_timer(host: Connection) -> None:
    assert_unit_runs(host, "certbot.timer")


def test_renewal_has_not_failed(host: Connection) -> None:
    result = ask(host, "systemctl show -p Result --value certbot.service")
    assert result == "success", f"the last renewal ended with {result}\ncure: journalctl -u certbot"


def test_a_renewed_certificate_is_taken_up_by_nginx(host: Connection) -> None:
    hooks = ask(
        host,
        "find /etc/letsencrypt/renewal-hooks/deploy -type f -perm -u+x -exec grep -l nginx {} +",
    )
    assert hooks, "no executable deploy hook reloads nginx"


def test_the_private_key_is_for_root_alone(host: Connection, fleet: Fleet) -> None:
    keys = ask(host, "find /etc/letsencrypt/archive -name 'privkey*.pem' -perm /077")
    assert not keys, f"readable by others: {keys}"
    live = f"/etc/letsencrypt/live/{fleet.domain}/fullchain.pem"
    assert host.run("test -s %s", live).rc == 0, f"{live} is missing: nothing was issued yet"
