"""What a metric is: declared once, by the signal that it belongs to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

GPU_LABELS = ("gpu", "uuid")


class Sample(NamedTuple):
    """A value of a metric of one GPU; `labels` are those beyond `gpu` and `uuid`."""

    metric: Metric
    value: float
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Metric:
    """A metric of each GPU.

    Attributes:
        name: With its unit, as Prometheus' conventions want it; of a counter without `_total`.
        help: For the page and for docs/gpu-exporter.md.
        labels: Beyond `gpu` and `uuid`.
        kind: `gauge` or `counter`.
    """

    name: str
    help: str
    labels: tuple[str, ...] = ()
    kind: Literal["gauge", "counter"] = "gauge"

    @property
    def exposed_name(self) -> str:
        """The name of its samples on the page."""
        return self.name + ("_total" if self.kind == "counter" else "")

    def of(self, value: float | None, *labels: str, scale: float = 1) -> Iterator[Sample]:
        """The sample of a reading, in the metric's unit; none where the GPU has no such reading.

        Args:
            value: The reading in NVML's unit, or None.
            labels: Values of `labels`, in their order.
            scale: Metric's units in one of NVML's.
        """
        if value is not None:
            yield Sample(self, value * scale, labels)


def gauge(name: str, text: str, *labels: str) -> Metric:
    """Declare a gauge."""
    return Metric(name, text, labels)


def counter(name: str, text: str, *labels: str) -> Metric:
    """Declare a counter; its samples end with `_total`."""
    return Metric(name, text, labels, "counter")
