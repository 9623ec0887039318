"""The whole file: read, checked, explained."""

from pathlib import Path

import yaml
from pydantic import Field, ValidationError, model_validator

from agent_app.config.approvals import ApprovalRules
from agent_app.config.cache import Cache
from agent_app.config.data import Database, RedisUrls
from agent_app.config.embeddings import Embeddings
from agent_app.config.jobs import Jobs
from agent_app.config.knowledge import Knowledge
from agent_app.config.limits import Limits
from agent_app.config.models import Model
from agent_app.config.retention import Retention
from agent_app.config.routes import Route
from agent_app.config.section import Section
from agent_app.config.telemetry import Telemetry
from agent_app.config.tools import Tools
from agent_app.errors import ConfigError


class Config(Section):
    """The whole of config.yml."""

    database: Database
    redis: RedisUrls = RedisUrls()
    models: dict[str, Model] = Field(min_length=1)
    default_model: str
    system_prompt: str = ""
    limits: Limits = Limits()
    retention: Retention = Retention()
    tools: Tools = Tools()
    knowledge: Knowledge = Knowledge()
    approvals: ApprovalRules = ApprovalRules()
    jobs: Jobs = Jobs()
    cache: Cache = Cache()
    embeddings: Embeddings | None = None
    routes: dict[str, Route] = Field(default_factory=dict)
    """By model; one that is absent stays on its own engines, whatever happens."""
    telemetry: Telemetry = Telemetry()
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

    @model_validator(mode="after")
    def _cache_can_tell_answers_apart(self) -> "Config":
        nameless = sorted(name for name, model in self.models.items() if not model.revision)
        if self.cache.on and nameless:
            raise ValueError(f"cache needs models.{nameless[0]}.revision")
        if self.cache.semantic is not None and self.embeddings is None:
            raise ValueError("cache.semantic needs embeddings")
        return self

    @model_validator(mode="after")
    def _routes_lead_somewhere(self) -> "Config":
        for name, route in self.routes.items():
            if name not in self.models:
                raise ValueError(f"routes.{name} is not one of models")
            if route.over_medium not in {"local", "cloud", *self.models}:
                raise ValueError(
                    f"routes.{name}.over_medium is neither local, cloud nor one of models"
                )
        return self

    def outside_credentials(self) -> list[str]:
        """Return the names of the credentials that clouds and the embeddings endpoint want."""
        names = {route.cloud.credential for route in self.routes.values() if route.cloud}
        names |= {self.embeddings.credential} if self.embeddings else set()
        return sorted(names - {""})


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
