"""A question for `ops fit`: a model, a card, and how vLLM is to run the one on the other."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypedDict

from ops.errors import InputError
from ops.fit.catalogue import Card, find_model
from ops.fit.model_fit import Setting, Verdict, fit, parallel_sizes
from ops.fit.model_precision import DTYPE_BYTES, Precision, named_precision, read_precision
from ops.fit.model_shape import Shape, ShapeError, read_shape

USUAL_CONTEXT = 8192
"""The platform's default for `max_model_len` (mission A4)."""


class Wishes(TypedDict):
    """What a person asks of the engine; zeros ask for the platform's defaults."""

    context: int
    concurrency: int
    kv_dtype: str
    share: float


@dataclass(frozen=True)
class Source:
    """A model as it was found."""

    title: str
    config: Mapping[str, Any]
    shape: Shape
    precision: Precision
    weights_bytes: int = 0
    """Exact size of the checkpoint; 0 when there is none at hand."""

    def quantised(self, name: str) -> Source:
        """The same model with its weights held otherwise.

        Raises:
            InputError: there is no precision of that name.
        """
        try:
            precision = named_precision(name, self.shape)
        except ShapeError as error:
            raise InputError(str(error), place="--precision", cure="choose one of them") from error
        if precision.name == self.precision.name:
            return self
        return replace(self, precision=precision, weights_bytes=0)


@dataclass(frozen=True)
class Question:
    """One model on one kind of card."""

    source: Source
    card: Card
    gpus: int
    """GPUs at hand; the setting may use fewer."""
    setting: Setting

    @cached_property
    def verdict(self) -> Verdict:
        """The formula's answer."""
        source = self.source
        return fit(source.shape, source.precision, self.setting, source.weights_bytes)

    def on(self, card: Card, gpus: int) -> Question:
        """The same question for another card or number of GPUs, split as far as vLLM can."""
        size = most_parallel(self.source, gpus)
        setting = replace(
            self.setting,
            gpu_memory=card.memory,
            slow_card="a100" in card.name.lower(),
            tensor_parallel=size,
        )
        return replace(self, card=card, gpus=gpus, setting=setting)


def most_parallel(source: Source, gpus: int) -> int:
    """The largest tensor parallel size that vLLM would take on so many GPUs."""
    return max(parallel_sizes(source.shape, source.precision, gpus), default=1)


def load_source(text: str) -> Source:
    """Find a model: a folder of weights, a config.json, or a name of the catalogue.

    Raises:
        InputError: there is none, or its config.json does not tell its size.
    """
    path = Path(text)
    folder = path.parent if path.is_file() else path
    if path.is_file() or path.is_dir():
        return read_source(folder.resolve().name, read_config(folder, path), folder)
    if "/" in text and (text.startswith((".", "/", "~")) or text.count("/") > 1):
        raise InputError(
            "there is no such folder or file", place=text, cure="name a folder with a config.json"
        )
    return read_source(text.rsplit("/", 1)[-1], find_model(text).config)


def read_config(folder: Path, path: Path) -> Mapping[str, Any]:
    """Parse a config.json.

    Raises:
        InputError: it is missing or no JSON object.
    """
    file = path if path.is_file() else folder / "config.json"
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"the model's config.json cannot be read: {error}",
            place=str(file),
            cure="name a folder that holds config.json, as Hugging Face has it",
        ) from error
    if not isinstance(config, dict):
        raise InputError("config.json is no object", place=str(file), cure="fetch it again")
    return config


def read_source(title: str, config: Mapping[str, Any], folder: Path | None = None) -> Source:
    """Turn a config, and the weights beside it, into a Source.

    Raises:
        InputError: the config does not tell the model's size.
    """
    try:
        shape = read_shape(config)
        precision = read_precision(config, shape)
    except (ShapeError, TypeError, ValueError) as error:
        raise InputError(
            f"config.json does not tell the model's size: {error}",
            place=str(folder or title),
            cure="only decoders with attention are known; compare with the model's own page",
        ) from error
    return Source(title, config, shape, precision, checkpoint_bytes(folder) if folder else 0)


def checkpoint_bytes(folder: Path) -> int:
    """Size of the safetensors in a folder: as the index says, else as the files are."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        total = json.loads(index.read_text(encoding="utf-8")).get("metadata", {}).get("total_size")
        if total:
            return int(total)
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


def ask(
    source: Source,
    card: Card,
    gpus: int,
    wishes: Wishes,
    tensor_parallel: int = 0,
) -> Question:
    """Put a question together; tensor parallel 0 splits as far as vLLM can.

    Raises:
        InputError: the numbers cannot be meant.
    """
    if tensor_parallel > gpus:
        raise InputError(
            f"tensor parallel {tensor_parallel} needs as many GPUs; there are {gpus}",
            place="--tensor-parallel",
            cure=f"--gpu '{card.name}:{tensor_parallel}'",
        )
    if not 0 < wishes["share"] <= 1:
        raise InputError(
            f"{wishes['share']} is no share of memory",
            place="--gpu-memory-utilization",
            cure="0.90 is usual",
        )
    if wishes["kv_dtype"] not in ("auto", "fp8"):
        raise InputError(
            f"{wishes['kv_dtype']!r} is no kind of cache", place="--kv-dtype", cure="auto or fp8"
        )
    shape = source.shape
    setting = Setting(
        gpu_memory=card.memory,
        context=wishes["context"] or min(USUAL_CONTEXT, shape.longest_context or USUAL_CONTEXT),
        tensor_parallel=tensor_parallel or most_parallel(source, gpus),
        share=wishes["share"],
        kv_bytes=1 if wishes["kv_dtype"] == "fp8" else DTYPE_BYTES.get(shape.dtype, 2),
        concurrency=wishes["concurrency"],
        slow_card="a100" in card.name.lower(),
    )
    return Question(source, card, gpus, setting)
