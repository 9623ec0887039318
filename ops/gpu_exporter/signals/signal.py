"""What a signal is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ops.gpu_exporter.device import Device, Field
from ops.gpu_exporter.metric import Metric, Sample
from ops.gpu_exporter.owners import Owners


@dataclass(frozen=True)
class Signal:
    """One kind of reading of a GPU.

    Attributes:
        name: For `gpu_signal_failed` and the log.
        metrics: What it gives.
        read: Gives it. It may raise pynvml.NVMLError: the other signals are read all the same.
        fields: Field values that it finds in `device.fields`.
    """

    name: str
    metrics: tuple[Metric, ...]
    read: Callable[[Device, Owners], Iterator[Sample]]
    fields: tuple[Field, ...] = ()
