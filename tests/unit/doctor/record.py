"""Records what real vLLM, its CPU build, prints when it does not start: logs/<name>.txt.

Run by hand, as root, on a machine with the lab's engine environment, after a new version of vLLM:
`nice .venv/bin/python -m tests.unit.doctor.record [NAME…]`. A minute a log; nothing of this runs in
a test.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ops.lab import demo_model, environment

LOGS = Path(__file__).parent / "logs"
SECONDS = 240
MOST_LINES = 200
SERVED = "Application startup complete"
PLACE = "/srv/models/demo/1"
IN_ITS_PLACE = (
    "mount -t tmpfs none /opt && mount -t tmpfs none /srv && mkdir -p {home} {place} /opt/bin && "
    "ln -s /usr/bin/lscpu /opt/bin && "  # for a PATH that has no compiler
    'mount --bind -o ro {folder} {home} && mount --bind {model} {place} && exec "$@"'
)
COLOURS = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True)
class Scenario:
    """A way to go wrong.

    Attributes:
        case: What the doctor has to say; empty: nothing.
        arguments: More flags.
        environment: More variables.
        change: Spoils the model's folder.
        path: What to serve instead of the folder.
        before: Words before the engine's command.
        taken: Whether its port is in use.
        command: Instead of vLLM's.
        eager: Whether nothing is to be compiled.
    """

    case: str
    arguments: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    change: Callable[[Path], object] = lambda _folder: None
    path: str = PLACE
    before: tuple[str, ...] = ()
    taken: bool = False
    command: str = ""
    eager: bool = True


def cut(name: str, share: float) -> Callable[[Path], object]:
    """Cut a file off, as an interrupted copy does."""

    def change(folder: Path) -> None:
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: int(len(data) * share)])

    return change


def settle(**values: object) -> Callable[[Path], object]:
    """Change config.json."""

    def change(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}, indent=2))

    return change


def without(*names: str) -> Callable[[Path], object]:
    """Remove files."""
    return lambda folder: [(folder / name).unlink() for name in names]


def overwrite(name: str, data: bytes) -> Callable[[Path], object]:
    """Write a file anew."""
    return lambda folder: (folder / name).write_bytes(data)


LONG = settle(max_position_embeddings=50_000_000)
SCENARIOS = {
    "serves": Scenario(""),
    "flag-unknown": Scenario("engine-flag-unknown", ("--no-such-flag", "1")),
    "flag-value": Scenario("engine-flag-unknown", ("--max-num-seqs", "many")),
    "tool-parser-unknown": Scenario("engine-parser-unknown", ("--tool-call-parser", "qwen25")),
    "reasoning-parser-unknown": Scenario("engine-parser-unknown", ("--reasoning-parser", "nope")),
    "tool-choice-without-parser": Scenario("engine-setting-invalid", ("!--tool-call-parser",)),
    "chat-template-missing": Scenario("engine-chat-template", ("--chat-template", "/no/a.jinja")),
    "folder-missing": Scenario("model-not-found", path="/srv/models/demo/absent"),
    "hub-name-offline": Scenario("model-not-found", path="acme/absent-model"),
    "config-missing": Scenario("model-not-found", change=without("config.json")),
    "config-broken": Scenario("weights-of-another-model", change=cut("config.json", 0.5)),
    "context-too-long": Scenario("context-longer-than-model", ("--max-model-len", "131072")),
    "dtype-unknown": Scenario("dtype-unsupported", ("--dtype", "bfloat17")),
    "quantization-unknown": Scenario("quantization-wrong", ("--quantization", "nope")),
    "quantization-without-config": Scenario("quantization-wrong", ("--quantization", "awq")),
    # It starts, and takes every text for nothing: files tell that, no log does.
    "tokenizer-missing": Scenario("", change=without("tokenizer.json", "tokenizer_config.json")),
    "tokenizer-broken": Scenario("tokenizer-unreadable", change=cut("tokenizer.json", 0.5)),
    "weights-cut": Scenario("weights-broken", change=cut("model.safetensors", 0.6)),
    "weights-garbage": Scenario(
        "weights-broken", change=overwrite("model.safetensors", b"<html>404</html>" * 4096)
    ),
    "weights-absent": Scenario("weights-missing", change=without("model.safetensors")),
    "weights-of-another": Scenario(
        "weights-of-another-model", change=settle(intermediate_size=512)
    ),
    "architecture-unknown": Scenario(
        "model-architecture-unsupported", change=settle(architectures=["NoSuchForCausalLM"])
    ),
    "model-type-unknown": Scenario(
        "model-architecture-unsupported", change=settle(model_type="nosuch")
    ),
    "custom-code": Scenario(
        "model-needs-trust",
        change=settle(
            model_type="own", auto_map={"AutoConfig": "configuration_own.OwnConfig"}
        ),
    ),
    "port-taken": Scenario("engine-port-taken", taken=True),
    "tensor-parallel-3": Scenario(
        "tensor-parallel-not-divisible", ("--tensor-parallel-size", "3")
    ),
    "kv-cache-small": Scenario(
        "kv-cache-too-small", ("--max-model-len", "20000000"), change=LONG
    ),
    "kv-cache-fraction": Scenario(
        "engine-setting-invalid", environment={"VLLM_CPU_KVCACHE_SPACE": "0.25"}
    ),
    "kv-cache-beyond-memory": Scenario(
        "engine-host-memory", environment={"VLLM_CPU_KVCACHE_SPACE": "4000"}
    ),
    "address-space": Scenario("engine-host-memory", before=("prlimit", "--as=2500000000")),
    "environment-missing": Scenario(
        "engine-environment-missing", command="/opt/vllm/0.31.0-cpu/bin/vllm"
    ),
    "weights-unreadable": Scenario(
        "engine-permission", before=("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    ),
    "compiler-missing": Scenario(
        "cuda-toolkit-missing", environment={"PATH": "/opt/bin"}, eager=False
    ),
}  # fmt: skip


def record(name: str, scenario: Scenario, source: Path, folder: Path) -> None:
    """Run the engine until it ends or serves, and keep what it said."""
    with tempfile.TemporaryDirectory() as made:
        model = Path(made) / "model"
        shutil.copytree(source, model)
        scenario.change(model)
        with port(scenario.taken) as number:
            text = run(scenario, model, folder, number)
    lines = COLOURS.sub("", text).splitlines()[-MOST_LINES:]
    LOGS.mkdir(exist_ok=True)
    (LOGS / f"{name}.txt").write_text("\n".join(lines) + "\n")
    print(f"{name}: {len(lines)} lines", flush=True)


def run(scenario: Scenario, model: Path, folder: Path, number: int) -> str:
    """Return all that the engine printed."""
    home = f"/opt/vllm/{environment.NAME}"
    script = IN_ITS_PLACE.format(home=home, folder=folder, model=model, place=PLACE)
    parser = ("--enable-auto-tool-choice", "--tool-call-parser", "hermes")
    arguments = scenario.arguments
    if arguments[:1] == ("!--tool-call-parser",):
        parser, arguments = parser[:1], ()
    flags = ["--served-model-name", "demo", "--host", "127.0.0.1", "--port", str(number),
             "--max-num-seqs", "4", "--dtype", "float32", *parser]  # fmt: skip
    if "--max-model-len" not in arguments:
        flags += ["--max-model-len", "512"]
    if scenario.eager:
        flags.append("--enforce-eager")
    command = [*scenario.before, "/usr/bin/env", scenario.command or f"{home}/bin/vllm", "serve"]
    variables = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_CPU_KVCACHE_SPACE": "1",
                 "VLLM_HOST_IP": "127.0.0.1", "VLLM_LOOPBACK_IP": "127.0.0.1", "LC_ALL": "C",
                 "GLOO_SOCKET_IFNAME": "lo", "HOME": "/opt", "PATH": os.environ["PATH"],
                 "TORCH_COMPILE_DISABLE": "1" if scenario.eager else "0"}  # fmt: skip
    words = ["timeout", "-k", "10", str(SECONDS), "unshare", "--mount", "sh", "-c", script, "sh"]
    process = subprocess.Popen(
        [*words, "env", *(f"{k}={v}" for k, v in {**variables, **scenario.environment}.items()),
         *command, scenario.path, *flags, *arguments],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    )  # fmt: skip
    said: list[str] = []
    assert process.stdout is not None
    for line in process.stdout:
        said.append(line)
        if SERVED in line:
            process.terminate()
    process.wait()
    return "".join(said)


@contextlib.contextmanager
def port(taken: bool) -> Iterator[int]:
    """Give a port of this machine, held by somebody else by choice."""
    with socket.socket() as line:
        line.bind(("127.0.0.1", 0))
        if taken:
            line.listen()
            yield line.getsockname()[1]
            return
        number = line.getsockname()[1]
    yield number


def main(names: list[str]) -> None:
    """Record the scenarios named, or all."""
    source, folder = demo_model.ensure(), environment.ensure()
    for name in names or SCENARIOS:
        record(name, SCENARIOS[name], source, folder)


if __name__ == "__main__":
    main(sys.argv[1:])
