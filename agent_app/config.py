"""Configuration: one YAML file, checked whole, and secrets as files beside it."""

import os
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import AnyHttpUrl, BaseModel, ConfigDict, Field, ValidationError, model_validator

from agent_app.errors import ConfigError

CREDENTIALS_OVERRIDE = "AGENT_APP_CREDENTIALS_DIR"
CREDENTIALS_SYSTEMD = "CREDENTIALS_DIRECTORY"


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Database(_Section):
    """Where PostgreSQL is and as whom we come."""

    host: str
    port: int = Field(default=5432, ge=1, le=65535)
    name: str = "rackhand"
    user: str = "agent_app"
    owner: str = "rackhand_owner"
    sslmode: Literal["disable", "prefer", "require", "verify-ca", "verify-full"] = "prefer"
    sslrootcert: str = ""
    pool_size: int = Field(default=20, ge=2, le=200)


class RedisUrls(_Section):
    """The two Redis databases; passwords come as a credential, never in the URL."""

    cache_url: str = "redis://127.0.0.1:6379/0"
    state_url: str = "redis://127.0.0.1:6380/0"


class Model(_Section):
    """One model and the engines that serve it under that name."""

    endpoints: tuple[AnyHttpUrl, ...] = Field(min_length=1)
    max_output_tokens: int = Field(default=1024, ge=1)
    """Most tokens of one answer; also the cap on what a client may ask for."""
    context_length: int = Field(default=8192, ge=64)
    """Tokens the engine accepts; older turns are left out of the prompt beyond it."""
    temperature: float = Field(default=0.0, ge=0.0, le=2.0)
    """Used where the client names none; 0 makes agents repeatable."""

    @model_validator(mode="after")
    def _answer_fits(self) -> "Model":
        if self.max_output_tokens >= self.context_length:
            raise ValueError("max_output_tokens must be less than context_length")
        return self


class Limits(_Section):
    """Bounds on what one turn, one session and one process may use."""

    steps: int = Field(default=8, ge=1)
    """Calls of the model in one turn."""
    identical_calls: int = Field(default=2, ge=1)
    """Calls of one tool with the same arguments in one turn."""
    calls_per_step: int = Field(default=8, ge=1)
    """Tool calls in one answer of the model."""
    turn_seconds: float = Field(default=300, gt=0)
    """Wall clock of one turn, waiting for an engine included."""
    turn_tokens: int = Field(default=32_000, ge=1)
    """Prompt and answer tokens of one turn, over all its steps."""
    session_tokens: int = Field(default=400_000, ge=1)
    """Prompt and answer tokens of one thread, over all its turns."""
    tool_seconds: float = Field(default=15, gt=0)
    """Wall clock of one tool call."""
    engine_wait_seconds: float = Field(default=120, ge=0)
    """How long one step holds on while engines fail or restart."""
    engine_attempts: int = Field(default=12, ge=1)
    """Attempts of one step that an engine took on and failed (5xx, abort, cut)."""
    engine_silence_seconds: float = Field(default=60, gt=0)
    """Longest silence of an engine within an answer before it counts as failed."""
    retractions: int = Field(default=3, ge=0)
    """Partial answers withdrawn in one step before it is given up."""
    runs: int = Field(default=256, ge=1)
    """Runs held by one process at a time."""
    drain_seconds: float = Field(default=30, ge=0)
    """How long SIGTERM lets streams finish before it says goodbye to them."""
    lease_seconds: float = Field(default=15, gt=1)
    """A run whose process gave no sign for so long counts as interrupted."""
    body_bytes: int = Field(default=1_000_000, ge=1024)
    """Largest request body."""
    key_requests_per_minute: int = Field(default=0, ge=0)
    """Of a key without a limit of its own; 0 is none. So are the next five."""
    key_tokens_per_minute: int = Field(default=0, ge=0)
    key_concurrent_runs: int = Field(default=0, ge=0)
    key_budget_soft: int = Field(default=0, ge=0)
    """Tokens of a calendar month, in UTC; beyond it the log and a metric say so."""
    key_budget_medium: int = Field(default=0, ge=0)
    """Beyond it answers carry X-Budget too."""
    key_budget_hard: int = Field(default=0, ge=0)
    """Beyond it runs are refused."""
    ready_probe_seconds: float = Field(default=10, gt=0)
    """/ready asks an engine for a real token at most this often."""


class SqlTool(_Section):
    """Where `query_database` reads, as whom, and what."""

    host: str
    port: int = Field(default=5432, ge=1, le=65535)
    name: str
    user: str
    sslmode: Literal["disable", "prefer", "require", "verify-ca", "verify-full"] = "prefer"
    sslrootcert: str = ""
    relations: tuple[Annotated[str, Field(pattern=r"^[^.]+\.[^.]+$")], ...] = Field(min_length=1)
    """Tables and views the model may read, as schema.name."""
    functions: tuple[str, ...] = ()
    """Functions of PostgreSQL it may call besides the safe ones."""
    seconds: float = Field(default=5, gt=0)
    rows: int = Field(default=100, ge=1)
    bytes: int = Field(default=16_000, ge=256)


class TicketTool(_Section):
    """How `create_ticket` tells others of a new ticket."""

    webhook_url: AnyHttpUrl | None = None
    """Where each new ticket is posted; without it tickets stay in the table."""
    webhook_attempts: int = Field(default=12, ge=1)
    """After so many failures a delivery is given up; waits double from 2 s to 1 h."""


class Tools(_Section):
    """Tools beside the knowledge base; a section that is absent leaves its tool out."""

    sql: SqlTool | None = None
    tickets: TicketTool | None = None


class Config(_Section):
    """The whole of config.yml."""

    database: Database
    redis: RedisUrls = RedisUrls()
    models: dict[str, Model] = Field(min_length=1)
    default_model: str
    system_prompt: str = ""
    limits: Limits = Limits()
    tools: Tools = Tools()
    tls_ca_file: str = ""
    """CA that vouches for https engines and rediss; "" means the system's."""
    docs: bool = False
    """Serve the OpenAPI page at /docs."""

    @model_validator(mode="after")
    def _default_exists(self) -> "Config":
        if self.default_model not in self.models:
            raise ValueError(
                f"default_model {self.default_model!r} is not one of models: "
                f"{', '.join(sorted(self.models))}"
            )
        return self


def load_config(path: Path) -> Config:
    """Read and check the configuration file.

    Raises:
        ConfigError: The file is absent, is not YAML, or a key is unknown, missing or wrong.
    """
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            error.strerror or "cannot be read", place=str(path), cure="name it with --config"
        ) from error
    except yaml.YAMLError as error:
        raise ConfigError(
            f"not YAML: {error}".replace("\n", " "), place=str(path), cure="correct that line"
        ) from error
    try:
        return Config.model_validate(document)
    except ValidationError as error:
        raise ConfigError(
            "; ".join(_explain(dict(problem)) for problem in error.errors()),
            place=str(path),
            cure="correct these keys; agent_app/README.md lists all of them",
        ) from error


def _explain(problem: dict[str, object]) -> str:
    location = problem.get("loc")
    where = ".".join(str(part) for part in location) if isinstance(location, tuple) else ""
    if problem.get("type") == "extra_forbidden":
        return f"{where}: unknown key"
    return f"{where or 'file'}: {str(problem.get('msg', '')).removeprefix('Value error, ')}"


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
    return secret
