"""What gpus.conf says: the GPUs of a simulated machine, what they read, and who holds them."""

from __future__ import annotations

import configparser
import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from ops.errors import InputError
from ops.lab.gpu.keys import ABSENT, FLAG_WORDS, readings

MOST_GPUS = 8  # as in source/description.h
MOST_PROCESSES = 31
STATES = ("ok", "lost", "hang")
PROCESS_KINDS = ("C", "G", "M")  # compute, graphics, through MPS
TEXTS = (
    "name",
    "uuid",
    "pci",
    "device_id",
    "architecture",
    "serial",
    "board_part_number",
    "vbios_version",
    "compute_capability",
)
NEEDED = ("name", "uuid", "pci", "device_id", "architecture")
SECTION = re.compile(r"gpu ([0-7])")
PROCESS = re.compile(r"(\d+):(\d+):([^:,\s]+)(?::([CGM])(?::(\d+))?)?")
HEADER = (
    "# The hardware of this simulated machine (rackhand lab): `ops lab gpu` shows and changes it;\n"
    "# the keys are explained in ops/lab/gpu/source/readings.def.\n"
)


@dataclass(frozen=True)
class Process:
    """A process that holds memory of a GPU.

    Attributes:
        pid: Its number.
        memory_mib: What it holds, in MiB.
        name: As NVML names it; no blanks, commas or colons.
        kind: One of PROCESS_KINDS.
        gpu_instance: The MIG instance it runs in.
    """

    pid: int
    memory_mib: int
    name: str
    kind: str = "C"
    gpu_instance: int | None = None

    def render(self) -> str:
        """As it stands in the file."""
        instance = "" if self.gpu_instance is None else f":{self.gpu_instance}"
        return f"{self.pid}:{self.memory_mib}:{self.name}:{self.kind}{instance}"


@dataclass(frozen=True)
class Gpu:
    """One GPU.

    Attributes:
        texts: Names and addresses, by the keys of TEXTS.
        values: Readings by name, in NVML's units; None where the GPU has no such reading.
        state: `ok`, `lost` (off the bus) or `hang` (calls do not return).
        processes: Who holds its memory.
        mig_instances: `profile:start[:c]` as nvidia-smi writes them; `c` marks a compute instance.
    """

    texts: Mapping[str, str]
    values: Mapping[str, int | None]
    state: str = "ok"
    processes: tuple[Process, ...] = ()
    mig_instances: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The product's name."""
        return self.texts["name"]

    @property
    def memory_used_mib(self) -> int:
        """What is in use as the library counts it: at least what the processes hold."""
        held = sum(process.memory_mib for process in self.processes)
        return max(self.values.get("memory_used_mib") or 0, held)

    def changed(self, words: Sequence[str]) -> Gpu:
        """This GPU after changes such as `temperature=91`, `state=lost` or `process=7:600:python`.

        Args:
            words: `key=value`, in order; a key is a reading, `state` or `process`. A process is
                `PID:MIB:NAME[:KIND[:INSTANCE]]`, `PID:none` (it ends) or `none` (all end).

        Raises:
            InputError: No such key, or a value that it cannot have; names what it can.
        """
        gpu = self
        for word in words:
            key, equals, value = word.partition("=")
            if not equals:
                raise InputError(f"{word!r} is no change", cure="write key=value")
            gpu = gpu._with(key.strip(), value.strip())
        return gpu

    def _with(self, key: str, value: str) -> Gpu:
        if key == "state":
            if value not in STATES:
                raise InputError(f"A GPU's state is not {value!r}", cure=_one_of(STATES))
            return replace(self, state=value)
        if key == "process":
            return replace(self, processes=_with_process(self.processes, value))
        known = readings()
        if key not in known:
            raise _unknown(key, ["state", "process", *known])
        return replace(self, values={**self.values, key: known[key].parse(value)})

    def render(self) -> str:
        """The lines of its section."""
        known = readings()
        lines = [f"{key} = {self.texts[key]}" for key in TEXTS if self.texts.get(key)]
        lines.append(f"state = {self.state}")
        lines += [f"{key} = {known[key].render(self.values.get(key))}" for key in known]
        lines.append("processes = " + ", ".join(each.render() for each in self.processes))
        lines.append("mig_instances = " + ", ".join(self.mig_instances))
        return "\n".join(line.rstrip() for line in lines) + "\n"


@dataclass(frozen=True)
class Machine:
    """A simulated machine with GPUs.

    Attributes:
        gpus: In the order of NVML's index.
        secure_boot: The firmware loads signed modules only.
        nvswitch: NVSwitches join the GPUs.
    """

    gpus: tuple[Gpu, ...] = field(default=())
    secure_boot: bool = False
    nvswitch: bool = False

    def gpu(self, index: int) -> Gpu:
        """The GPU of this index.

        Raises:
            InputError: There is none.
        """
        if not 0 <= index < len(self.gpus):
            there = f"0 to {len(self.gpus) - 1}" if self.gpus else "none"
            raise InputError(f"There is no GPU {index}", cure=f"GPUs of this host: {there}")
        return self.gpus[index]

    def with_gpu(self, index: int, gpu: Gpu) -> Machine:
        """The machine with this GPU in the place of another."""
        self.gpu(index)
        return replace(self, gpus=(*self.gpus[:index], gpu, *self.gpus[index + 1 :]))

    def change(self, index: int, words: Sequence[str]) -> Machine:
        """The machine after `key=value` changes of one GPU; see Gpu.changed."""
        return self.with_gpu(index, self.gpu(index).changed(words))

    def change_machine(self, words: Sequence[str]) -> Machine:
        """The machine after `secure_boot=yes` or `nvswitch=no`.

        Raises:
            InputError: No such key or value.
        """
        machine = self
        for word in words:
            key, _, value = word.partition("=")
            if key not in ("secure_boot", "nvswitch"):
                raise _unknown(key, ["secure_boot", "nvswitch"])
            if value not in FLAG_WORDS:
                raise InputError(f"{word} says neither yes nor no", cure=f"{key}=yes")
            flag = bool(FLAG_WORDS[value])
            machine = (
                replace(machine, nvswitch=flag)
                if key == "nvswitch"
                else replace(machine, secure_boot=flag)
            )
        return machine

    def render(self) -> str:
        """The whole file."""
        flags = {"secure_boot": self.secure_boot, "nvswitch": self.nvswitch}
        machine = "".join(f"{key} = {'yes' if flag else 'no'}\n" for key, flag in flags.items())
        sections = [f"[gpu {index}]\n{gpu.render()}" for index, gpu in enumerate(self.gpus)]
        return HEADER + "\n".join([f"[machine]\n{machine}", *sections])


def parse_machine(text: str, place: str = "gpus.conf") -> Machine:
    """Read the description of a machine.

    Args:
        text: Content of a gpus.conf.
        place: Where it is from, for errors.

    Raises:
        InputError: It is no INI file, a GPU lacks what every GPU has, or a value cannot be.
    """
    parser = configparser.ConfigParser(interpolation=None, delimiters=("=",))
    try:
        parser.read_string(text)
        sections = [name for name in parser.sections() if name != "machine"]
        wanted = [f"gpu {index}" for index in range(len(sections))]
        if sections != wanted or len(wanted) > MOST_GPUS:
            raise InputError(
                f"Sections {', '.join(sections)} are not GPUs in order",
                cure=f"[gpu 0] to at most [gpu {MOST_GPUS - 1}], without a gap",
            )
        flags = parser["machine"] if parser.has_section("machine") else {}
        return Machine(
            gpus=tuple(_parse_gpu(parser[name]) for name in sections),
            secure_boot=flags.get("secure_boot", "no") == "yes",
            nvswitch=flags.get("nvswitch", "no") == "yes",
        )
    except configparser.Error as problem:
        raise InputError(f"No description of GPUs: {problem}", place=place) from problem
    except InputError as problem:
        raise InputError(problem.message, place=place, cure=problem.cure) from problem


def _parse_gpu(section: Mapping[str, str]) -> Gpu:
    missing = [key for key in NEEDED if not section.get(key)]
    if missing:
        raise InputError(f"A GPU has no {', '.join(missing)}", cure=f"every GPU has {NEEDED}")
    known = readings()
    listed = {"state", "processes", "mig_instances", *TEXTS, *known}
    for key in section:
        if key not in listed:
            raise _unknown(key, sorted(listed))
    gpu = Gpu(
        texts={key: section[key] for key in TEXTS if section.get(key)},
        values={key: each.parse(section.get(key, ABSENT)) for key, each in known.items()},
        mig_instances=tuple(_words(section.get("mig_instances", ""))),
    )
    processes = [f"process={word}" for word in _words(section.get("processes", ""))]
    return gpu.changed([f"state={section.get('state', 'ok')}", *processes])


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _with_process(processes: tuple[Process, ...], word: str) -> tuple[Process, ...]:
    if word == "none":
        return ()
    pid, _, rest = word.partition(":")
    others = tuple(process for process in processes if str(process.pid) != pid)
    if rest == "none":
        return others
    match = PROCESS.fullmatch(word)
    if not match:
        raise InputError(
            f"{word!r} is no process",
            cure="process=PID:MIB:NAME[:C|G|M[:INSTANCE]], process=PID:none or process=none",
        )
    if len(others) >= MOST_PROCESSES:
        raise InputError(f"A simulated GPU has at most {MOST_PROCESSES} processes")
    instance = int(match[5]) if match[5] else None
    new = Process(int(match[1]), int(match[2]), match[3], match[4] or "C", instance)
    return (*others, new)


def _unknown(key: str, known: Sequence[str]) -> InputError:
    near = difflib.get_close_matches(key, known, n=3)
    cure = f"did you mean {' or '.join(near)}? All keys: " if near else "the keys are: "
    return InputError(f"A GPU has no {key!r}", cure=cure + ", ".join(known))


def _one_of(words: Sequence[str]) -> str:
    return "one of " + ", ".join(words)
