"""The steps of a GPU reset: engines out of traffic, everybody off the GPU, reset, proof, back."""

from __future__ import annotations

from fnmatch import fnmatchcase
from shlex import quote
from typing import TYPE_CHECKING, Any

from ops.engine import traffic
from ops.errors import OpsError, RemoteError
from ops.fleet.model import SLOTS, Host
from ops.remote import connect, run
from ops.restarts.host_steps import HostStep, end_of_drain

if TYPE_CHECKING:
    from fabric import Connection

WATCHERS = ("gpu_exporter.service", "nvidia-persistenced.service", "dcgm*.service",
            "nvidia-dcgm.service")  # fmt: skip
"""They serve nobody, and keep the driver open."""
FABRIC = "nvidia-fabricmanager.service"
"""Holds every GPU of a host with NVSwitch, which resets them all or none."""
LIST = "systemctl list-units --all --plain --no-legend --full --type=service"
ENABLED = "systemctl list-unit-files --state=enabled --plain --no-legend " + " ".join(
    quote(unit) for unit in (*WATCHERS, FABRIC)
)
RUNS = ("active", "activating", "reloading")
SMI = "timeout {seconds:.0f} nvidia-smi"


class GpuStep(HostStep):
    """What all of them have: one host, and which of its GPUs."""

    @property
    def gpu(self) -> int | None:
        """NVML's index; None for all."""
        found = self.values["gpu"]
        return None if found is None else int(found)

    def engines(self, host: Host) -> tuple[str, ...]:
        """The units of engines that have the GPU open, by what the inventory gives each model."""
        return tuple(
            f"engine@{model.name}-{slot}.service"
            for model, entry in zip(host.models, host.variables.get("models") or (), strict=False)
            for slot in SLOTS
            if self.gpu is None or not entry.get("gpus") or self.gpu in entry["gpus"]
        )

    def smi(self, connection: Connection, host: Host, words: str) -> str:
        """Ask nvidia-smi, which a driver that hangs would keep for ever."""
        command = f"{SMI.format(seconds=self.seconds('reset'))} {words}"
        return run(connection, host, command)


class Drain(GpuStep):
    """No new request comes to the host's engines, and those under way have ended."""

    def do(self) -> None:
        self.each(self._drain)

    def undo(self) -> None:
        self.each(self._bring_back)

    def _drain(self, host: Host) -> None:
        patience, reason = self.seconds("drain"), f"operation {self.context.operation}"
        with connect(self.fleet, host) as connection:
            left = traffic.drain(connection, host, reason, patience, self.context.say)
        with self.perhaps_cut():
            end_of_drain(host, left, patience)

    def _bring_back(self, host: Host) -> None:
        self.prove(host)
        undrain(self, host)


class Stop(GpuStep):
    """Nobody has the GPU open; who had is noted, and started again."""

    def do(self) -> None:
        self.each(self._stop)

    def undo(self) -> None:
        self.each(lambda host: start(self, host))

    def _stop(self, host: Host) -> None:
        with connect(self.fleet, host) as connection:
            if "units" not in self.detail:  # of an attempt before, some have stopped already
                self.detail["units"] = self._running(connection, host)
                self.context.note({"units": self.detail["units"]})
            if self.detail["units"]:
                run(connection, host, f"systemctl stop {_words(self.detail['units'])}")

    def _running(self, connection: Connection, host: Host) -> list[str]:
        engines = self.engines(host)
        watchers = WATCHERS if self.gpu is not None else (*WATCHERS, FABRIC)
        rows = [line.split(None, 3) for line in run(connection, host, LIST).splitlines()]
        units = [row[0] for row in rows if len(row) > 2 and row[2] in RUNS]
        # Engines first: they end what they do while all else still runs.
        watch = [u for u in units if any(fnmatchcase(u, pattern) for pattern in watchers)]
        return [u for u in units if u in engines] + watch


class Reset(GpuStep):
    """The GPUs were reset and answer. Nothing to bring back: a reset GPU is a fresh one."""

    def do(self) -> None:
        self.each(self._reset)

    def _reset(self, host: Host) -> None:
        which = "" if self.gpu is None else f" -i {self.gpu}"
        with connect(self.fleet, host) as connection:
            try:
                self.smi(connection, host, f"--gpu-reset{which}")
                listed = self.smi(connection, host, "--query-gpu=index --format=csv,noheader")
            except RemoteError as error:
                raise OpsError(
                    f"the GPU of {host.name} could not be reset: {error.message}",
                    place=host.name,
                    cure=f"ops restart host {host.name}; what a reboot does not cure is to replace",
                ) from error
        indexes = {int(line) for line in listed.split() if line.isdecimal()}
        if not indexes or (self.gpu is not None and self.gpu not in indexes):
            raise OpsError(
                f"the GPU of {host.name} does not answer after its reset",
                place=host.name,
                cure=f"ops restart host {host.name}",
            )


class Start(GpuStep):
    """Who had the GPU open runs again, and the engines make tokens."""

    def do(self) -> None:
        self.each(self._start)

    def _start(self, host: Host) -> None:
        start(self, host)
        self.prove(host)


class LetIn(GpuStep):
    """The engines get requests again. Nothing to bring back: they serve."""

    def do(self) -> None:
        self.each(lambda host: undrain(self, host))


def start(step: GpuStep, host: Host) -> None:
    """Start the engines that serve, and those who only watch as at boot."""
    with connect(step.fleet, host) as connection:
        active = [slot.unit for slot in traffic.active_slots(connection, host)]
        rows = run(connection, host, ENABLED).splitlines()
        units = [*(row.split()[0] for row in rows if row.split()), *active]
        units += step.detail.get("units", [])
        if units:
            names = _words(list(dict.fromkeys(units)))
            run(connection, host, f"systemctl start --no-block {names}")


def undrain(step: GpuStep, host: Host) -> None:
    """Let requests in again."""
    with connect(step.fleet, host) as connection:
        traffic.undrain(connection, host)


def _words(units: list[str]) -> str:
    return " ".join(quote(unit) for unit in units)


KINDS: dict[str, Any] = {
    "gpu.drain": Drain,
    "gpu.stop": Stop,
    "gpu.reset": Reset,
    "gpu.start": Start,
    "gpu.let_in": LetIn,
}
