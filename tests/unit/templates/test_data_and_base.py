from __future__ import annotations

import hashlib
from typing import Any

from rendering import BOOKWORM, JAMMY, Role

CONTAINER = {**BOOKWORM, "virtualization_type": "systemd-nspawn", "virtualization_role": "guest"}
METAL = {**BOOKWORM, "virtualization_type": "kvm", "virtualization_role": "guest"}


def redis(instance: str, facts: dict[str, str] = BOOKWORM, **variables: Any) -> tuple[str, str]:
    role = Role(
        "redis",
        facts,
        redis_agent_app_password="app-secret",
        redis_reloader_password="reload-secret",
        **variables,
    )
    item = role.value(f"__redis_{instance}")
    return role.render("redis.conf.j2", item=item), role.render("users.acl.j2", item=item)


def test_the_cache_evicts_and_keeps_nothing_on_disk() -> None:
    text, _ = redis("cache")
    assert "maxmemory 512mb\nmaxmemory-policy allkeys-lru" in text
    assert "appendonly no" in text
    assert "port 6379" in text


def test_the_state_is_never_evicted_and_is_on_disk() -> None:
    text, _ = redis("state")
    assert "maxmemory-policy noeviction" in text
    assert "appendonly yes\nappendfsync everysec" in text
    assert "port 6380" in text


def test_redis_over_tls_has_no_clear_port() -> None:
    text, _ = redis("cache", redis_tls_enabled=True)
    assert "\nport 0\ntls-port 6379\n" in text


def test_redis_users_are_known_by_hash_only() -> None:
    _, users = redis("cache")
    assert users.startswith("user default off\n")
    assert "app-secret" not in users
    assert "#" + hashlib.sha256(b"app-secret").hexdigest() in users


def test_an_old_redis_gets_no_channel_rules() -> None:
    assert "&* " in redis("cache", BOOKWORM)[1]
    assert "&*" not in redis("cache", JAMMY)[1]


def test_a_container_sets_only_its_own_networks_settings_and_says_so() -> None:
    text = Role("base", CONTAINER).render("host/etc/sysctl.d/60-rackhand.conf.j2")
    assert "net.core.somaxconn = 4096" in text
    assert "vm.overcommit_memory" not in text
    assert "container (systemd-nspawn)" in text


def test_a_machine_sets_them_all() -> None:
    text = Role("base", METAL).render("host/etc/sysctl.d/60-rackhand.conf.j2")
    assert "vm.overcommit_memory = 1" in text
    assert "container" not in text
