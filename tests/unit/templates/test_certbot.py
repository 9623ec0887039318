from __future__ import annotations

import shlex
from typing import Any

import pytest
from ansible.errors import AnsibleError
from rendering import BOOKWORM, Role


def certbot(**variables: Any) -> Role:
    return Role("certbot", BOOKWORM, **{"certbot_domains": ["b.test", "a.test"]} | variables)


def command(**variables: Any) -> str:
    return shlex.join(certbot(**variables).value("__certbot_command"))


def test_the_certificate_is_asked_for_by_webroot_under_its_first_name() -> None:
    asked = command(certbot_email="ops@b.test")
    assert "--cert-name b.test" in asked
    assert "--webroot --webroot-path /var/www/letsencrypt" in asked
    assert "--domain b.test --domain a.test" in asked
    assert "--email ops@b.test" in asked
    assert "acme-v02.api.letsencrypt.org" in asked


def test_staging_asks_the_test_authority() -> None:
    assert "acme-staging-v02.api.letsencrypt.org" in command(certbot_staging=True)


def test_dns_01_takes_the_place_of_the_webroot() -> None:
    asked = command(certbot_dns_plugin="rfc2136", certbot_dns_credentials="dns_rfc2136_secret = x")
    assert "--dns-rfc2136-credentials /etc/letsencrypt/dns-rfc2136.ini" in asked
    assert "secret" not in asked
    assert "--webroot" not in asked


def test_check_mode_says_and_does_not_ask() -> None:
    assert "certonly" in certbot().render("issue.sh.j2")
    assert "certonly" not in certbot(ansible_check_mode=True).render("issue.sh.j2")


def test_names_are_compared_without_regard_to_their_order() -> None:
    assert "wanted='a.test b.test'" in certbot().render("issue.sh.j2")


def test_no_domain_is_said_with_its_variable() -> None:
    with pytest.raises(AnsibleError, match="certbot_domains is empty"):
        command(certbot_domains=[])


def test_renewals_write_to_certbots_own_folders_and_those_of_the_operators_hooks() -> None:
    drop_in = "host/etc/systemd/system/certbot.service.d/60-rackhand.conf.j2"
    own = "ReadWritePaths=/etc/letsencrypt -/var/lib/letsencrypt -/var/log/letsencrypt"
    assert certbot().render(drop_in).count("ReadWritePaths=") == 1
    asked = certbot(certbot_writable_folders=["/etc/haproxy", "/srv/certs"]).render(drop_in)
    assert f"{own} -/var/www/letsencrypt\nReadWritePaths=-/etc/haproxy -/srv/certs\n" in asked
