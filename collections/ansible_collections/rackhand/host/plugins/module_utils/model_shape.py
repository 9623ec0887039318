# Copyright: the Rackhand founders
"""The dimensions of a language model, read from its `config.json`: parameters and KV cache.

Standard library only. The preflight action uses it, and `ops fit` through the link
`ops/fit/model_shape.py`: there is one copy. The names of the keys are those of Hugging Face's
transformers; what they mean was read there and in vLLM 0.32.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

#: Feed-forward blocks of two matrices; every other architecture gates, with three.
UNGATED = {"phi", "gpt_neox", "gpt2", "gptj", "opt", "falcon", "starcoder2", "mpt", "bloom"}
#: One layer in so many attends to everything, the others through the window; from transformers'
#: configuration classes, where a config.json leaves `layer_types` out.
FULL_ATTENTION_EVERY = {"gemma2": 2, "gemma3_text": 6, "gpt_oss": 2, "cohere2": 4}
#: Architectures that tie the embedding and the output head unless they say otherwise.
TIED = {"gemma", "gemma2", "gemma3_text", "cohere", "cohere2"}
#: What a config.json may leave to the defaults of its configuration class.
DEFAULTS: dict[str, dict[str, int]] = {
    "gemma3_text": {
        "vocab_size": 262208,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "sliding_window_pattern": 6,
    },
}


class ShapeError(ValueError):
    """A config.json does not say what is needed; the message names the key."""


@dataclass(frozen=True)
class Latent:
    """Multi-head latent attention (DeepSeek): widths of its projections."""

    query_rank: int
    cache_rank: int
    rope: int
    plain: int
    value: int


@dataclass(frozen=True)
class Experts:
    """A mixture of experts: how many, how many of them per token, how wide, in which layers."""

    count: int
    active: int
    width: int
    shared_width: int
    layers: int


@dataclass(frozen=True)
class Shape:
    """A decoder's dimensions; widths in elements."""

    architecture: str
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_width: int
    vocabulary: int
    feed_forward: int
    gated: bool
    tied: bool
    longest_context: int
    window: int
    """Tokens that a windowed layer looks back; 0 where no layer has a window."""
    full_layers: int
    """Layers that attend to the whole context."""
    vision: int
    """Parameters of an image encoder."""
    dtype: str
    latent: Latent | None = None
    experts: Experts | None = None

    @property
    def attention(self) -> int:
        """Parameters of all attention projections."""
        return self.layers * (self.attention_whole + self.attention_keys + self.attention_split)

    @property
    def attention_split(self) -> int:
        """Of one layer's projections, those that tensor parallel splits for good."""
        if self.latent:
            across = self.latent.plain + self.latent.rope
            query = (self.latent.query_rank or self.hidden) * self.heads * across
            both = self.latent.cache_rank * self.heads * (self.latent.plain + self.latent.value)
            return query + both + self.heads * self.latent.value * self.hidden
        return 2 * self.hidden * self.heads * self.head_width

    @property
    def attention_keys(self) -> int:
        """Of one layer's projections, keys and values: one head at least on every GPU."""
        return 0 if self.latent else 2 * self.hidden * self.kv_heads * self.head_width

    @property
    def attention_whole(self) -> int:
        """Of one layer's projections, those that every GPU holds: MLA's way down."""
        if not self.latent:
            return 0
        return self.hidden * (self.latent.query_rank + self.latent.cache_rank + self.latent.rope)

    @property
    def dense_feed_forward(self) -> int:
        """Parameters of feed-forward blocks that every token passes, shared experts included."""
        matrices = 3 if self.gated else 2
        if not self.experts:
            return self.layers * matrices * self.hidden * self.feed_forward
        dense = (self.layers - self.experts.layers) * self.feed_forward
        shared = self.experts.layers * self.experts.shared_width
        return matrices * self.hidden * (dense + shared)

    @property
    def routed(self) -> int:
        """Parameters of the experts that a router chooses among."""
        if not self.experts:
            return 0
        matrices = 3 if self.gated else 2
        each = matrices * self.hidden * self.experts.width
        return self.experts.layers * self.experts.count * each

    @property
    def embeddings(self) -> int:
        """Parameters of the embedding and of an output head of its own."""
        return self.vocabulary * self.hidden * (1 if self.tied else 2)

    @property
    def small(self) -> int:
        """Norms and routers: never quantised, whole on every GPU."""
        routers = self.experts.layers * self.experts.count * self.hidden if self.experts else 0
        return (2 * self.layers + 1) * self.hidden + routers

    @property
    def parameters(self) -> int:
        """All of them."""
        linear = self.attention + self.dense_feed_forward + self.routed
        return linear + self.embeddings + self.small + self.vision

    def cache_elements(self, tensor_parallel: int = 1) -> int:
        """Elements that one token leaves in one layer's KV cache on one GPU.

        Keys and values: twice the heads times their width. Tensor parallel splits the heads and,
        beyond one for each GPU, repeats them. MLA keeps one latent vector, the same on every GPU.
        """
        if self.latent:
            return self.latent.cache_rank + self.latent.rope
        return 2 * max(1, self.kv_heads // tensor_parallel) * self.head_width

    def split_problem(self, tensor_parallel: int, block: int = 0) -> str:
        """Why vLLM would refuse this tensor parallel size; empty when it would not.

        Args:
            tensor_parallel: GPUs that share each layer.
            block: Width of the blocks or groups that share a quantisation scale; 0 for none.
        """
        size = tensor_parallel
        if self.heads % size:
            return f"{self.heads} attention heads are not divisible by {size}"
        if not self.latent and self.kv_heads % size and size % self.kv_heads:
            return f"{self.kv_heads} KV heads cannot be shared by {size} GPUs"
        if -(-self.vocabulary // 64) * 64 % size:
            return f"a vocabulary of {self.vocabulary} is not divisible by {size}"
        width = self.experts.width if self.experts else self.feed_forward
        if width % size:
            return f"a feed-forward width of {width} is not divisible by {size}"
        if block and size > 1 and width // size % block:
            return f"blocks of {block} do not divide a feed-forward width of {width} over {size}"
        return ""


def read_shape(config: Mapping[str, Any]) -> Shape:
    """Read the dimensions out of a parsed `config.json`.

    Raises:
        ShapeError: it describes no decoder whose size can be told from it.
    """
    given: Mapping[str, Any] = config.get("text_config") or config
    architecture = str(given.get("model_type") or config.get("model_type") or "")
    text = {**DEFAULTS.get(architecture, {}), **given}
    hidden, layers = number(text, "hidden_size"), number(text, "num_hidden_layers")
    heads = number(text, "num_attention_heads")
    window, full_layers = read_window(text, architecture, layers)
    tied = text.get("tie_word_embeddings", config.get("tie_word_embeddings"))
    return Shape(
        architecture=architecture,
        hidden=hidden,
        layers=layers,
        heads=heads,
        kv_heads=int(text.get("num_key_value_heads") or heads),
        head_width=int(text.get("head_dim") or hidden // heads),
        vocabulary=number(text, "vocab_size"),
        feed_forward=number(text, "intermediate_size"),
        gated=architecture not in UNGATED,
        tied=architecture in TIED if tied is None else bool(tied),
        longest_context=int(text.get("max_position_embeddings") or 0),
        window=window,
        full_layers=full_layers,
        vision=count_vision(config.get("vision_config") or {}),
        dtype=str(
            text.get("dtype") or text.get("torch_dtype") or config.get("torch_dtype") or "bfloat16"
        ),
        latent=read_latent(text),
        experts=read_experts(text, layers),
    )


def number(config: Mapping[str, Any], key: str) -> int:
    """A required whole number above 0."""
    value = config.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ShapeError(f"{key} is {value!r}, not a number above 0")
    return value


def read_latent(text: Mapping[str, Any]) -> Latent | None:
    """MLA's widths, where the model has it."""
    if not text.get("kv_lora_rank"):
        return None
    return Latent(
        query_rank=int(text.get("q_lora_rank") or 0),
        cache_rank=number(text, "kv_lora_rank"),
        rope=number(text, "qk_rope_head_dim"),
        plain=number(text, "qk_nope_head_dim"),
        value=number(text, "v_head_dim"),
    )


def read_experts(text: Mapping[str, Any], layers: int) -> Experts | None:
    """The mixture of experts, where the model has one."""
    count = next(
        (
            int(text[key])
            for key in ("num_local_experts", "num_experts", "n_routed_experts")
            if text.get(key)
        ),
        0,
    )
    if count < 2:
        return None
    width = int(text.get("moe_intermediate_size") or number(text, "intermediate_size"))
    sparse = len(
        [
            layer
            for layer in range(int(text.get("first_k_dense_replace") or 0), layers)
            if (layer + 1) % int(text.get("decoder_sparse_step") or 1) == 0
            and layer not in (text.get("mlp_only_layers") or ())
        ]
    )
    return Experts(
        count=count,
        active=int(text.get("num_experts_per_tok") or 1),
        width=width,
        shared_width=int(
            text.get("shared_expert_intermediate_size")
            or int(text.get("n_shared_experts") or 0) * width
        ),
        layers=sparse,
    )


def read_window(text: Mapping[str, Any], architecture: str, layers: int) -> tuple[int, int]:
    """Tokens of the sliding window, and how many layers have none."""
    types = text.get("layer_types") or ()
    if unknown := set(types) - {"full_attention", "sliding_attention"}:
        raise ShapeError(
            f"layer_types has {', '.join(sorted(unknown))}: not attention as we know it"
        )
    window = int(text.get("sliding_window") or 0)
    if not window or text.get("use_sliding_window") is False:
        return 0, layers
    if types:
        return window, sum(kind == "full_attention" for kind in types)
    every = text.get("sliding_window_pattern") or FULL_ATTENTION_EVERY.get(architecture, 0)
    return window, layers // int(every) if every else 0


def count_vision(vision: Mapping[str, Any]) -> int:
    """Parameters of an image encoder's layers; its embeddings are too few to matter."""
    hidden = int(vision.get("hidden_size") or 0)
    width = int(vision.get("intermediate_size") or 4 * hidden)
    return int(vision.get("num_hidden_layers") or 0) * hidden * (4 * hidden + 2 * width)
