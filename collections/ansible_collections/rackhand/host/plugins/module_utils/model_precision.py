# Copyright: the Rackhand founders
"""How a model's weights are held: bytes for one weight, and what stays unquantised.

Standard library only; see model_fit.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .model_shape import Shape, ShapeError

DTYPE_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2, "half": 2, "auto": 2}
#: Bytes for one weight of a quantised matrix, scales and zero points included: group scales are
#: 16 bits for 128 weights (AWQ, GPTQ), 8 bits for 32 (MXFP4) or 16 (NVFP4).
WEIGHT_BYTES = {
    "fp32": 4.0,
    "bf16": 2.0,
    "fp8": 1.0,
    "int8": 1.0,
    "int4": 0.5 + 2.5 / 128,
    "mxfp4": 0.5 + 1 / 32,
    "nvfp4": 0.5 + 1 / 16,
}


@dataclass(frozen=True)
class Precision:
    """How the weights are held."""

    name: str
    """A key of WEIGHT_BYTES: of the quantised matrices."""
    weight: float
    """Bytes for one weight of a quantised matrix."""
    plain: float = 2.0
    """Bytes for one weight of what stays unquantised: embeddings, output head, norms, routers."""
    attention: bool = True
    """Whether the attention projections are quantised."""
    experts_only: bool = False
    """Whether only routed experts are quantised (gpt-oss)."""
    block: int = 0
    """Width of the blocks that tensor parallel must not cut."""


def named_precision(name: str, shape: Shape | None = None) -> Precision:
    """The precision that a person names: bf16, fp8, int8, int4, nvfp4, mxfp4 or fp32.

    Raises:
        ShapeError: There is none of that name.
    """
    if name not in WEIGHT_BYTES:
        raise ShapeError(f"precision {name!r} is none of {', '.join(WEIGHT_BYTES)}")
    plain = 4.0 if name == "fp32" else 2.0
    only = name == "mxfp4" and shape is not None and shape.experts is not None
    return Precision(name, WEIGHT_BYTES[name], plain, experts_only=only)


def read_precision(config: Mapping[str, Any], shape: Shape) -> Precision:
    """The precision that a config.json declares, `quantization_config` included.

    Raises:
        ShapeError: The quantisation is of a kind that is not known here.
    """
    declared: Mapping[str, Any] = (
        config.get("quantization_config")
        or (config.get("text_config") or {}).get("quantization_config")
        or {}
    )
    if not declared:
        return named_precision("fp32" if shape.dtype == "float32" else "bf16")
    method = str(declared.get("quant_method", ""))
    left_out = str(
        [declared.get(key) for key in ("modules_to_not_convert", "ignore", "exclude_modules")]
    )
    bits, group = declared_bits(declared)
    if method == "mxfp4":
        return named_precision("mxfp4", shape)
    known = {"nvfp4": 0.5 + 1 / 16, "float8": 1.0, "int8": 1.0}
    kind = declared_kind(method, declared, bits)
    weight = known.get(kind) or bits / 8 + (2 + bits / 8) / (group or 128)
    block = (declared.get("weight_block_size") or [0])[0]
    names = {"float8": "fp8", "packed": "int4" if bits == 4 else "int8"}
    return Precision(
        names.get(kind, kind), weight, attention="attn" not in left_out, block=int(block)
    )


def declared_kind(method: str, declared: Mapping[str, Any], bits: int) -> str:
    """The family of a quantisation: float8, nvfp4, int8 or packed integers."""
    text = str(declared).lower()
    if "nvfp4" in text or method == "modelopt_fp4":
        return "nvfp4"
    if "fp8" in method or (bits == 8 and "float" in text):
        return "float8"
    if method in ("awq", "gptq", "auto-round", "bitsandbytes"):
        return "packed"
    if method == "compressed-tensors":
        return "int8" if bits == 8 else "packed"
    if method == "modelopt":
        return "float8"
    raise ShapeError(f"quantization_config.quant_method {method!r} is not known")


def declared_bits(declared: Mapping[str, Any]) -> tuple[int, int]:
    """Bits and group size of a quantised weight."""
    for group in (declared.get("config_groups") or {}).values():
        weights = group.get("weights") or {}
        return int(weights.get("num_bits") or 8), int(weights.get("group_size") or 0)
    if declared.get("load_in_8bit"):
        return 8, 0
    bits = declared.get("bits") or declared.get("w_bit") or (4 if "4bit" in str(declared) else 8)
    return int(bits), int(declared.get("group_size") or declared.get("q_group_size") or 0)
