"""The models of an inventory, each as a question about the GPUs that its host gives it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ops.errors import InputError
from ops.fit.catalogue import Card
from ops.fit.model_fit import read_setting
from ops.fit.question import Question, Source, load_source
from ops.fleet import Fleet


@dataclass(frozen=True)
class Placed:
    """One entry of `models:` on one host."""

    host: str
    model: str
    question: Question | None
    """None where the model has no GPU."""
    problem: str = ""
    """What is wrong beside the formula."""

    @property
    def well(self) -> bool:
        """Whether it fits, as far as there is something to fit into."""
        return not self.problem and (self.question is None or self.question.verdict.fits)


def placed_models(fleet: Fleet, card: Card) -> Iterator[Placed]:
    """Judge every model of every host of the group `gpu`.

    Args:
        fleet: the inventory.
        card: what the hosts' GPUs are; the inventory does not say.

    Raises:
        InputError: a model's size is not known on this machine.
    """
    for host in fleet.group("gpu"):
        entries = list(host.variables.get("models") or ())
        promised: Counter[int] = Counter()
        for index, entry in enumerate(entries):
            gpus = [int(gpu) for gpu in entry.get("gpus") or ()]
            if not gpus:
                yield Placed(host.name, entry["name"], None)
                continue
            source = source_of(entry, f"models[{index}].source of host {host.name}")
            setting = read_setting(entry, source.shape, card.memory, card.name)
            for gpu in gpus:
                promised[gpu] += round(setting.share * 100)
            over = [gpu for gpu in gpus if promised[gpu] > 100]
            problem = f"GPU {over[0]} is promised to {promised[over[0]]} %" if over else ""
            question = Question(source, card, len(gpus), setting)
            yield Placed(host.name, entry["name"], question, problem)


def source_of(entry: Mapping[str, Any], place: str) -> Source:
    """The model that an entry's `source` names.

    Raises:
        InputError: it is neither here nor in the catalogue.
    """
    source = str(entry["source"])
    named = source.removeprefix("hf://").removeprefix("file://")
    try:
        return load_source(named)
    except InputError as error:
        raise InputError(
            f"the size of {source} is not known on this machine",
            place=place,
            cure="ops fit FOLDER --gpu CARD judges a copy of its config.json",
        ) from error
