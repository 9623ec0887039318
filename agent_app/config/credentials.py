"""Secrets: files that systemd hands over, never values in the configuration."""

import os
from pathlib import Path

from agent_app.errors import ConfigError
from agent_app.observability.secrets import hide

CREDENTIALS_OVERRIDE = "AGENT_APP_CREDENTIALS_DIR"
CREDENTIALS_SYSTEMD = "CREDENTIALS_DIRECTORY"


def read_secret(name: str, *, required: bool = True) -> str:
    """Return a credential handed over by systemd, without the line end.

    Args:
        name: File name in the credentials directory.
        required: Refuse an absent or empty one; otherwise return "".

    Raises:
        ConfigError: It is required and absent, empty or unreadable.
    """
    directory = os.environ.get(CREDENTIALS_OVERRIDE) or os.environ.get(CREDENTIALS_SYSTEMD)
    if not directory and not required:
        return ""
    if not directory:
        raise ConfigError(
            f"no credentials directory is set, so {name} cannot be read",
            cure=f"start under systemd with LoadCredential={name}:… or set {CREDENTIALS_OVERRIDE}",
        )
    path = Path(directory) / name
    try:
        secret = path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        secret = ""
    except OSError as error:
        raise ConfigError(
            error.strerror or "cannot be read", place=str(path), cure="let our user read it"
        ) from error
    if required and not secret:
        raise ConfigError("missing or empty", place=str(path), cure=f"write {name} into it")
    hide(secret)
    return secret


def read_other(name: str) -> str:
    """Return the value of a credential that holds beside it while it is rotated, or ""."""
    return read_secret(f"{name}_other", required=False)
