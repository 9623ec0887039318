"""XID errors of the driver: what each means, and what a GPU that reported it then reads.

Source: NVIDIA's XID catalogue (docs.nvidia.com/deploy/xid-errors).
"""

from __future__ import annotations

from dataclasses import dataclass

from ops.errors import InputError
from ops.lab.gpu.description import Gpu

HIGHEST = 999  # NVIDIA's catalogue has fewer; nothing of NVML's needs more


@dataclass(frozen=True)
class Xid:
    """One kind of error.

    Attributes:
        meaning: As the catalogue says it.
        changes: What the GPU reads afterwards, as `key=value`.
    """

    meaning: str
    changes: tuple[str, ...] = ()


RESET = "recovery_action=1"
XIDS = {
    13: Xid("Graphics engine exception (the application's fault)"),
    31: Xid("GPU memory page fault (the application's fault)"),
    43: Xid("GPU stopped processing (the application ended)", ("process=none",)),
    45: Xid("Preemptive cleanup, due to previous errors"),
    48: Xid("Double bit ECC error", ("ecc_uncorrected=1", RESET)),
    63: Xid("Row remapping or page retirement recorded", ("remapped_rows_pending=yes", RESET)),
    64: Xid("Row remapping or page retirement failed", ("remapped_rows_failure=yes",)),
    74: Xid("NVLink error", ("nvlink_down=0x1", RESET)),
    79: Xid("GPU has fallen off the bus", ("state=lost",)),
    92: Xid("High rate of single bit ECC errors", ("ecc_corrected=1000",)),
    94: Xid("Contained ECC error", ("ecc_uncorrected=1",)),
    95: Xid("Uncontained ECC error", ("ecc_uncorrected=1", RESET)),
    119: Xid("GSP RPC timeout", (RESET,)),
    120: Xid("GSP error", (RESET,)),
    140: Xid("Unrecovered ECC error", ("ecc_uncorrected=1", RESET)),
}


def suffer(gpu: Gpu, code: int) -> Gpu:
    """The GPU after an XID; a reading that it does not have stays away.

    Raises:
        InputError: No XID has this number.
    """
    if not 0 < code <= HIGHEST:
        raise InputError(f"{code} is no XID", cure=f"1 to {HIGHEST}, such as 79 or 48")
    changes = XIDS[code].changes if code in XIDS else ()
    has = [word for word in changes if gpu.values.get(word.partition("=")[0], 0) is not None]
    return gpu.changed(has)


def log_line(gpu: Gpu, code: int) -> str:
    """What the kernel log says of it."""
    meaning = XIDS[code].meaning if code in XIDS else "simulated"
    return f"NVRM: Xid (PCI:{gpu.texts['pci'].rpartition('.')[0]}): {code}, {meaning}"
