"""The usual cards and models by name, and what a person writes for them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from ops.errors import InputError
from ops.fit.model_fit import MIB

HERE = Path(__file__).parent
ENDINGS = re.compile(r"(-(instruct|chat|hf|it|base|v0\.\d|dynamic|thinking|\d{4}))+$")
#: Endings by which public checkpoints name their quantisation, and what their config.json says.
QUANTISED: tuple[tuple[re.Pattern[str], dict[str, Any]], ...] = (
    (
        re.compile(r"-(awq|gptq)?-?(int4|(quantized\.)?w4a16|4bit)$|-(awq|gptq)$"),
        {"quant_method": "awq", "bits": 4, "group_size": 128},
    ),
    (re.compile(r"-gptq-int8$"), {"quant_method": "gptq", "bits": 8, "group_size": 128}),
    (re.compile(r"-(int8|(quantized\.)?w8a8)$"), {"quant_method": "compressed-tensors"}),
    (re.compile(r"-fp8(-dynamic|-block)?$"), {"quant_method": "fp8"}),
    (re.compile(r"-(nvfp4|fp4)$"), {"quant_method": "modelopt_fp4"}),
)
#: FP8 and FP4 weights run on Ampere too, as storage only (Marlin's kernels).
LEAST_CAPABILITY = {"fp8": 8.0, "nvfp4": 8.0, "mxfp4": 8.0, "int8": 7.5, "int4": 7.5}


@dataclass(frozen=True)
class Card:
    """One kind of GPU."""

    name: str
    memory_mib: int
    """What CUDA offers, MiB."""
    capability: float = 0.0
    """CUDA compute capability; 0 when it is not known."""
    bandwidth_gb_s: int = 0

    @property
    def memory(self) -> int:
        """What CUDA offers, bytes."""
        return self.memory_mib * MIB

    def runs(self, precision: str) -> bool:
        """Whether vLLM has kernels for weights of this precision on the card."""
        return not self.capability or self.capability >= LEAST_CAPABILITY.get(precision, 0.0)

    @property
    def caches_fp8(self) -> bool:
        """Whether an FP8 KV cache is one of the ordinary paths: Ada, Hopper and later."""
        return self.capability >= 8.9


@dataclass(frozen=True)
class Known:
    """A model that the catalogue knows."""

    name: str
    config: Mapping[str, Any]
    """Keys as in its config.json; `quantization_config` too where the name that was asked for
    tells of one."""
    billions: float
    """Published parameters."""


def simple(name: str) -> str:
    """A name without organisation, case, spaces and dashes, to compare by."""
    return re.sub(r"[\s_-]", "", name.rsplit("/", 1)[-1].lower())


@cache
def cards() -> dict[str, Card]:
    """Every card of gpus.yml by name."""
    entries = read("gpus.yml")["cards"]
    return {
        name: Card(name, **{key: value for key, value in facts.items() if key != "names"})
        for name, facts in entries.items()
    }


def usual_cards() -> list[Card]:
    """The cards of the table that compares them, smallest first."""
    return [cards()[name] for name in read("gpus.yml")["usual"]]


@cache
def read(name: str) -> dict[str, Any]:
    """One of this package's YAML files."""
    content: dict[str, Any] = yaml.safe_load((HERE / name).read_text(encoding="utf-8"))
    return content


def find_card(name: str) -> Card:
    """The card of this name, or of this memory ("48GiB").

    Raises:
        InputError: there is none.
    """
    if size := re.fullmatch(r"(\d+(?:\.\d+)?)\s*(GiB|MiB)", name, re.IGNORECASE):
        unit = 1024 if size[2].lower() == "gib" else 1
        return Card(name, int(float(size[1]) * unit))
    entries = read("gpus.yml")["cards"]
    by_name = {
        simple(alias).removeprefix("nvidia").removeprefix("geforce"): card
        for card, facts in entries.items()
        for alias in (card, *facts.get("names", ()))
    }
    wanted = simple(name).removeprefix("nvidia").removeprefix("tesla").removeprefix("geforce")
    if wanted not in by_name:
        raise InputError(
            f"no card is called {name!r}",
            place="--gpu",
            cure=f"one of: {', '.join(by_name.values())}; or its memory, such as 48GiB",
        )
    return cards()[by_name[wanted]]


def parse_gpus(text: str) -> tuple[Card, int]:
    """Read "H100:2" into a card and a count; without a count, one.

    Raises:
        InputError: the count is not a number above 0, or the card is not known.
    """
    name, colon, count = text.partition(":")
    if colon and not (count.isdecimal() and int(count) > 0):
        raise InputError(f"{count!r} is no number of GPUs", place="--gpu", cure="write H100:2")
    return find_card(name), int(count or 1)


@cache
def models() -> dict[str, Known]:
    """Every model of models.yml by name, further names included."""
    entries = read("models.yml")
    found: dict[str, Known] = {}
    for name, entry in entries.items():
        facts = inherited(entries, name)
        known = Known(name, facts, float(entry["billions"]))
        for alias in (name, *entry.get("names", ())):
            found[alias] = known
    return found


def inherited(entries: Mapping[str, Any], name: str) -> dict[str, Any]:
    """An entry's facts over those of the entry that it is like."""
    entry = dict(entries[name])
    like = entry.pop("like", "")
    below = inherited(entries, like) if like else {}
    own = {key: value for key, value in entry.items() if key not in ("billions", "names")}
    return {**below, **own}


def find_model(name: str) -> Known:
    """The model that a name means, "org/Name-Instruct-AWQ" too.

    Raises:
        InputError: the catalogue does not know it.
    """
    by_name = {simple(alias): known for alias, known in models().items()}
    asked = name.rsplit("/", 1)[-1].lower().removeprefix("meta-").replace("llama3", "llama-3")
    told: dict[str, Any] = {}
    for pattern, quantisation in QUANTISED:
        if pattern.search(asked):
            asked, told = pattern.sub("", asked), {"quantization_config": quantisation}
            break
    for candidate in (asked, ENDINGS.sub("", asked)):
        if known := by_name.get(simple(candidate)):
            return Known(known.name, {**known.config, **told}, known.billions)
    near = get_close_matches(simple(asked), by_name, n=3, cutoff=0.5)
    hint = ", ".join(dict.fromkeys(by_name[match].name for match in near))
    raise InputError(
        f"the catalogue has no model {name!r}",
        place="MODEL",
        cure="give the path of its config.json or folder"
        + (f"; or did you mean {hint}?" if hint else ""),
    )
