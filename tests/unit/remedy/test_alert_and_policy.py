"""What comes in from outside: webhooks, Alertmanager's list, the inventory's policy."""

from __future__ import annotations

import json
from typing import Any

import pytest
from remedy_world import alert

from ops.errors import InputError
from ops.remedy.alert import MOST_ALERTS, MOST_BYTES, read_active, read_webhook
from ops.remedy.policy import Action, Mode, read_policy

ONE: dict[str, Any] = {
    "status": "firing",
    "labels": {"alertname": "GpuFellOff", "host": "gpu1", "gpu": "0", "xid": "79"},
    "annotations": {"summary": "fell off the bus"},
    "startsAt": "2026-11-26T03:00:00.123Z",
    "endsAt": "0001-01-01T00:00:00Z",
    "generatorURL": "http://prometheus/graph",
    "fingerprint": "a1b2c3d4e5f60718",
}
BODY: dict[str, Any] = {
    "version": "4", "groupKey": "{}", "truncatedAlerts": 0, "status": "firing",
    "receiver": "remediator", "groupLabels": {}, "commonLabels": {}, "commonAnnotations": {},
    "externalURL": "http://alertmanager", "alerts": [ONE],
}  # fmt: skip


def body(**changes: Any) -> bytes:
    return json.dumps({**BODY, "alerts": [{**ONE, **changes}]}).encode()


def test_a_webhook_of_alertmanager_is_read() -> None:
    (found,) = read_webhook(json.dumps(BODY).encode())
    assert (found.name, found.host, found.gpu) == ("GpuFellOff", "gpu1", 0)
    assert found.key == "a1b2c3d4e5f60718@2026-11-26T03:00:00.123000+00:00"
    assert found.cause == "GpuFellOff gpu1 0 79"


@pytest.mark.parametrize(
    "hostile",
    [
        b"",
        b"\xff\xfe",
        b"null",
        b"[]",
        b"{}",
        b'{"version": "4"}',
        b"[" * 100_000,
        b" " * (MOST_BYTES + 1),
        json.dumps({**BODY, "version": "5"}).encode(),
        json.dumps({**BODY, "alerts": "all"}).encode(),
        json.dumps({**BODY, "alerts": [ONE] * (MOST_ALERTS + 1)}).encode(),
        body(status="burning"),
        body(startsAt="yesterday"),
        body(fingerprint=""),
        body(fingerprint="../../etc/passwd"),
        body(fingerprint="a" * 65),
        body(labels={"host": 1}),
        body(labels={"host": {"a": "b"}}),
        body(labels={str(n): "x" for n in range(65)}),
    ],
)
def test_what_is_no_webhook_is_refused_in_one_sentence(hostile: bytes) -> None:
    with pytest.raises(InputError) as caught:
        read_webhook(hostile)
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("gpu", ["", "-1", "all", "0; reboot", "99999", "²"])
def test_a_gpu_that_is_no_index_is_none(gpu: str) -> None:
    assert alert(labels={"gpu": gpu}).gpu is None


def test_of_alertmanagers_list_what_can_be_read_is_taken() -> None:
    good = {key: ONE[key] for key in ("labels", "startsAt", "fingerprint")}
    found = read_active([good, {"labels": 1}, None, "x", {**good, "status": {"state": "active"}}])
    assert [one.status for one in found] == ["firing", "firing"]
    assert read_active({"error": "x"}) == ()


def test_nothing_in_the_inventory_leaves_it_off() -> None:
    assert read_policy(None).mode == Mode.OFF
    assert read_policy({}).mode == Mode.OFF
    assert read_policy({"mode": False}).mode == Mode.OFF, "YAML reads a bare off as false"


def test_a_rule_is_an_action_a_mapping_or_several() -> None:
    found = read_policy(
        {
            "mode": "act",
            "alerts": {
                "A": "drain",
                "B": {"action": "reset_gpu", "only": ["gpu1"]},
                "C": [{"action": "drain", "match": {"xid": 48}}, "reboot_host"],
            },
        }
    )
    assert [rule.action for rule in found.rules("C")] == [Action.DRAIN, Action.REBOOT_HOST]
    assert found.rules("C")[0].fits({"xid": "48"})
    assert not found.rules("C")[0].fits({"xid": "4"})
    assert found.rules("A")[0].fits({})
    assert found.table()["EngineStalled"][0].action == Action.RESTART_ENGINE


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"mode": "on"}, "remediation.mode"),
        ({"mode": True}, "remediation.mode"),
        ({"mod": "act"}, "remediation.mod: Extra inputs"),
        ({"alerts": {"A": "explode"}}, "remediation.alerts.A.0.action"),
        ({"alerts": {"A": {"action": "drain", "host": "x"}}}, "remediation.alerts.A.0.host"),
        ({"alerts": ["A"]}, "remediation.alerts"),
        ({"limits": {"per_host_per_hour": 0}}, "remediation.limits.per_host_per_hour"),
        ({"limits": {"cooldown_minutes": -1}}, "remediation.limits.cooldown_minutes"),
        ({"waits": {"reboot": 0}}, "remediation.waits.reboot"),
        ({"windows": [{"start": "25:00", "end": "02:00"}]}, "remediation.windows.0.start"),
        ({"windows": [{"start": "1:00", "end": "02:00", "days": ["Mo"]}]}, "windows.0.days.0"),
        ("act", "no mapping"),
    ],
)
def test_a_wrong_policy_is_named_by_its_place(given: Any, words: str) -> None:
    with pytest.raises(InputError) as caught:
        read_policy(given)
    assert words in caught.value.message
    assert "docs/remediation.md" in caught.value.cure
    assert caught.value.exit_code == 2
