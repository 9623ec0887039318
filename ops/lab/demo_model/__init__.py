"""The demo model: trained once by the engine's own Python, then kept by its content."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

from ops.errors import OpsError
from ops.lab import environment as engine
from ops.lab.chamber import Chamber
from ops.lab.image import find_image
from ops.lab.locks import locked
from ops.lab.paths import CACHE

HERE = Path(__file__).parent
DIALOGUES = HERE / "dialogues.yml"
KNOWLEDGE = HERE / "knowledge"
MODELS = CACHE / "demo-model"


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
    progress: Callable[[str], None] = lambda _: None, *, environment: Path | None = None
) -> Path:
    """Train the demo model unless it is there; about a minute on two cores.

    A run that was killed goes on at its last checkpoint. Training happens in the lab's base image,
    so that nothing of this machine has a part in it.

    Args:
        progress: Told what goes on, for a person who waits.
        environment: The engine environment; the lab's own unless given.

    Returns:
        The model's folder; its name is its content key.

    Raises:
        OpsError: Training failed; the message ends with the trainer's last words.
    """
    if environment is None:
        engine.ensure(progress)
        environment = engine.folder()
    model = MODELS / content_key(environment)
    if not model.exists():
        with locked(MODELS / f".{model.name}.lock"):
            if not model.exists():
                _train(model, environment, progress)
    return model


def _train(model: Path, environment: Path, progress: Callable[[str], None]) -> None:
    image = find_image(engine.BUILDER)
    image.ensure(progress)
    progress("training the demo model (about a minute)")
    partial = MODELS / f".{model.name}.partial"
    partial.mkdir(exist_ok=True)
    chamber = Chamber(
        image=image,
        name=f"demo-model-{model.name}",
        writable={"/training": partial},
        readable={engine.HOME: environment, "/demo_model": HERE},
    )
    command = [
        *(f"{engine.HOME}/bin/python", "-m", "trainer"),
        *("/demo_model/dialogues.yml", "/demo_model/knowledge", "/training", "/training/model"),
    ]
    variables = {"PYTHONPATH": "/demo_model", "PYTHONDONTWRITEBYTECODE": "1"}
    chamber.run(command, partial / "training.log", variables)
    (partial / "model").rename(model)
    shutil.rmtree(partial)
