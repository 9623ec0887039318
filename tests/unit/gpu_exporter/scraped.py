"""A page of metrics as Prometheus reads it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from prometheus_client.parser import text_string_to_metric_families


@dataclass(frozen=True)
class Scrape:
    """A page as Prometheus reads it: (labels, value) by name."""

    samples: Mapping[str, list[tuple[Mapping[str, str], float]]]
    text: str = field(repr=False)
    seconds: float = 0.0

    def values(self, name: str, **labels: str) -> list[float]:
        """The values of the samples that have these labels."""
        wanted = labels.items()
        return [value for have, value in self.samples.get(name, []) if wanted <= have.items()]

    def __call__(self, name: str, **labels: str) -> float:
        """The value of the only such sample."""
        found = self.values(name, **labels)
        assert len(found) == 1, f"{name} {labels}: {self.samples.get(name)}"
        return found[0]

    def labels(self, name: str, **labels: str) -> dict[str, str]:
        """The labels of the only such sample."""
        found = [have for have, _ in self.samples.get(name, []) if labels.items() <= have.items()]
        assert len(found) == 1, f"{name} {labels}: {self.samples.get(name)}"
        return dict(found[0])

    def condition(self, gpu: str) -> str:
        """The condition of a GPU."""
        rows = self.samples["gpu_condition"]
        (found,) = [row["condition"] for row, value in rows if row["gpu"] == gpu and value == 1]
        return found


def parse(text: str, seconds: float = 0.0) -> Scrape:
    """Read a page."""
    samples: dict[str, list[tuple[Mapping[str, str], float]]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            samples.setdefault(sample.name, []).append((sample.labels, sample.value))
    return Scrape(samples, text, seconds)
