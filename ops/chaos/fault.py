"""The faults there are: what each does, to what, and how it ends."""

from __future__ import annotations

from dataclasses import dataclass

from ops.errors import InputError

HOST = "HOST"
HOST_UNIT = "HOST:UNIT"
HOST_PATH = "HOST:PATH"
HOST_GPU = "HOST:GPU"
HOST_OR_PAIR = "HOST[:HOST]"
MIRROR_STATE = "STATE"


@dataclass(frozen=True)
class Fault:
    """One kind of fault.

    Attributes:
        name: What a person types.
        does: What it does, one sentence without the full stop.
        ends: How it ends: by what, and what is then as before.
        target: The form of its target.
        amount: How much where a person does not say; None: it knows no more or less.
        unit: What the amount counts.
        most: The largest amount.
        momentary: It is over as soon as it was done; nothing is left to end.
        default: Its target where a person names none.
    """

    name: str
    does: str
    ends: str
    target: str
    amount: int | None = None
    unit: str = ""
    most: int = 0
    momentary: bool = False
    default: str = ""


FAULTS = (
    Fault("kill", "SIGKILL to every process of a unit", "at once; systemd may start it again",
          HOST_UNIT, momentary=True),
    Fault("hang", "SIGSTOP to every process of a unit", "SIGCONT to them", HOST_UNIT),
    Fault("stop", "Stop a unit, as a person would by mistake", "the unit is started", HOST_UNIT),
    Fault("net-cut", "Drop all packets between two hosts, or of a host to everything, you too",
          "packets pass", HOST_OR_PAIR),
    Fault("net-loss", "Drop a share of packets, at random", "packets pass", HOST_OR_PAIR,
          amount=10, unit="per cent", most=99),
    Fault("net-delay", "Delay what goes to a host: netem, or a link so narrow that a full packet "
          "takes that long where the kernel has no netem", "the link is as before; a reboot of the "
          "host ends it too", HOST, amount=50, unit="ms", most=5000),
    Fault("disk-full", "Fill a folder's file system, made small for it, to the last byte",
          "what fills it is removed and the folder lies on the host's disk again", HOST_PATH),
    Fault("clock", "Restart a unit under a clock that is wrong (libfaketime: the hosts share one "
          "kernel clock); its monotonic clock stays", "the unit restarts under the true clock",
          HOST_UNIT, amount=3 * 86400, unit="s ahead", most=10 * 365 * 86400),
    Fault("cert-expired", "Put a certificate that has expired in place of the edge's and run the "
          "deploy hook", "the one before is put back, unless certbot has renewed", HOST,
          default="edge"),
    Fault("acme-down", "Stop the certificate authority", "it is started", HOST, default="outside"),
    Fault("mirror", "Break the package mirror of a lab with GPUs: gone or mid-sync",
          "it is in the state of before", MIRROR_STATE, default="gone"),
    Fault("power-cut", "Cut a host's power for a moment: no clean shutdown, and it boots again. "
          "The page cache is this machine's and survives: unsynced writes are not lost",
          "at once; the host boots", HOST, momentary=True),
    Fault("power-off", "Cut a host's power and keep it off (the page cache survives, as above)",
          "the host boots", HOST),
    Fault("gpu-lost", "A simulated GPU falls off the bus", "the GPU is repaired", HOST_GPU),
    Fault("gpu-hang", "Calls to a simulated GPU's driver hang", "the GPU is repaired", HOST_GPU),
    Fault("gpu-hot", "A simulated GPU is hot", "the GPU is repaired", HOST_GPU,
          amount=95, unit="°C", most=130),
    Fault("gpu-xid", "A simulated GPU reports an XID, with what follows from it",
          "the GPU is repaired", HOST_GPU, amount=48, unit="the XID", most=200),
)  # fmt: skip


def fault_named(name: str) -> Fault:
    """The fault of a name.

    Raises:
        InputError: There is none; the cure lists those there are.
    """
    for fault in FAULTS:
        if fault.name == name:
            return fault
    raise InputError(
        f"There is no fault {name!r}", cure="use " + ", ".join(fault.name for fault in FAULTS)
    )


def amount_of(fault: Fault, wanted: int | None) -> int | None:
    """How much of a fault there is to be.

    Raises:
        InputError: It knows no amount, or not this one.
    """
    if fault.amount is None:
        if wanted is not None:
            raise InputError(
                f"The fault {fault.name} knows no amount", place="--amount", cure="leave it out"
            )
        return None
    amount = fault.amount if wanted is None else wanted
    if not 1 <= amount <= fault.most:
        raise InputError(
            f"{amount} {fault.unit} is no amount of {fault.name}",
            place="--amount",
            cure=f"use 1 to {fault.most} ({fault.unit})",
        )
    return amount
