"""Parameters and cache from a config.json."""

import pytest

from ops.fit.catalogue import Known, find_model, models
from ops.fit.model_shape import Shape, ShapeError, read_shape


def shape(name: str, **changes: object) -> Shape:
    return read_shape({**find_model(name).config, **changes})


@pytest.mark.parametrize("known", models().values(), ids=lambda known: known.name)
def test_the_parameters_of_each_catalogued_model_are_those_published(known: Known) -> None:
    assert read_shape(known.config).parameters / 1e9 == pytest.approx(known.billions, rel=0.01)


def test_tied_embeddings_count_once() -> None:
    apart, tied = shape("Qwen3-4B", tie_word_embeddings=False), shape("Qwen3-4B")
    assert apart.parameters - tied.parameters == 151936 * 2560


def test_keys_and_values_are_repeated_beyond_one_head_for_each_gpu() -> None:
    model = shape("Llama-3.1-8B")
    assert [model.cache_elements(size) for size in (1, 4, 8, 16)] == [2048, 512, 256, 256]


def test_latent_attention_caches_one_vector_on_every_gpu() -> None:
    model = shape("DeepSeek-V3")
    assert model.cache_elements(1) == model.cache_elements(8) == 512 + 64


@pytest.mark.parametrize(
    ("name", "window", "whole"),
    [
        ("Llama-3.1-8B", 0, 32),
        ("Mistral-7B-v0.1", 4096, 0),
        ("gemma-2-9b", 4096, 21),
        ("gemma-3-27b", 1024, 10),
        ("gpt-oss-20b", 128, 12),
    ],
)
def test_windowed_layers_are_told_from_those_that_see_everything(
    name: str, window: int, whole: int
) -> None:
    model = shape(name)
    assert (model.window, model.full_layers) == (window, whole)


def test_a_window_that_is_switched_off_is_none() -> None:
    model = shape("Qwen2.5-7B", sliding_window=131072, use_sliding_window=False)
    assert (model.window, model.full_layers) == (0, 28)


def test_layers_that_are_no_attention_are_refused() -> None:
    with pytest.raises(ShapeError, match="linear_attention"):
        shape("Qwen3-8B", layer_types=["linear_attention", "full_attention"])


@pytest.mark.parametrize("value", [None, 0, "4096", True])
def test_a_missing_or_senseless_width_is_named(value: object) -> None:
    with pytest.raises(ShapeError, match="hidden_size"):
        shape("Qwen3-8B", hidden_size=value)


@pytest.mark.parametrize(
    ("name", "size", "block", "problem"),
    [
        ("Llama-3.1-70B", 8, 0, ""),
        ("Llama-3.1-70B", 16, 0, ""),
        ("Llama-3.1-70B", 3, 0, "attention heads"),
        ("Qwen2.5-7B", 8, 0, "attention heads"),
        ("Phi-4", 4, 0, "KV heads"),
        ("Qwen3-14B", 5, 0, "KV heads"),
        ("Qwen3-235B-A22B", 8, 128, "blocks of 128"),
        ("Qwen3-235B-A22B", 4, 128, ""),
    ],
)
def test_a_split_that_vllm_refuses_is_refused_with_its_reason(
    name: str, size: int, block: int, problem: str
) -> None:
    told = shape(name).split_problem(size, block)
    assert problem in told
    assert bool(told) == bool(problem)
