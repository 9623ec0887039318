"""Evidence of a host that is everything and well: rules must find nothing in it."""

from __future__ import annotations

from typing import Any

NOW = 1_790_000_000.0
GIB = 1 << 30


def gpu(index: int) -> dict[str, str]:
    """One H100 as the driver tells it."""
    return {
        "index": str(index), "name": "NVIDIA H100 80GB HBM3", "uuid": f"GPU-{index}",
        "pci.bus_id": f"00000000:0{index + 1}:00.0", "memory.total": "81559",
        "memory.used": "71000", "temperature.gpu": "55", "utilization.gpu": "80",
        "driver_version": "580.178.04", "persistence_mode": "Enabled", "compute_mode": "Default",
        "ecc.errors.uncorrected.volatile.total": "0", "pcie.link.width.current": "16",
        "pcie.link.width.max": "16", "mig.mode.current": "Disabled", "mig.mode.pending": "Disabled",
        "clocks_event_reasons.hw_thermal_slowdown": "Not Active",
        "clocks_event_reasons.hw_power_brake_slowdown": "Not Active",
        "remapped_rows.pending": "No", "remapped_rows.failure": "No",
        "temperature.gpu.tlimit": "30", "gpu_recovery_action": "None", "fabric.state": "Completed",
    }  # fmt: skip


def process(index: int, pid: str, mib: int, unit: str) -> dict[str, Any]:
    """A process that holds memory of a GPU."""
    return {"gpu_uuid": f"GPU-{index}", "pid": pid, "used_memory": str(mib), "unit": unit,
            "process_name": "VLLM::EngineCore", "name": "VLLM::Engine", "dead": False}  # fmt: skip


def unit(name: str, **more: Any) -> dict[str, Any]:
    """A unit that runs, and has for long."""
    return {"unit": name, "active": "active", "sub": "running", "result": "success", "restarts": 0,
            "status": 0, "pid": 100, "enabled": "enabled", "memory_max": "infinity",
            "active_seconds": 90000.0, "log": [], "log_before": [], "log_before_at": 0.0,
            **more}  # fmt: skip


UNITS = ("engine@chat-blue.service", "agent_app@8200.service", "nginx.service",
         "postgresql@16-main.service", "redis-server@cache.service", "redis-server@state.service",
         "certbot.timer", "certbot.service")  # fmt: skip
MODULE = {"version": "580.178.04", "flavour": "open"}
HEALTHY: dict[str, Any] = {
    "complaints": [],
    "machine": {
        "now": NOW, "uptime": 9e5, "container": "", "systemd": True, "root": True,
        "os": "Ubuntu 24.04.3 LTS", "processors": 64, "load": 3.0,
        "memory": {"total": 512 * GIB, "available": 300 * GIB, "swap_total": 0, "swap_free": 0,
                   "shm_total": 256 * GIB, "shm_free": 255 * GIB},
        "disks": [
            {"path": path, "device": device, "kind": "ext4", "used": 300 * GIB, "total": 900 * GIB,
             "inodes": 10**7, "inodes_free": 9 * 10**6, "read_only": False}
            for path, device in (("/", "/dev/nvme0n1p2"), ("/srv", "/dev/nvme1n1"))
        ],
        "takers": {}, "kernel_log": [],
        "clock": {"NTP": "yes", "NTPSynchronized": "yes", "client": "systemd-timesyncd"},
        "packages": {"audit": "", "journal": 0}, "reboot_required": False,
    },
    "gpu": {
        "devices": ["0x2330", "0x2330"], "kernel": "6.8.0-90-generic",
        "next_kernel": "6.8.0-90-generic", "loaded": MODULE, "installed": MODULE,
        "installed_next": MODULE, "nouveau": False, "secure_boot": False, "nvswitch": False,
        "nodes": ["nvidia-uvm", "nvidia0", "nvidia1", "nvidiactl"],
        "libraries": {"libnvidia-ml.so": ["580.178.04"], "libcuda.so": ["580.178.04"]},
        "dkms": "", "headers": True, "expected": 2,
        "tools": {"nvcc": "", "ptxas": "", "cc": "/usr/bin/cc", "g++": "/usr/bin/g++", "ninja": ""},
        "container": {"runtimes": [], "toolkit": False, "cdi": [], "docker_runtime": False},
        "smi": {"status": 0, "output": ""},
        "gpus": [gpu(0), gpu(1)],
        "processes": [process(index, f"10{index}", 70600, "engine@chat-blue.service")
                      for index in range(2)],
        "nvlink": "GPU 0: NVIDIA H100\n\t Link 0: 26.562 GB/s\n",
        "cuda": {"code": 0, "error": "CUDA_SUCCESS", "count": 2},
    },
    "units": [unit(name, active="inactive" if name == "certbot.service" else "active")
              for name in UNITS],
    "ports": {
        port: {"address": "127.0.0.1", "process": process, "pid": "100", "unit": owner}
        for port, process, owner in (
            ("8100", "vllm", "engine@chat-blue.service"), ("443", "nginx", "nginx.service"),
            ("80", "nginx", "nginx.service"),
        )
    },
    "engines": {
        "fact": {"chat": {"active": "blue", "revision": "abc"}},
        "fact_complaint": "",
        "slots": [{
            "model": "chat", "slot": "blue", "unit": "engine@chat-blue.service", "port": "8100",
            "settings_at": NOW - 1e6,
            "command": "/opt/vllm/0.32.0-cuda/bin/vllm", "command_there": True, "gpus": "0,1",
            "arguments": "serve /srv/models/chat/abc", "flags": {},
            "weights": {"path": "/srv/models/chat/abc", "there": True, "manifest": True,
                        "size": 140 * GIB, "missing": [], "wrong_size": [], "tokenizer": True},
            "answers": {"health": 200, "running": 0.0, "waiting": 0.0, "tokens": 9.0, "token": 200,
                        "said": "", "seconds": 0.2},
        }],
    },
    "redis": [{"name": name, "unit": f"redis-server@{name}.service", "port": port,
               "said": "-NOAUTH Authentication required."}
              for name, port in (("cache", "6379"), ("state", "6380"))],
    "postgres": {"unit": "postgresql@16-main.service", "said": "", "connections": 20, "most": 200,
                 "log": []},
    "backup": {"rackhand_backup_last_success_timestamp_seconds": NOW - 3600.0,
               "rackhand_backup_last_run_success": 1.0, "rackhand_backup_verify_success": 1.0,
               "now": NOW},
    "nginx": {"status": 0, "said": []},
    "certificate": {"kind": "agent.example.com", "where": "/etc/letsencrypt/live/agent.example.com",
                    "expires": NOW + 60 * 86400, "fingerprint": "AA:BB", "issuer": "CN = R11",
                    "served": {"expires": NOW + 60 * 86400, "fingerprint": "AA:BB", "issuer": "x"},
                    "complaint": "", "names": ["agent.example.com"], "log": []},
    "app": [{"port": "8200", "unit": "agent_app@8200.service", "status": 200, "said": "",
             "not_ready": {}, "degraded": {}}],
    "names": {}, "traffic": {"drained": "", "drained_seconds": 0.0, "held": {}}, "facts": [],
    "operation": None,
    "groups": ["agent", "data", "edge", "gpu"], "domain": "agent.example.com",
    "inventory": {"chat": "abc"},
}  # fmt: skip
