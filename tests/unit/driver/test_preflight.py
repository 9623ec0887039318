"""What preflight says of the GPU layer, before anything changes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.rackhand.host.plugins.action.preflight import (
    config_on_host,
    judge_driver,
    judge_gpus,
    judge_model,
)

LLAMA_8B = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
    "torch_dtype": "bfloat16",
    "tie_word_embeddings": False,
}
DRIVER = {"channel": "archive", "branch": "580", "version": "", "module": "auto"}


def survey(**changes: Any) -> dict[str, Any]:
    return {
        "os": {"ID": "ubuntu"},
        "devices": ["0x2330", "0x2330"],
        "architectures": ["hopper", "hopper"],
        "memory_mib": [81559, 81559],
        "secure_boot": False,
        "key_enrolled": False,
        "kernels": ["6.8.0-90-generic"],
        "headers": "present",
        "configs": {},
    } | changes


def model(folder: Path, **changes: Any) -> dict[str, Any]:
    (folder / "config.json").write_text(json.dumps(LLAMA_8B))
    return {
        "name": "m", "source": f"file://{folder}", "revision": "r", "gpus": [0],
        "max_model_len": 8192,
    } | changes  # fmt: skip


def test_gpus_that_the_inventory_names_must_be_on_the_bus() -> None:
    assert judge_gpus(survey(), 2)["level"] == "ok"
    found = judge_gpus(survey(), 4)
    assert found["level"] == "fail"
    assert "2 on the bus (hopper), 4 named" in found["what"]


def test_secure_boot_refuses_a_channel_that_builds_on_the_host() -> None:
    driver = {**DRIVER, "channel": "cuda"}
    (found,) = judge_driver(survey(secure_boot=True), driver)
    assert found["level"] == "fail"
    assert "Secure Boot is on" in found["what"]
    assert "archive" in found["cure"]
    (found,) = judge_driver(survey(secure_boot=True), DRIVER)
    assert found["level"] == "ok"


def test_dkms_needs_headers_of_the_kernel_that_boots_next() -> None:
    driver = {**DRIVER, "channel": "cuda"}
    (found,) = judge_driver(survey(headers="missing"), driver)
    assert found["level"] == "fail"
    assert "linux-headers-6.8.0-90-generic" in found["what"]
    for headers in ("present", "offered"):
        (found,) = judge_driver(survey(headers=headers), driver)
        assert found["level"] == "ok"
    (found,) = judge_driver(survey(headers="missing"), DRIVER)
    assert found["level"] == "ok", "signed modules need none"


def test_modules_that_the_gpus_do_not_take_stop_the_run() -> None:
    (found,) = judge_driver(survey(devices=["0x1db4"]), {**DRIVER, "branch": "595"})
    assert (found["level"], "volta" in found["what"]) == ("fail", True)


def test_a_model_that_fits_its_gpu_passes(tmp_path: Path) -> None:
    (found,) = judge_model(survey(), model(tmp_path))
    assert found["level"] == "ok"
    assert "GiB on each GPU" in found["what"]


def test_a_model_that_does_not_fit_is_refused_with_the_figure(tmp_path: Path) -> None:
    (found,) = judge_model(survey(memory_mib=[15360, 15360]), model(tmp_path))
    assert found["level"] == "fail"
    assert "too much on each GPU" in found["what"]
    assert "ops fit" in found["cure"]


def test_a_model_on_the_cpu_is_not_judged_by_gpu_memory(tmp_path: Path) -> None:
    assert list(judge_model(survey(), model(tmp_path, gpus=[]))) == []


def test_what_is_not_known_yet_is_said_and_stops_nothing(tmp_path: Path) -> None:
    hub = model(tmp_path, source="hf://org/name")
    (found,) = judge_model(survey(configs={"/srv/models/m/r/config.json": ""}), hub)
    assert (found["level"], "config.json" in found["what"]) == ("ok", True)
    (found,) = judge_model(survey(memory_mib=[0, 0]), model(tmp_path))
    assert (found["level"], "GPU's memory" in found["what"]) == ("ok", True)


@pytest.mark.parametrize(
    ("source", "path"),
    [
        ("file:///here", ""),
        ("host:///data/m", "/data/m/config.json"),
        ("hf://org/name", "/srv/models/m/r/config.json"),
    ],
)
def test_config_json_is_read_where_the_weights_are(source: str, path: str) -> None:
    assert config_on_host({"name": "m", "revision": "r", "source": source}) == path


def test_weights_on_the_host_are_judged_by_their_config(tmp_path: Path) -> None:
    staged = model(tmp_path, source="hf://org/name")
    configs = {"/srv/models/m/r/config.json": json.dumps(LLAMA_8B)}
    (found,) = judge_model(survey(configs=configs), staged)
    assert found["level"] == "ok"
    assert "needs" in found["what"]
