"""A verdict as a person and a program read it: sentences, vLLM's flags, JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from ops.fit.advice import suggest
from ops.fit.model_fit import GIB
from ops.fit.question import Question


def gib(size: int) -> str:
    """A size in GiB with one decimal."""
    return f"{size / GIB:.1f} GiB"


def headline(question: Question) -> str:
    """What was asked, in a line."""
    setting, source = question.setting, question.source
    exact = ", weights as on disk" if source.weights_bytes else ""
    card = f"{question.gpus} x {question.card.name}"
    idle = question.gpus - setting.tensor_parallel
    note = f" ({idle} of them idle: tensor parallel {setting.tensor_parallel})" if idle else ""
    kind = source.precision.name
    return f"{source.title} ({source.shape.parameters / 1e9:.1f}B, {kind}{exact}) on {card}{note}"


def sentence(question: Question) -> str:
    """The answer, in a line."""
    verdict, setting = question.verdict, question.setting
    used = f"{gib(verdict.needed)} of {gib(verdict.budget)} per GPU"
    if verdict.fits:
        requests = "request" if verdict.requests == 1 else "requests"
        room = f"room for {verdict.requests} {requests} of {setting.context} tokens"
        return f"fits: {used}; {room}{'; close, so try it first' if verdict.close else ''}"
    return f"does not fit: {verdict.reason} ({used})"


def flags(question: Question) -> list[str]:
    """The flags of `vllm serve` with which the formula counted."""
    setting, source = question.setting, question.source
    arguments = [
        f"--tensor-parallel-size {setting.tensor_parallel}",
        f"--max-model-len {setting.context}",
        f"--gpu-memory-utilization {setting.share:.2f}",
        f"--max-num-seqs {setting.sequences}",
    ]
    if setting.max_num_batched_tokens:
        arguments.append(f"--max-num-batched-tokens {setting.max_num_batched_tokens}")
    if setting.kv_bytes == 1:
        arguments.append("--kv-cache-dtype fp8")
    if source.precision.name == "fp8" and "quantization_config" not in source.config:
        arguments.append("--quantization fp8")
    if setting.eager:
        arguments.append("--enforce-eager")
    return arguments


def describe(question: Question) -> dict[str, Any]:
    """Everything for a program; sizes in bytes for one GPU."""
    verdict = question.verdict
    return {
        "model": question.source.title,
        "parameters": question.source.shape.parameters,
        "precision": question.source.precision.name,
        "card": question.card.name,
        "gpus": question.gpus,
        "setting": asdict(question.setting),
        "verdict": {
            **asdict(verdict),
            "needed": verdict.needed,
            "spare": verdict.spare,
            "close": verdict.close,
        },
        "sentence": sentence(question),
        "flags": " ".join(flags(question)).split(),
        "suggestions": [
            {
                "text": change.text,
                "sentence": sentence(change.question),
                "flags": " ".join(flags(change.question)).split(),
            }
            for change in suggest(question)
        ],
    }
