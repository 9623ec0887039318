"""What processes do to a real GPU: fill its memory, load it, read past its memory, ask too much.

Each runs alone, by `python on_gpu.py WHAT`, so that its end gives everything back.
"""

from __future__ import annotations

import sys
import time

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


if __name__ == "__main__":
    {"hold": hold, "load": load, "wild": wild, "too_much": too_much}[sys.argv[1]]()
