"""One module per signal: its metrics, the field values it wants, and how it is read."""

from ops.gpu_exporter.signals import (
    clocks,
    ecc,
    fans,
    links,
    memory,
    mig,
    modes,
    pcie,
    power,
    processes,
    recovery,
    rows,
    temperature,
    throttling,
    utilization,
)
from ops.gpu_exporter.signals.signal import Signal

SIGNALS: tuple[Signal, ...] = (
    utilization.SIGNAL,
    memory.SIGNAL,
    temperature.SIGNAL,
    clocks.SIGNAL,
    power.SIGNAL,
    throttling.SIGNAL,
    fans.SIGNAL,
    ecc.SIGNAL,
    rows.SIGNAL,
    recovery.SIGNAL,
    pcie.SIGNAL,
    links.SIGNAL,
    modes.SIGNAL,
    mig.SIGNAL,
    processes.SIGNAL,
)
"""In the order of the page."""

FIELDS = tuple(dict.fromkeys(number for signal in SIGNALS for number in signal.fields))
"""Field values of all signals: they are read by one call, before the signals."""

__all__ = ["FIELDS", "SIGNALS", "Signal"]
