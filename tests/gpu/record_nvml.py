"""Print what a real GPU answers to every question of NVML that takes no more than the GPU.

`python tests/gpu/record_nvml.py > answers.json`: what the simulator's catalogue is held against.
"""

from __future__ import annotations

import ctypes
import inspect
import json
import sys
from typing import Any

import pynvml

ENUMS = ("NVML_TEMPERATURE_THRESHOLD_", "NVML_CLOCK_")


def plain(value: Any) -> Any:
    """Return what JSON can hold."""
    if isinstance(value, ctypes.Structure):
        return {name: plain(getattr(value, name)) for name, *_ in value._fields_}
    if isinstance(value, ctypes.Array | list | tuple):
        return [plain(each) for each in value]
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, str | int | float | bool | None):
        return value
    return repr(value)


def ask(function: Any, *arguments: Any) -> Any:
    """Return an answer, or the name of the error."""
    try:
        return plain(function(*arguments))
    except pynvml.NVMLError as error:
        return f"{type(error).__name__}: {error}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def main() -> None:
    pynvml.nvmlInit()
    handle = pynvml.nvmlDeviceGetHandleByIndex(0)
    found: dict[str, Any] = {}
    for name, function in sorted(vars(pynvml).items()):
        if not name.startswith(("nvmlDeviceGet", "nvmlSystemGet", "nvmlDeviceIs")):
            continue
        if "HandleBy" in name or not inspect.isfunction(function):
            continue
        asked = [
            each for each in inspect.signature(function).parameters.values()
            if each.default is inspect.Parameter.empty
        ]  # fmt: skip
        if name.startswith("nvmlSystem") and not asked:
            found[name] = ask(function)
        elif len(asked) == 1 and not name.startswith("nvmlSystem"):
            found[name] = ask(function, handle)
    for number in range(12):
        found[f"temperature threshold {number}"] = ask(
            pynvml.nvmlDeviceGetTemperatureThreshold, handle, number
        )
    for number in range(4):
        found[f"clock {number}"] = ask(pynvml.nvmlDeviceGetClockInfo, handle, number)
        found[f"max clock {number}"] = ask(pynvml.nvmlDeviceGetMaxClockInfo, handle, number)
    for number in range(18):
        found[f"nvlink {number}"] = ask(pynvml.nvmlDeviceGetNvLinkState, handle, number)
    fields = list(range(1, 276))
    for field in fields:
        (answer,) = pynvml.nvmlDeviceGetFieldValues(handle, [field])
        if answer.nvmlReturn == 0:
            found[f"field {field}"] = [answer.valueType, answer.value.ullVal]
    json.dump(found, sys.stdout, indent=1)


if __name__ == "__main__":
    main()
