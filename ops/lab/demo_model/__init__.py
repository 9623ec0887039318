"""The demo model: trained once by the engine's own Python, then kept by its content."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections import deque
from collections.abc import Callable
from pathlib import Path

from ops.errors import OpsError
from ops.lab.image import find_image
from ops.lab.locks import locked
from ops.lab.paths import CACHE

HERE = Path(__file__).parent
DIALOGUES = HERE / "dialogues.yml"
KNOWLEDGE = HERE / "knowledge"
MODELS = CACHE / "demo-model"
TAIL = 12  # lines of the trainer that a person sees when it fails


def content_key(environment: Path) -> str:
    """The name of the model that this source and this engine environment make.

    Raises:
        OpsError: The environment is not complete.
    """
    try:
        made_with = (environment / ".complete").read_text().strip()
    except FileNotFoundError:
        raise OpsError(
            "The engine environment that trains the demo model is not complete",
            place=str(environment),
            cure="ops lab environment",
        ) from None
    digest = hashlib.sha256(made_with.encode())
    sources = [DIALOGUES, *KNOWLEDGE.glob("*.md"), *(HERE / "trainer").glob("*.*")]
    for source in sorted(path for path in sources if path.is_file()):
        digest.update(f"\0{source.relative_to(HERE)}\0".encode())
        digest.update(source.read_bytes())
    return digest.hexdigest()[:16]


def ensure(
    environment: Path | None = None,
    *,
    image: Path | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> Path:
    """Train the demo model unless it is there; about two minutes on two cores.

    A run that was killed goes on at its last checkpoint. Training happens in the lab's base image,
    so that nothing of this machine has a part in it.

    Args:
        environment: The engine environment, as it is mounted at `/opt/vllm/<name>` of a host;
            the lab's own unless given.
        image: Folder of the base image; Debian 12 of the lab unless given.
        progress: Told what goes on, line by line.

    Returns:
        The model's folder; its name is its content key.

    Raises:
        OpsError: Training failed; the message ends with the trainer's last words.
    """
    if environment is None:
        from ops.lab.environment import ensure as ensure_environment

        environment = ensure_environment(progress)
    model = MODELS / content_key(environment)
    if model.exists():
        return model
    image = image or find_image("bookworm").ensure(progress)
    with locked(MODELS / f".{model.name}.lock"):
        if not model.exists():
            progress("training the demo model")
            _train(model, environment, image, progress)
    return model


def _train(model: Path, environment: Path, image: Path, progress: Callable[[str], None]) -> None:
    partial = MODELS / f".{model.name}.partial"
    partial.mkdir(exist_ok=True)
    last: deque[str] = deque(maxlen=TAIL)
    command = _command(environment, image, partial, name=f"demo-model-{model.name}")
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as trainer:
        assert trainer.stdout is not None
        for line in trainer.stdout:
            last.append(line.rstrip())
            progress(last[-1])
    if trainer.returncode != 0:
        raise OpsError(
            "The demo model could not be trained:\n" + "\n".join(last),
            place=str(partial),
            cure=f"run it again, it goes on at its checkpoint; rm -r {partial} starts afresh",
        )
    (partial / "model").rename(model)
    shutil.rmtree(partial)


def _command(environment: Path, image: Path, partial: Path, *, name: str) -> list[str]:
    home = f"/opt/vllm/{environment.name}"
    return [
        "systemd-nspawn",
        "--quiet",
        "--register=no",
        "--keep-unit",
        "--as-pid2",
        "--volatile=overlay",
        "--private-network",
        f"--machine={name}",
        f"--directory={image}",
        f"--bind-ro={environment}:{home}",
        f"--bind-ro={HERE}:/demo_model",
        f"--bind={partial}:/training",
        "--chdir=/demo_model",
        "--setenv=PYTHONDONTWRITEBYTECODE=1",
        f"--setenv=PATH={os.defpath}",
        f"{home}/bin/python",
        "-m",
        "trainer",
        "dialogues.yml",
        "knowledge",
        "/training",
        "/training/model",
    ]
