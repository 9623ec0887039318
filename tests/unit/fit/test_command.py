"""`ops fit` as a person and a script use it."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from ops.cli.fit import app
from ops.errors import InputError
from ops.fit.advice import suggest
from ops.fit.catalogue import cards, find_card, find_model, parse_gpus
from ops.fit.question import Question, Wishes, ask, load_source

INVENTORY = """
all:
  vars: {domain: agent.example.com}
  children:
    gpu:
      hosts:
        one:
          models:
            - {name: small, source: "hf://Qwen/Qwen3-8B", revision: main, gpus: [0]}
            - {name: large, source: "hf://meta-llama/Llama-3.3-70B-Instruct", revision: main,
               gpus: [1, 2], tensor_parallel: 2}
            - {name: slow, source: "hf://Qwen/Qwen3-8B", revision: main, gpus: []}
        two:
          models:
            - {name: one, source: "hf://Qwen/Qwen3-8B", revision: main, gpus: [0]}
            - {name: two, source: "hf://Qwen/Qwen3-8B", revision: main, gpus: [0]}
"""


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def question(model: str, gpus: str, **wishes: Any) -> Question:
    asked: Wishes = {"context": 0, "concurrency": 0, "kv_dtype": "auto", "share": 0.9, **wishes}  # type: ignore[typeddict-item]
    return ask(load_source(model), *parse_gpus(gpus), asked)


def test_a_model_that_fits_gives_its_sentence_flags_and_status_0() -> None:
    result = run("Qwen3-8B", "--gpu", "L40S")
    assert result.exit_code == 0
    assert "fits: 18.1 GiB of 40.0 GiB per GPU; room for 20 requests" in result.output
    assert "--tensor-parallel-size 1 --max-model-len 8192" in result.output


def test_a_model_that_does_not_fit_gives_what_to_change_and_status_1() -> None:
    result = run("Llama-3.3-70B", "--gpu", "H100:2", "--concurrency", "16")
    assert result.exit_code == 1
    assert "does not fit: 18.6 GiB too much on each GPU" in result.output
    assert "use 4 x H100" in result.output


def test_a_program_gets_the_same_answer_as_json() -> None:
    result = run("Llama-3.3-70B", "--gpu", "H100:2", "--concurrency", "16", "--json")
    told = json.loads(result.stdout)
    assert result.exit_code == 1
    assert told["verdict"]["spare"] < 0
    assert told["suggestions"][0]["flags"][:2] == ["--tensor-parallel-size", "2"]


def test_without_a_card_the_usual_ones_are_compared() -> None:
    told = json.loads(run("Llama-3.3-70B", "--json").stdout)["cards"]
    fewest = {one["card"]: one["gpus"] for one in told if one["verdict"]["fits"]}
    assert (fewest["H100"], fewest["H200"], fewest["B200"]) == (4, 2, 1)
    assert "T4" not in fewest
    assert "RTX PRO 6000" in run("Llama-3.3-70B").output


def test_precision_cache_and_parallel_reach_the_formula() -> None:
    result = run(
        "Llama-3.3-70B", "--gpu", "H100:4", "--precision", "fp8", "--kv-dtype", "fp8",
        "--tensor-parallel", "2", "--context", "16384", "--json",
    )  # fmt: skip
    told = json.loads(result.stdout)
    assert told["setting"]["tensor_parallel"] == 2
    assert told["flags"][-4:] == ["--kv-cache-dtype", "fp8", "--quantization", "fp8"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("no-such-model", "--gpu", "H100"),
        ("Qwen3-8B", "--gpu", "H1000"),
        ("Qwen3-8B", "--gpu", "H100:none"),
        ("Qwen3-8B", "--gpu", "H100", "--precision", "int3"),
        ("Qwen3-8B", "--gpu", "H100", "--kv-dtype", "int8"),
        ("Qwen3-8B", "--gpu", "H100", "--tensor-parallel", "2"),
        ("Qwen3-8B", "--gpu", "H100", "--gpu-memory-utilization", "1.5"),
        ("./no/such/folder", "--gpu", "H100"),
        (),
    ],
    ids=" ".join,
)
def test_a_wrong_question_is_an_input_error_with_a_cure(arguments: tuple[str, ...]) -> None:
    error = run(*arguments).exception
    assert isinstance(error, InputError)
    assert error.exit_code == 2
    assert error.place
    assert error.cure


def test_a_folder_of_weights_is_judged_by_the_size_on_disk(tmp_path: Path) -> None:
    config = find_model("Qwen3-8B").config
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert load_source(str(tmp_path)).weights_bytes == 0
    (tmp_path / "model.safetensors").write_bytes(b"0" * 1000)
    assert load_source(str(tmp_path)).weights_bytes == 1000
    index = {"metadata": {"total_size": 16_381_470_720}, "weight_map": {}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    source = load_source(str(tmp_path / "config.json"))
    assert source.weights_bytes == 16_381_470_720
    assert source.quantised("int4").weights_bytes == 0


@pytest.mark.parametrize("content", ["[]", "{", '{"model_type": "bert"}'])
def test_a_config_that_tells_no_size_is_an_input_error(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(InputError):
        load_source(str(tmp_path))


@pytest.mark.parametrize(
    ("name", "known", "precision"),
    [
        ("meta-llama/Meta-Llama-3.1-8B-Instruct", "Llama-3.1-8B", "bf16"),
        ("llama3.1-8b", "Llama-3.1-8B", "bf16"),
        ("Qwen/Qwen2.5-72B-Instruct-AWQ", "Qwen2.5-72B", "int4"),
        ("Qwen/Qwen2.5-72B-Instruct-GPTQ-Int8", "Qwen2.5-72B", "int8"),
        ("RedHatAI/Llama-3.3-70B-Instruct-FP8-dynamic", "Llama-3.1-70B", "fp8"),
        ("nvidia/DeepSeek-R1-0528-NVFP4", "DeepSeek-V3", "nvfp4"),
        ("mistralai/Mistral-7B-Instruct-v0.3", "Mistral-7B-v0.3", "bf16"),
        ("openai/gpt-oss-120b", "gpt-oss-120b", "mxfp4"),
    ],
)
def test_a_public_name_finds_its_model_and_precision(name: str, known: str, precision: str) -> None:
    assert find_model(name).name == known
    assert load_source(name).precision.name == precision


def test_a_card_is_found_by_its_usual_names_and_by_memory() -> None:
    assert find_card("NVIDIA GeForce RTX 4090") is cards()["RTX 4090"]
    assert find_card("a100 40gb") is cards()["A100-40"]
    assert parse_gpus("48GiB:2")[0].memory_mib == 49152


@pytest.mark.parametrize(
    ("model", "gpus", "concurrency"),
    [("Llama-3.3-70B", "H100:2", 16), ("Qwen3-32B", "L40S:2", 8), ("DeepSeek-R1", "H100:8", 0)],
)
def test_every_suggestion_fits_by_the_same_formula(model: str, gpus: str, concurrency: int) -> None:
    found = suggest(question(model, gpus, concurrency=concurrency))
    assert found
    assert all(change.question.verdict.fits for change in found)


def test_what_fits_needs_no_suggestion() -> None:
    assert suggest(question("Qwen3-8B", "H100")) == []


def test_a_card_without_fp8_is_not_advised_to_use_it() -> None:
    texts = [change.text for change in suggest(question("Llama-2-13b", "V100-16:1"))]
    assert texts
    assert not any("FP8" in text for text in texts)


def test_an_odd_number_of_gpus_leaves_some_idle() -> None:
    asked = question("Llama-3.3-70B", "H100:6")
    assert asked.setting.tensor_parallel == 4


@pytest.fixture
def inventory(tmp_path: Path) -> Path:
    path = tmp_path / "hosts.yml"
    path.write_text(INVENTORY)
    return path


def test_the_models_of_an_inventory_are_judged_host_by_host(inventory: Path) -> None:
    result = run("-i", str(inventory), "--gpu", "H100", "--json")
    told = {(one["host"], one["name"]): one for one in json.loads(result.stdout)["models"]}
    assert result.exit_code == 1
    assert told["one", "small"]["answer"]["verdict"]["fits"]
    assert not told["one", "large"]["answer"]["verdict"]["fits"]
    assert told["one", "slow"]["answer"] is None


def test_a_gpu_that_is_promised_twice_is_told(inventory: Path) -> None:
    lines = run("-i", str(inventory), "--gpu", "H100").output.splitlines()
    assert "two two: GPU 0 is promised to 180 %" in lines
