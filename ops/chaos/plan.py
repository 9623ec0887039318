"""Which steps begin a fault and which end it; pure. Every step may be repeated."""

from __future__ import annotations

import shlex
from collections.abc import Callable

from ops.chaos import disk
from ops.chaos.record import Record
from ops.chaos.step import Act, Shell, Step
from ops.lab.fleet_plan import DOMAIN

ACME_UNITS = "pebble.service"
CLOCK_LIBRARY = "libfaketime.so.1"
CLOCK_DROP_IN = "90-chaos-clock.conf"
CERTIFICATE = f"/etc/letsencrypt/live/{DOMAIN}"
KEPT = "/var/lib/rackhand-chaos"
HOOKS = "for hook in /etc/letsencrypt/renewal-hooks/deploy/*; do $hook; done"

Steps = Callable[[Record], list[Step]]


def begin(record: Record) -> list[Step]:
    """The steps that begin a fault."""
    return BEGIN[record.fault](record)


def end(record: Record) -> list[Step]:
    """The steps that end it; none where it is over by itself."""
    return END[record.fault](record) if record.fault in END else []


def units_of(record: Record) -> Step | None:
    """The step that prints the units which a fault of units is done to, one a line.

    It fails where none runs: a fault of nothing would only look like one that is survived.
    """
    if record.fault not in UNIT_FAULTS:
        return None
    pattern = shlex.quote(record.what)
    return Shell(
        record.host,
        f"found=$(systemctl list-units --plain --no-legend --state=active {pattern} | "
        "cut -d' ' -f1); "
        f'[ -n "$found" ] || {{ echo no unit {pattern} is active >&2; exit 4; }}; '
        "echo $found",
    )


def _signal(name: str) -> Steps:
    return lambda record: [Shell(record.host, f"systemctl kill --signal={name} {_units(record)}")]


def _signal_if_there(name: str) -> Steps:
    """A unit that is gone meanwhile has nothing to be told."""
    return lambda record: [
        Shell(record.host, f"systemctl kill --signal={name} {_units(record)} || true")
    ]


def _systemctl(verb: str) -> Steps:
    return lambda record: [Shell(record.host, f"systemctl {verb} {_units(record)}")]


def _units(record: Record) -> str:
    return " ".join(map(shlex.quote, (record.found or record.what).split()))


def _clock_begin(record: Record) -> list[Step]:
    """The library is Debian's; the drop-in lies in /run, so that a reboot ends it as well."""
    setting = (
        "[Service]\\n"
        f"Environment=LD_PRELOAD=$lib FAKETIME=+{record.amount}s DONT_FAKE_MONOTONIC=1 "
        "FAKETIME_DONT_FAKE_MONOTONIC=1\\n"
    )
    install = "apt-get -qq -o Dpkg::Use-Pty=0 install -y libfaketime"
    script = (
        f"lib=$(find /usr/lib -name {CLOCK_LIBRARY} | head -1); "
        f'[ -n "$lib" ] || {{ {install} >/dev/null 2>&1 || {{ apt-get -qq update; {install}; }}; '
        f"lib=$(find /usr/lib -name {CLOCK_LIBRARY} | head -1); }}; "
        f"for unit in {_units(record)}; do folder=/run/systemd/system/$unit.d; mkdir -p $folder; "
        f'printf "{setting}" > $folder/{CLOCK_DROP_IN}; done; '
        f"systemctl daemon-reload; systemctl restart {_units(record)}"
    )
    return [Shell(record.host, script)]


def _clock_end(record: Record) -> list[Step]:
    script = (
        f"for unit in {_units(record)}; do rm -f /run/systemd/system/$unit.d/{CLOCK_DROP_IN}; "
        f"done; systemctl daemon-reload; systemctl try-restart {_units(record)}"
    )
    return [Shell(record.host, script)]


def _certificate_begin(record: Record) -> list[Step]:
    """The expired pair comes by standard input, written where certbot's links lead."""
    script = (
        f"cd {CERTIFICATE}; "
        f"[ -e {KEPT}/certificate ] || {{ mkdir -p -m 700 {KEPT}/new; for name in cert fullchain "
        f"privkey; do readlink -f $name.pem > {KEPT}/new/$name.path; cp -p --dereference $name.pem "
        f"{KEPT}/new/$name.pem; done; mv {KEPT}/new {KEPT}/certificate; }}; "
        "cat > /run/chaos-pair.pem; "
        "sed -n '/BEGIN CERT/,/END CERT/p' /run/chaos-pair.pem | tee fullchain.pem > cert.pem; "
        "sed -n '/PRIVATE KEY/,/PRIVATE KEY/p' /run/chaos-pair.pem > privkey.pem; "
        f"rm /run/chaos-pair.pem; {HOOKS}"
    )
    return [Act("certificate", record.host, (script,))]


def _certificate_end(record: Record) -> list[Step]:
    """What certbot made meanwhile has other files, and stays in use."""
    script = (
        f"cd {KEPT}/certificate 2>/dev/null || exit 0; for name in cert fullchain privkey; do "
        f'cp -p $name.pem "$(cat $name.path)"; done; cd /; rm -r {KEPT}/certificate; {HOOKS}'
    )
    return [Shell(record.host, script)]


def _network(record: Record) -> list[Step]:
    return [Act("network", record.host)]


def _gpu_repair(record: Record) -> list[Step]:
    return [Act("gpu repair", record.host, (record.what,))]


def _gpu(key: str, value: str = "") -> Steps:
    return lambda record: [
        Act("gpu set", record.host, (record.what, f"{key}={value or record.amount}"))
    ]


UNIT_FAULTS = ("kill", "hang", "stop", "clock")
BEGIN: dict[str, Steps] = {
    "kill": _signal("SIGKILL"),
    "hang": _signal("SIGSTOP"),
    "stop": _systemctl("stop"),
    "net-cut": _network,
    "net-loss": _network,
    "net-delay": lambda record: [Act("delay", record.host, (str(record.amount),))],
    "disk-full": lambda record: [Shell(record.host, disk.fill(record.what))],
    "clock": _clock_begin,
    "cert-expired": _certificate_begin,
    "acme-down": lambda record: [Shell(record.host, f"systemctl stop {ACME_UNITS}")],
    "mirror": lambda record: [Act("mirror", record.host, (record.what,))],
    "power-cut": lambda record: [Act("power cut", record.host)],
    "power-off": lambda record: [Act("power off", record.host)],
    "gpu-lost": _gpu("state", "lost"),
    "gpu-hang": _gpu("state", "hang"),
    "gpu-hot": _gpu("temperature"),
    "gpu-xid": lambda record: [Act("gpu xid", record.host, (record.what, str(record.amount)))],
}
END: dict[str, Steps] = {
    "hang": _signal_if_there("SIGCONT"),
    "stop": _systemctl("start"),
    "net-cut": _network,
    "net-loss": _network,
    "net-delay": lambda record: [Act("delay", record.host)],
    "disk-full": lambda record: [Shell(record.host, disk.free(record.what))],
    "clock": _clock_end,
    "cert-expired": _certificate_end,
    "acme-down": lambda record: [Shell(record.host, f"systemctl start {ACME_UNITS}")],
    "mirror": lambda record: [Act("mirror", record.host, (record.found,))],
    "power-off": lambda record: [Act("power on", record.host)],
    **dict.fromkeys(("gpu-lost", "gpu-hang", "gpu-hot", "gpu-xid"), _gpu_repair),
}
