"""The judgement of a model on a card, and what the preflight asks."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ops.fit.catalogue import cards, find_model
from ops.fit.model_fit import GIB, Setting, Verdict, fewest_gpus, fit, judge_memory
from ops.fit.model_precision import named_precision, read_precision
from ops.fit.model_shape import ShapeError, read_shape
from ops.places import ROOT

LLAMA = find_model("Llama-3.1-8B").config
SHAPE = read_shape(LLAMA)
H100 = Setting(gpu_memory=cards()["H100"].memory, context=8192)


def judged(name: str = "bf16", **changes: Any) -> Verdict:
    return fit(SHAPE, named_precision(name), replace(H100, **changes))


@pytest.mark.parametrize("file", ["model_fit.py", "model_shape.py", "model_precision.py"])
def test_the_preflight_and_ops_read_the_same_file(file: str) -> None:
    utils = ROOT / "collections/ansible_collections/rackhand/host/plugins/module_utils"
    assert (ROOT / "ops/fit" / file).samefile(utils / file)
    assert "import yaml" not in Path(utils / file).read_text(encoding="utf-8")


def test_the_parts_are_the_whole() -> None:
    one = judged(concurrency=4)
    parts = one.weights + one.activation + one.graphs + one.runtime + one.kv_wanted
    assert one.needed == parts
    assert one.spare == one.budget - parts
    assert one.kv_wanted == 4 * one.kv_per_request


def test_it_fits_up_to_the_last_request_that_has_room_and_no_further() -> None:
    room = judged(max_num_seqs=256).requests
    assert judged(max_num_seqs=256, concurrency=room).fits
    assert not judged(max_num_seqs=256, concurrency=room + 1).fits


def test_it_fits_up_to_the_longest_context_that_it_names() -> None:
    small = replace(H100, gpu_memory=22 * GIB, max_num_seqs=16)
    longest = fit(SHAPE, named_precision("bf16"), small).largest_context
    assert 0 < longest < SHAPE.longest_context
    exact = fit(SHAPE, named_precision("bf16"), replace(small, context=longest))
    beyond = fit(SHAPE, named_precision("bf16"), replace(small, context=longest + 16))
    assert (exact.fits, beyond.fits) == (True, False)


def test_a_fit_within_two_percent_is_called_close() -> None:
    room = judged(max_num_seqs=256).requests
    assert judged(max_num_seqs=256, concurrency=room).close
    assert not judged(max_num_seqs=256, concurrency=room // 2).close
    assert not judged(max_num_seqs=256, concurrency=room + 1).close


def test_an_fp8_cache_holds_twice_the_tokens() -> None:
    assert judged(kv_bytes=1).kv_per_request * 2 == judged().kv_per_request


def test_a_context_beyond_the_models_own_is_refused() -> None:
    assert "131072 tokens" in judged(context=200_000).reason


def test_a_window_bounds_the_cache_of_a_long_request() -> None:
    shape = read_shape(find_model("gpt-oss-20b").config)
    mxfp4 = named_precision("mxfp4", shape)
    each = [
        fit(shape, mxfp4, replace(H100, context=tokens)).kv_per_request for tokens in (32768, 65536)
    ]
    assert each[1] - each[0] == 12 * 2 * 8 * 64 * 2 * 32768  # the twelve layers without a window


def test_cuda_graphs_cost_nothing_in_eager_mode() -> None:
    assert judged(eager=True).graphs == 0 < judged().graphs


def test_the_batch_is_vllms_default_for_the_card() -> None:
    sizes = {
        name: (setting.batched_tokens, setting.sequences)
        for name, setting in {
            card.name: Setting(card.memory, 8192, slow_card="A100" in card.name)
            for card in cards().values()
        }.items()
    }
    assert sizes["B200"] == (16384, 1024)
    assert sizes["H100"] == (8192, 1024)
    assert sizes["A100-80"] == sizes["L40S"] == (2048, 256)


def test_a_checkpoint_of_known_size_counts_as_it_is() -> None:
    exact = fit(SHAPE, named_precision("bf16"), H100, weights_bytes=20 * GIB)
    assert exact.weights == pytest.approx(20 * GIB, rel=1e-6)


def test_nothing_fits_where_not_even_sixteen_gpus_do() -> None:
    shape = read_shape(find_model("Llama-3.1-405B").config)
    tiny = replace(H100, gpu_memory=16 * GIB)
    assert fewest_gpus(shape, named_precision("bf16"), tiny) == 0


def entry(**changes: Any) -> dict[str, Any]:
    return {"name": "a", "max_model_len": 8192, "tensor_parallel": 1, "gpus": [0], **changes}


def test_the_preflight_judges_an_entry_of_the_inventory() -> None:
    verdict = judge_memory(entry(), LLAMA, 81090, 1)
    assert verdict.fits
    assert verdict.budget == int(81090 * 2**20 * 0.90)


def test_the_preflight_heeds_flags_that_change_memory() -> None:
    extra = ["--kv-cache-dtype=fp8", "--max-num-seqs", "16", "--enforce-eager"]
    plain = judge_memory(entry(), LLAMA, 81090, 1)
    flagged = judge_memory(entry(extra_args=extra), LLAMA, 81090, 1)
    assert flagged.kv_per_request * 2 == plain.kv_per_request
    assert flagged.activation < plain.activation
    assert flagged.graphs == 0
    smaller = judge_memory(entry(extra_args=["--quantization", "fp8"]), LLAMA, 81090, 1)
    assert smaller.weights < 0.6 * plain.weights


def test_the_preflight_refuses_more_parallel_than_gpus() -> None:
    verdict = judge_memory(entry(tensor_parallel=4), LLAMA, 81090, 2)
    assert not verdict.fits
    assert "there are 2" in verdict.reason


@pytest.mark.parametrize(
    ("declared", "name", "weight"),
    [
        ({}, "bf16", 2.0),
        ({"quant_method": "awq", "bits": 4, "group_size": 128}, "int4", 0.5 + 2.5 / 128),
        ({"quant_method": "gptq", "bits": 8, "group_size": 128}, "int8", 1 + 3 / 128),
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, "fp8", 1.0),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, "nvfp4", 0.5 + 1 / 16),
        ({"quant_method": "mxfp4"}, "mxfp4", 0.5 + 1 / 32),
        (
            {
                "quant_method": "compressed-tensors",
                "config_groups": {"g": {"weights": {"num_bits": 8, "type": "float"}}},
            },
            "fp8",
            1.0,
        ),
        (
            {
                "quant_method": "compressed-tensors",
                "config_groups": {"g": {"weights": {"num_bits": 8, "type": "int"}}},
            },
            "int8",
            1.0,
        ),
        (
            {
                "quant_method": "compressed-tensors",
                "config_groups": {
                    "g": {"weights": {"num_bits": 4, "type": "int", "group_size": 128}}
                },
            },
            "int4",
            0.5 + 2.5 / 128,
        ),
    ],
)
def test_a_declared_quantisation_is_read(
    declared: dict[str, Any], name: str, weight: float
) -> None:
    precision = read_precision({**LLAMA, "quantization_config": declared}, SHAPE)
    assert (precision.name, precision.weight) == (name, pytest.approx(weight))


def test_an_unknown_quantisation_is_named() -> None:
    with pytest.raises(ShapeError, match="'novel'"):
        read_precision({**LLAMA, "quantization_config": {"quant_method": "novel"}}, SHAPE)
