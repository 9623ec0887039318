"""One GPU as NVML sees it: questions that a GPU may not be able to answer."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import pynvml as nvml

Field = int | tuple[int, int]
"""Number of a field value, or the number and its scope, such as an NVLink."""

NO_SUCH_READING = frozenset(
    {
        nvml.NVML_ERROR_INVALID_ARGUMENT,
        nvml.NVML_ERROR_NOT_SUPPORTED,
        nvml.NVML_ERROR_NO_PERMISSION,
        nvml.NVML_ERROR_NOT_FOUND,
        nvml.NVML_ERROR_FUNCTION_NOT_FOUND,
        nvml.NVML_ERROR_NO_DATA,
        nvml.NVML_ERROR_ARGUMENT_VERSION_MISMATCH,
        nvml.NVML_ERROR_DEPRECATED,
    }
)
"""Answers that say that this GPU, driver or user has no such reading; nothing is wrong."""

VALUE_OF_TYPE = ("dVal", "uiVal", "ulVal", "ullVal", "sllVal", "siVal", "usVal")
"""Where a field value lies in its union, by NVML's type of it."""


@dataclass(frozen=True)
class Identity:
    """What a GPU is, and where; none of it changes while the driver is loaded."""

    index: int
    uuid: str
    name: str = ""
    pci_bus_id: str = ""
    serial: str = ""
    vbios_version: str = ""
    compute_capability: str = ""


@dataclass
class Device:
    """One GPU.

    Attributes:
        handle: NVML's.
        index: NVML's number for it.
        fields: Field values of this reading, by number; those that it does not have are absent.
        links_seen: NVLinks that were active at some time.
    """

    handle: Any
    index: int
    fields: dict[Field, float] = field(default_factory=dict)
    links_seen: set[int] = field(default_factory=set)

    def ask(self, function: Callable[..., Any], *arguments: Any) -> Any | None:
        """Call a function of NVML with this GPU.

        Returns:
            Its answer; None where this GPU has no such reading.

        Raises:
            pynvml.NVMLError: Something is wrong, such as a GPU that is lost.
        """
        return answer(function, self.handle, *arguments)

    def read_fields(self, numbers: Iterable[Field]) -> dict[Field, float]:
        """Many field values by one call; absent are those that this GPU does not have."""
        asked = list(numbers)
        values = self.ask(nvml.nvmlDeviceGetFieldValues, asked)
        return {
            number: getattr(value.value, VALUE_OF_TYPE[value.valueType])
            for number, value in zip(asked, values or (), strict=False)
            if value.nvmlReturn == nvml.NVML_SUCCESS and value.valueType < len(VALUE_OF_TYPE)
        }

    def identify(self) -> Identity:
        """Ask it who it is."""
        pci = self.ask(nvml.nvmlDeviceGetPciInfo_v3)
        capability = self.ask(nvml.nvmlDeviceGetCudaComputeCapability)
        return Identity(
            index=self.index,
            uuid=self.ask(nvml.nvmlDeviceGetUUID) or "",
            name=self.ask(nvml.nvmlDeviceGetName) or "",
            pci_bus_id=pci.busId if pci else "",
            serial=self.ask(nvml.nvmlDeviceGetSerial) or "",
            vbios_version=self.ask(nvml.nvmlDeviceGetVbiosVersion) or "",
            compute_capability=".".join(map(str, capability)) if capability else "",
        )


def answer(function: Callable[..., Any], *arguments: Any) -> Any | None:
    """Call a function of NVML; None where there is no such reading."""
    try:
        return function(*arguments)
    except nvml.NVMLError as problem:
        if problem.value in NO_SUCH_READING:
            return None
        raise
