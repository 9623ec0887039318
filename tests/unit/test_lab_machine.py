"""The programs of a simulated machine: which kernel boots, and what the loader refuses."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest

from ops.lab.gpu.catalogue import parse_gpus
from ops.lab.machine.layer import FILES
from ops.lab.mirror.module_file import nvidia_module

RELEASE = "6.8.0-90-generic"


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The loader, on a host that is a folder."""
    monkeypatch.syspath_prepend(str(FILES))
    for name in ("hardware", "loader", "boot"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    loader = importlib.import_module("loader")
    hardware = loader.hardware
    for name in ("STATE", "MODULES", "PROC_DRIVER"):
        (tmp_path / name).mkdir()
        monkeypatch.setattr(hardware, name, tmp_path / name)
    monkeypatch.setattr(hardware, "MODULE_LIST", tmp_path / "modules")
    monkeypatch.setattr(hardware, "KERNEL_LOG", tmp_path / "kernel.log")
    monkeypatch.setattr(hardware, "DESCRIPTION", tmp_path / "gpus.conf")
    monkeypatch.setattr(loader, "VERSION", tmp_path / "PROC_DRIVER/nvidia/version")
    monkeypatch.setattr(loader, "make_device", lambda _: None)
    monkeypatch.setattr(loader.platform, "release", lambda: RELEASE)
    return loader


def install(
    host: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    gpus: str,
    *,
    licence: str = "Dual MIT/GPL",
    signed: bool = True,
    kernel: str = RELEASE,
    secure_boot: bool = False,
) -> None:
    """Describe GPUs, and a module that modinfo would find."""
    text = parse_gpus(gpus).render()
    if secure_boot:
        text = text.replace("secure_boot = no", "secure_boot = yes")
    host.hardware.DESCRIPTION.write_text(text)
    file = host.hardware.STATE / "nvidia.ko"
    file.write_bytes(nvidia_module(kernel, "580.178.04", licence, signed=signed))
    fields = {"filename": str(file), "license": licence, "version": "580.178.04"}
    fields["vermagic"] = f"{kernel} SMP preempt"
    monkeypatch.setattr(host, "describe", lambda _: fields)


@pytest.mark.parametrize(
    ("gpus", "licence", "line"),
    [
        ("H100:2", "Dual MIT/GPL", "Open Kernel Module for x86_64  580.178.04"),
        ("B200:1", "Dual MIT/GPL", "Open Kernel Module for x86_64  580.178.04"),
        ("V100-32:1", "NVIDIA", "x86_64 Kernel Module  580.178.04"),
    ],
)
def test_a_module_that_suits_the_gpus_shows_itself(
    host: ModuleType, monkeypatch: pytest.MonkeyPatch, gpus: str, licence: str, line: str
) -> None:
    install(host, monkeypatch, gpus, licence=licence)
    assert host.main("load", "nvidia") == 0
    assert line in host.VERSION.read_text()
    assert host.hardware.loaded_modules() == ["nvidia"]
    assert len(list(host.VERSION.parent.glob("gpus/*/information"))) == int(gpus[-1])
    assert host.main("load", "nvidia") == 0
    assert host.main("unload", "nvidia") == 0
    assert not host.VERSION.exists()
    assert host.hardware.loaded_modules() == []


@pytest.mark.parametrize(
    ("gpus", "change", "words"),
    [
        ("B200:1", {"licence": "NVIDIA"}, "requires use of the NVIDIA open kernel modules"),
        ("V100-32:1", {}, "not supported by open nvidia.ko"),
        ("H100:1", {"signed": False, "secure_boot": True}, "Key was rejected by service"),
        ("H100:1", {"kernel": "6.8.0-94-generic"}, "Exec format error"),
    ],
)
def test_the_loader_refuses_what_hardware_would(
    host: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    gpus: str,
    change: dict[str, object],
    words: str,
) -> None:
    install(host, monkeypatch, gpus, **change)  # type: ignore[arg-type]
    assert host.main("load", "nvidia") == 1
    assert words in capsys.readouterr().err
    assert not host.VERSION.exists()
    assert host.hardware.loaded_modules() == []


def test_nouveau_and_a_process_stand_in_the_way(
    host: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install(host, monkeypatch, "H100:1")
    host.hardware.add_module("nouveau", "")
    assert host.main("load", "nvidia") == 1
    assert "nouveau" in host.hardware.KERNEL_LOG.read_text()
    assert host.main("unload", "nouveau") == 0
    assert host.main("load", "nvidia") == 0
    held = parse_gpus("H100:1").change(0, ["process=7:600:python"])
    host.hardware.DESCRIPTION.write_text(held.render())
    assert host.main("unload", "nvidia") == 1
    assert "in use" in capsys.readouterr().err


def test_the_newest_kernel_boots_by_its_numbers(
    host: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    boot = importlib.import_module("boot")
    for release in ("6.8.0-90-generic", "6.8.0-100-generic", "6.8.0-94-generic"):
        (tmp_path / f"vmlinuz-{release}").touch()
    monkeypatch.setattr(boot, "BOOT", tmp_path)
    assert boot.newest_kernel() == "6.8.0-100-generic"


@pytest.mark.parametrize(
    ("text", "off"),
    [
        ("blacklist nouveau\noptions nouveau modeset=0\n", True),
        ("install nouveau /bin/false\n", True),
        ("# blacklist nouveau\n", False),
        ("blacklist nouveaux\n", False),
    ],
)
def test_nouveau_is_off_only_by_a_line_that_says_so(host: ModuleType, text: str, off: bool) -> None:
    assert bool(importlib.import_module("boot").NO_NOUVEAU.search(text)) is off


def test_a_boot_ends_persistence_and_processes_and_nothing_else(
    host: ModuleType,
) -> None:
    boot = importlib.import_module("boot")
    machine = parse_gpus("H100:2")
    changed = machine.change(1, ["persistence_mode=yes", "process=7:600:python", "temperature=91"])
    host.hardware.DESCRIPTION.write_text(changed.render())
    boot.forget_what_a_reboot_ends()
    left = machine.change(1, ["temperature=91"])
    assert host.hardware.DESCRIPTION.read_text() == left.render()
