"""What processes do to a real GPU: fill its memory, load it, read past its memory, ask too much.

Each runs alone, by `python on_gpu.py WHAT`, so that its end gives everything back.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

ON_GPU = Path(__file__)
GIB = 1 << 30


def hold(gib: float = 4) -> None:
    """Hold memory until standard input ends."""
    import torch

    _kept = torch.empty(int(gib * GIB), dtype=torch.uint8, device="cuda").fill_(1)
    torch.cuda.synchronize()
    print("holding", flush=True)
    sys.stdin.read()


def load(seconds: float = 12) -> None:
    """Multiply matrices for some seconds."""
    import torch

    side = 8192
    left = torch.randn(side, side, dtype=torch.bfloat16, device="cuda")
    right = torch.randn(side, side, dtype=torch.bfloat16, device="cuda")
    print("working", flush=True)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for _ in range(50):
            left @ right
        torch.cuda.synchronize()


def wild() -> None:
    """Write to an address that no one owns: the driver ends the process with an XID."""
    import cupy

    source = 'extern "C" __global__ void wild(int* at) { at[threadIdx.x] = 1; }'
    cupy.RawKernel(source, "wild")((1,), (1,), (cupy.uint64(0x10),))
    cupy.cuda.Device().synchronize()


def too_much() -> None:
    """Ask for more memory than there is; PyTorch's own error goes to standard error."""
    import torch

    total = torch.cuda.get_device_properties(0).total_memory
    torch.empty(2 * total, dtype=torch.uint8, device="cuda")


def note(what: str, seen: str) -> None:
    """Write down what was seen, beside the card and its driver."""
    from results import add_to_result

    name = subprocess.run(
        ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"],
        capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    add_to_result(
        "real-gpu",
        "On a real GPU",
        ("what", "seen"),
        [("the GPU and its driver", name), (what, seen)],
        "Each row by its own test in tests/gpu; the load is PyTorch's bf16 product of 8192².",
    )


if __name__ == "__main__":
    {"hold": hold, "load": load, "wild": wild, "too_much": too_much}[sys.argv[1]]()
