# Copyright: the Rackhand founders
"""Whether a model fits GPUs under vLLM: weights, KV cache and what the profile run takes.

Standard library only. The preflight action asks `judge_memory` with an entry of the inventory's
`models:` and a parsed config.json; `ops fit` uses the parts through the link
`ops/fit/model_fit.py`. All sizes are bytes for one GPU unless a name says otherwise.

Sources of the formula: vLLM 0.32's `determine_available_memory` (share of memory, less weights,
less the peak of a forward pass over dummy tokens, less CUDA graphs; the rest is KV cache),
`kv_cache_interface.py` (cache of a request) and `EngineArgs.get_batch_defaults`. The constants
were fitted to starts of vLLM 0.19 that llm-d-planner measured on H100s
(accuracy/results/v0.19.0/accuracy_report.md) and checked on others: docs/fit.md has the table.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from .model_precision import DTYPE_BYTES, Precision, named_precision, read_precision
from .model_shape import Shape, read_shape

MIB, GIB = 2**20, 2**30
#: vLLM's cache is handed out in blocks of so many tokens.
BLOCK_TOKENS = 16
#: Sizes of one server (and two); others need odd boxes.
TENSOR_PARALLEL = (1, 2, 4, 8, 16)
#: Sampler's peak: logits in 16 bits, then in 32, probabilities, noise, and slack. Measured 14.9
#: (vocabulary of 256,000) to 15.9 (100,352); vLLM before 0.17 took 41.
BYTES_PER_LOGIT = 15
#: CUDA context growth and libraries: measured 0.24 to 0.27 GiB.
RUNTIME = int(0.25 * GIB)
#: With tensor parallel, NCCL's and all-reduce's buffers too: measured 2.06 to 2.2 GiB.
RUNTIME_PARALLEL = int(2.1 * GIB)
#: CUDA graphs grow with layers and with the batch sizes captured: Llama 3.1 8B 0.84 GiB of
#: vLLM's own estimate at all 51 sizes, 0.4 GiB and less in logs with few.
GRAPH_PER_LAYER = 13 * MIB
#: Share of the budget by which whole starts differed from the formula, at most.
UNSURE = 0.02
LARGEST_CAPTURE = 512


@dataclass(frozen=True)
class Setting:
    """How vLLM is to run the model."""

    gpu_memory: int
    """What CUDA offers on one GPU: nvidia-smi's memory.total less memory.reserved."""
    context: int
    """Tokens of the longest request (`--max-model-len`)."""
    tensor_parallel: int = 1
    share: float = 0.90
    """`--gpu-memory-utilization`."""
    kv_bytes: int = 2
    """Bytes for one element of the KV cache."""
    concurrency: int = 0
    """Requests of full context that must have room at once; 0 asks for one."""
    max_num_seqs: int = 0
    """Requests in a batch; 0 is vLLM's default for the card."""
    max_num_batched_tokens: int = 0
    """Tokens in a batch; 0 is vLLM's default for the card."""
    slow_card: bool = False
    """An A100, which vLLM gives the smaller defaults in spite of its memory."""
    eager: bool = False
    """No CUDA graphs (`--enforce-eager`)."""

    @property
    def sequences(self) -> int:
        """Requests in a batch; vLLM 0.32's default where none is named."""
        large = self.gpu_memory >= 70 * GIB and not self.slow_card
        return self.max_num_seqs or self.concurrency or (1024 if large else 256)

    @property
    def batched_tokens(self) -> int:
        """Tokens in a batch; vLLM 0.32's default for `vllm serve` where none is named."""
        if self.max_num_batched_tokens:
            return self.max_num_batched_tokens
        if self.gpu_memory >= 160 * GIB:
            return 16384
        return 8192 if self.gpu_memory >= 70 * GIB and not self.slow_card else 2048


@dataclass(frozen=True)
class Verdict:
    """What one GPU would hold, and whether that fits; sizes in bytes for one GPU."""

    fits: bool
    reason: str
    """Empty when it fits."""
    budget: int
    """Share times memory."""
    weights: int
    activation: int
    graphs: int
    runtime: int
    kv_wanted: int
    """KV cache of the requests that must have room."""
    kv_room: int
    """What is left for KV cache; below 0 when the weights alone do not fit."""
    kv_per_request: int
    """KV cache of one request of full context."""
    requests: int
    """Requests of full context that have room at once."""
    largest_context: int
    """The longest request that has room alone, in tokens; 0 when none has."""

    @property
    def needed(self) -> int:
        """Everything, with the KV cache that is wanted."""
        return self.weights + self.activation + self.graphs + self.runtime + self.kv_wanted

    @property
    def spare(self) -> int:
        """Budget less what is needed; below 0 by how much does not fit."""
        return self.budget - self.needed

    @property
    def close(self) -> bool:
        """Whether it fits by less than the formula is sure of (docs/fit.md)."""
        return self.fits and self.spare < UNSURE * self.budget


def judge_memory(
    model: Mapping[str, Any],
    config: Mapping[str, Any],
    gpu_memory_mib: int,
    gpus: int,
    *,
    gpu_name: str = "",
    weights_bytes: int = 0,
) -> Verdict:
    """Judge one entry of the inventory's `models:` against the GPUs of a host.

    Args:
        model: The entry: `max_model_len`, `tensor_parallel`, `gpu_memory_utilization`,
            `extra_args` (the flags that change memory are heeded).
        config: The model's parsed config.json.
        gpu_memory_mib: Memory of the smallest GPU in MiB, as nvidia-smi's memory.total less
            memory.reserved gives it.
        gpus: GPUs that the entry may use.
        gpu_name: The GPU's name, for vLLM's defaults.
        weights_bytes: Exact size of the checkpoint, where it is known.

    Raises:
        ShapeError: The config does not tell the model's size.
    """
    shape = read_shape(config)
    precision = read_precision(config, shape)
    setting = read_setting(model, shape, gpu_memory_mib * MIB, gpu_name)
    named = flag(model, "quantization", "q")
    if named in ("fp8", "mxfp4") and precision.name in ("bf16", "fp32"):
        precision = named_precision(named)
    if setting.tensor_parallel > gpus:
        text = f"tensor parallel {setting.tensor_parallel} needs as many GPUs; there are {gpus}"
        return replace(fit(shape, precision, setting, weights_bytes), fits=False, reason=text)
    return fit(shape, precision, setting, weights_bytes)


def read_setting(
    model: Mapping[str, Any], shape: Shape, gpu_memory: int, gpu_name: str = ""
) -> Setting:
    """Turn an entry of `models:` into a Setting, heeding the flags in `extra_args`."""
    kv_dtype = flag(model, "kv-cache-dtype")
    return Setting(
        gpu_memory=gpu_memory,
        context=int(model.get("max_model_len") or shape.longest_context or 8192),
        tensor_parallel=int(model.get("tensor_parallel") or 1),
        share=float(model.get("gpu_memory_utilization") or 0.90),
        kv_bytes=1 if kv_dtype.startswith("fp8") else DTYPE_BYTES.get(shape.dtype, 2),
        max_num_seqs=int(flag(model, "max-num-seqs") or 0),
        max_num_batched_tokens=int(flag(model, "max-num-batched-tokens") or 0),
        slow_card="a100" in gpu_name.lower(),
        eager="--enforce-eager" in (model.get("extra_args") or ()),
    )


def flag(model: Mapping[str, Any], *names: str) -> str:
    """The value of a flag in an entry's `extra_args`; empty when it is not there."""
    arguments = [str(argument) for argument in model.get("extra_args") or ()]
    for at, argument in enumerate(arguments):
        head, equals, value = argument.partition("=")
        if head.lstrip("-") in names and head.startswith("-"):
            return value if equals else "".join(arguments[at + 1 : at + 2])
    return ""


def weights_on_gpu(shape: Shape, precision: Precision, tensor_parallel: int = 1) -> int:
    """Bytes of weights on one GPU.

    Matrices are split evenly; norms, routers, MLA's projections down and an image encoder lie
    whole on each GPU, and keys and values beyond one head for each GPU are repeated.
    """
    quantised, plain = precision.weight, precision.plain
    attention = plain if precision.experts_only or not precision.attention else quantised
    dense = plain if precision.experts_only else quantised
    repeats = max(1, tensor_parallel // shape.kv_heads)
    split = shape.layers * (shape.attention_split + shape.attention_keys * repeats) * attention
    split += shape.dense_feed_forward * dense + shape.routed * quantised
    split += shape.embeddings * plain
    whole = shape.layers * shape.attention_whole * attention + (shape.small + shape.vision) * plain
    return int(split / tensor_parallel + whole)


def activation(shape: Shape, setting: Setting) -> int:
    """Peak of a forward pass: the feed-forward block, or the sampler over the vocabulary.

    The feed-forward block holds gate, up and product (each of its width) and three hidden states
    for each token; the sampler a row of the vocabulary for each request. Experts work in buffers
    of their own beside either.
    """
    tokens, split = setting.batched_tokens, setting.tensor_parallel
    state = tokens * shape.hidden * 2
    block = 3 * tokens * (shape.feed_forward // split) * 2 + 3 * state
    sampler = setting.sequences * shape.vocabulary * BYTES_PER_LOGIT + state
    workspace = 0
    if shape.experts:
        block = 3 * tokens * (shape.experts.shared_width // split) * 2 + 3 * state
        width = shape.experts.width // split
        rows = tokens * shape.experts.active
        workspace = rows * (max(2 * width, shape.hidden) + width) * 2
    return max(block, sampler) + workspace


def graphs(shape: Shape, setting: Setting) -> int:
    """CUDA graphs: half for each layer, half as far as the captured batch sizes reach."""
    if setting.eager:
        return 0
    captured = min(LARGEST_CAPTURE, 2 * setting.sequences) / LARGEST_CAPTURE
    return int(shape.layers * GRAPH_PER_LAYER * (1 + captured))


def cache_of(shape: Shape, setting: Setting, tokens: int) -> int:
    """KV cache of one request on one GPU.

    A windowed layer keeps the window and what a step has in flight, never more than the request.
    """
    windowed = min(tokens, shape.window - 1 + setting.batched_tokens) if shape.window else 0
    each = shape.cache_elements(setting.tensor_parallel) * setting.kv_bytes
    whole_blocks = -(-tokens // BLOCK_TOKENS) * BLOCK_TOKENS
    return each * (shape.full_layers * whole_blocks + (shape.layers - shape.full_layers) * windowed)


def fit(shape: Shape, precision: Precision, setting: Setting, weights_bytes: int = 0) -> Verdict:
    """Judge a model against one kind of GPU.

    Args:
        shape: The model.
        precision: How its weights are held.
        setting: How vLLM is to run it.
        weights_bytes: Exact size of the checkpoint for all GPUs; 0 to compute it.
    """
    weights = weights_on_gpu(shape, precision, setting.tensor_parallel)
    if weights_bytes:
        weights = weights * weights_bytes // weights_on_gpu(shape, precision)
    budget = int(setting.gpu_memory * setting.share)
    peak, graph = activation(shape, setting), graphs(shape, setting)
    runtime = RUNTIME_PARALLEL if setting.tensor_parallel > 1 else RUNTIME
    room = budget - weights - peak - graph - runtime
    each = cache_of(shape, setting, setting.context)
    wanted = each * max(1, setting.concurrency)
    largest = longest(shape, setting, room)
    reason = shape.split_problem(setting.tensor_parallel, precision.block)
    if not reason and shape.longest_context and setting.context > shape.longest_context:
        reason = f"the model was made for {shape.longest_context} tokens, not {setting.context}"
    if not reason and wanted > room:
        over = wanted - room
        size = f"{over / GIB:.1f} GiB" if over >= GIB else f"{max(1, over // MIB)} MiB"
        reason = f"{size} too much on each GPU"
    return Verdict(
        fits=not reason,
        reason=reason,
        budget=budget,
        weights=weights,
        activation=peak,
        graphs=graph,
        runtime=runtime,
        kv_wanted=wanted,
        kv_room=room,
        kv_per_request=each,
        requests=max(0, room // each),
        largest_context=largest,
    )


def longest(shape: Shape, setting: Setting, room: int) -> int:
    """Tokens of the longest request whose cache fits into so many bytes; never beyond the model's.

    Found by halving, because windowed layers make the cache's growth uneven.
    """
    low, high = 0, shape.longest_context or 2**20
    while low < high:
        middle = (low + high + 1) // 2
        if cache_of(shape, setting, middle) <= room:
            low = middle
        else:
            high = middle - 1
    return low


def parallel_sizes(shape: Shape, precision: Precision, most: int = 16) -> Iterator[int]:
    """Tensor parallel sizes that vLLM would take, smallest first."""
    for size in TENSOR_PARALLEL:
        if size <= most and not shape.split_problem(size, precision.block):
            yield size


def fewest_gpus(
    shape: Shape, precision: Precision, setting: Setting, weights_bytes: int = 0
) -> int:
    """The smallest tensor parallel size that fits; 0 when not even 16 GPUs do."""
    for size in parallel_sizes(shape, precision):
        if fit(shape, precision, replace(setting, tensor_parallel=size), weights_bytes).fits:
            return size
    return 0
