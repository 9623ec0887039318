from answers import AT, HOSTS, SICK, answer, look, states

from ops.live.operation import view
from ops.live.records import record
from ops.live.state import read_look


def test_a_host_is_well_while_a_slot_that_does_not_serve_is_stopped_or_starts() -> None:
    unit = "engine@assistant-green.service"
    for state in ("inactive", "activating"):
        found = read_look(HOSTS[1], answer("gpu1", units={unit: {"active": state}}))
        assert found.well, state
    failed = read_look(HOSTS[1], answer("gpu1", units={unit: {"active": "failed"}}))
    assert failed.unwell == {unit: "failed"}


def test_a_host_is_not_well_while_the_slot_that_serves_only_starts() -> None:
    unit = "engine@assistant-blue.service"
    found = read_look(HOSTS[1], answer("gpu1", units={unit: {"active": "activating"}}))
    assert found.unwell == {unit: "activating"}
    assert not found.well


def test_the_fleet_is_well_during_an_operation_and_not_when_one_was_left() -> None:
    assert look().well
    assert not look(data1={"operation": SICK["data1"]["operation"]}).well
    assert not look(gpu2="timed out").well


def test_what_nvidia_smi_does_not_know_is_nothing() -> None:
    first, second = states()[1].gpus
    assert (first.temperature_c, second.temperature_c) == (61, None)
    assert first.memory_used_mib == 70211


def test_the_operation_is_told_by_the_step_it_is_at() -> None:
    operation = look().operation
    assert operation is not None
    assert (operation.step, operation.steps, operation.done) == (3, 5, 2)
    assert operation.title == "gpu1: green gets 10 %"
    assert (operation.by, operation.began, operation.status) == ("ada@desk", AT - 130, "running")


def test_an_operation_of_another_version_is_not_lost() -> None:
    stored = {**SICK["data1"]["operation"], "plan": {"format": 99, "verb": "new", "subject": "x"}}
    found = view(stored)
    assert found is not None
    assert (found.verb, found.status) == ("new", "unfinished")
    assert "format 99" in found.failure


def test_an_operation_that_has_ended_is_not_shown() -> None:
    stored = SICK["data1"]["operation"]
    assert view({**stored, "entries": [*stored["entries"], {"event": "end", "at": AT}]}) is None


def test_the_keys_of_the_json_are_those_that_scripts_rely_on() -> None:
    found = record(look(**SICK))
    assert sorted(found) == ["at", "format", "hosts", "operation", "well"]
    assert sorted(found["operation"]) == [
        "back", "began", "by", "done", "failure", "id", "status", "step", "steps", "subject",
        "title", "verb", "why",
    ]  # fmt: skip
    for host in found["hosts"]:
        assert sorted(host) == [
            "address", "app", "certificate_days", "complaints", "disks", "drained", "gpus",
            "groups", "host", "load", "memory", "models", "problem", "processors", "units",
            "unwell", "well",
        ]  # fmt: skip
    model = found["hosts"][1]["models"]["assistant"]
    assert sorted(model) == ["active", "held", "slots"]
    assert model["slots"]["green"] == {
        "unit": "engine@assistant-green.service", "state": "failed", "share": 0,
        "revision": "c04be11", "environment": "0.32.0-cuda", "kept_until": None,
    }  # fmt: skip
    assert found["hosts"][2]["problem"].endswith("timed out")
    assert found["hosts"][3]["disks"]["/"]["used"] == 93 << 30


def test_a_serving_slot_that_systemd_has_forgotten_is_not_well() -> None:
    models = answer("gpu1")["models"]
    models["assistant"]["slots"]["blue"]["state"] = "inactive"
    found = read_look(HOSTS[1], answer("gpu1", units={}, models=models))
    assert found.unwell == {"engine@assistant-blue.service": "inactive"}
