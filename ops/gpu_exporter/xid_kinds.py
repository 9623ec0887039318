"""What each XID of the driver means and what cures it. Needs nothing but Python."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """What an XID means.

    Attributes:
        action: What gets the GPU well: `reset`, `reboot`, `restart` (of the unit), `application`
            (nothing: the program's fault), or `other`.
        meaning: In NVIDIA's words.
    """

    action: str
    meaning: str


# Source of the meanings: NVIDIA's XID catalogue; of the actions: reference/gpu-alerts.md.
KINDS = {
    13: Kind("application", "Graphics engine exception"),
    31: Kind("application", "GPU memory page fault"),
    43: Kind("application", "GPU stopped processing"),
    45: Kind("application", "Preemptive cleanup, due to previous errors"),
    46: Kind("reset", "GPU stopped processing"),
    48: Kind("reset", "Double bit ECC error"),
    62: Kind("reset", "Internal micro-controller halt"),
    63: Kind("application", "Row remapping or page retirement recorded"),
    64: Kind("reset", "Row remapping or page retirement failed"),
    74: Kind("reset", "NVLink error"),
    79: Kind("reboot", "GPU has fallen off the bus"),
    92: Kind("other", "High rate of single bit ECC errors"),
    94: Kind("restart", "Contained ECC error"),
    95: Kind("reset", "Uncontained ECC error"),
    109: Kind("reset", "Context switch timeout"),
    110: Kind("reset", "Security fault"),
    119: Kind("reset", "GSP RPC timeout"),
    120: Kind("reset", "GSP error"),
    136: Kind("reset", "Link training failed"),
    140: Kind("reset", "Unrecovered ECC error"),
    143: Kind("reset", "GPU initialisation failed"),
    154: Kind("other", "GPU recovery action changed"),
    158: Kind("reset", "GPU fatal timeout"),
}
OTHER = Kind("other", "not in our catalogue")
