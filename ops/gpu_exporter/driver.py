"""NVML's opening, which may fail, hang, or be of a driver that is another one meanwhile."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pynvml as nvml

from ops.gpu_exporter.device import answer
from ops.gpu_exporter.gpu import Gpu

log = logging.getLogger(__name__)

RETRY_S = 5.0
LIBRARY = "libnvidia-ml.so"
MODULE = re.compile(r"^NVRM version:.*?\s(\d+\.\d+(?:\.\d+)?)\s", re.MULTILINE)
OPENING = "no_answer"
OTHER = "other"
ERRORS = {
    nvml.NVML_ERROR_DRIVER_NOT_LOADED: "driver_not_loaded",
    nvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH: "version_mismatch",
    nvml.NVML_ERROR_LIBRARY_NOT_FOUND: "library_not_found",
    nvml.NVML_ERROR_NO_PERMISSION: "no_permission",
}
"""Why NVML does not open, by its code; OPENING while it has not come back, OTHER for the rest."""


@dataclass(frozen=True)
class Versions:
    """Of the driver and its library; empty while NVML is not open."""

    driver: str = ""
    nvml: str = ""
    cuda: str = ""


class Driver:
    """Opens NVML, again and again until it opens, and starts the readers of its GPUs.

    Args:
        reader: Makes the reader of the GPU with an index.
        procfs: Where /proc is.

    Attributes:
        error: Why NVML is not open; empty if it is.
        versions: Of the driver.
        gpus: The readers, once NVML is open.
        tried: Set when NVML opened or failed for the first time.
    """

    def __init__(self, reader: Callable[[int], Gpu], procfs: Path = Path("/proc")) -> None:
        self.error = OPENING
        self.versions = Versions()
        self.gpus: tuple[Gpu, ...] = ()
        self.tried = threading.Event()
        self._reader = reader
        self._procfs = procfs
        self._at_start = self.module_version()
        self._library: Library | None = None
        self._loaded: tuple[int, int] | None = None

    def start(self) -> None:
        """Open it in a thread of its own."""
        threading.Thread(target=self._run, name="driver", daemon=True).start()

    def _run(self) -> None:
        """Open it; the readers then live as long as the process."""
        while not self._open():
            time.sleep(RETRY_S)

    def _open(self) -> bool:
        try:
            nvml.nvmlInit()
            gpus = tuple(map(self._reader, range(nvml.nvmlDeviceGetCount())))
            self.versions = _versions()
        except nvml.NVMLError as problem:
            error = ERRORS.get(problem.value, OTHER)
            if error != self.error:
                log.error("the driver does not open: %s", problem)
            self.error = error
            self._note_library()
        else:
            self._note_library()
            log.info("driver %s with %d GPUs", self.versions.driver, len(gpus))
            for gpu in gpus:
                gpu.start()
            self.gpus, self.error = gpus, ""
        self.tried.set()
        return not self.error

    def module_version(self) -> str:
        """The version of the driver in the kernel; empty if none is loaded."""
        try:
            text = (self._procfs / "driver/nvidia/version").read_text(errors="replace")
        except OSError:
            return ""
        found = MODULE.search(text)
        return found[1] if found else ""

    def _note_library(self) -> None:
        if self._library is None and (found := find_library()):
            self._library, self._loaded = found, found.identity()

    def library_replaced(self) -> bool:
        """Whether the library on disk is another one than this process has in memory.

        Programs that start now load the new one, and fail where it is not the module's.
        """
        return self._library is not None and self._library.identity() != self._loaded

    @property
    def outdated(self) -> bool:
        """Whether only a new process can open the driver that is there now.

        A process keeps the library that it has loaded, and systemd allows a service the devices
        of the modules that were loaded when it started.
        """
        other_module = self.module_version() not in ("", self._at_start)
        return other_module or bool(self.error and self.library_replaced())


@dataclass(frozen=True)
class Library:
    """NVML's library, by the name that programs ask for."""

    path: Path

    def identity(self) -> tuple[int, int] | None:
        """Of the file that the name leads to now; None if there is none."""
        try:
            status = self.path.stat()
        except OSError:
            return None
        return status.st_ino, status.st_mtime_ns


def find_library() -> Library | None:
    """The library that this process has loaded; None if it has none."""
    maps = Path("/proc/self/maps").read_text(errors="replace")
    found = re.search(rf"(/\S+)/{re.escape(LIBRARY)}", maps)
    return Library(Path(found[1]) / f"{LIBRARY}.1") if found else None


def _versions() -> Versions:
    cuda = answer(nvml.nvmlSystemGetCudaDriverVersion) or 0
    return Versions(
        driver=answer(nvml.nvmlSystemGetDriverVersion) or "",
        nvml=answer(nvml.nvmlSystemGetNVMLVersion) or "",
        cuda=f"{cuda // 1000}.{cuda % 1000 // 10}" if cuda else "",
    )
