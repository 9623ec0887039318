"""A suite of cases as people write it in YAML, checked whole before anything is asked."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    field_validator,
    model_validator,
)

from ops.errors import InputError

SHIPPED = Path(__file__).parent / "suites"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Exact(_Part):
    """The whole answer, spaces at its ends aside."""

    exact: str


class Contains(_Part):
    """All of these texts are in the answer, whatever the case of letters."""

    contains: tuple[str, ...] = Field(min_length=1)


class Regex(_Part):
    """The pattern is found in the answer."""

    regex: str

    @field_validator("regex")
    @classmethod
    def _compiles(cls, value: str) -> str:
        try:
            re.compile(value)
        except re.error as error:
            raise ValueError(f"no regular expression: {error}") from error
        return value


class JsonSchema(_Part):
    """The answer is JSON that satisfies a schema; a fenced block counts as well."""

    json_schema: dict[str, Any]

    @field_validator("json_schema")
    @classmethod
    def _is_schema(cls, value: dict[str, Any]) -> dict[str, Any]:
        from jsonschema import Draft202012Validator
        from jsonschema.exceptions import SchemaError

        try:
            Draft202012Validator.check_schema(value)
        except SchemaError as error:
            raise ValueError(f"no JSON schema: {error.message}") from error
        return value


class WantedCall(_Part):
    """A call of a tool: its name, and arguments that it must have among others."""

    name: str
    arguments: dict[str, Any] = {}


class ToolCall(_Part):
    """The answer calls this tool; `null` means that it must call none."""

    tool_call: WantedCall | None


class Judge(_Part):
    """Another model says yes to this question about the answer."""

    judge: str = Field(min_length=1)


KINDS = ("exact", "contains", "regex", "json_schema", "tool_call", "judge")


def _kind(value: Any) -> str | None:
    """Tell a grader by its one key, so that a mistake is told of the right one."""
    keys = value if isinstance(value, dict) else type(value).model_fields
    return next((kind for kind in KINDS if kind in keys), None)


Grader = Annotated[
    Annotated[Exact, Tag("exact")]
    | Annotated[Contains, Tag("contains")]
    | Annotated[Regex, Tag("regex")]
    | Annotated[JsonSchema, Tag("json_schema")]
    | Annotated[ToolCall, Tag("tool_call")]
    | Annotated[Judge, Tag("judge")],
    Discriminator(
        _kind,
        custom_error_type="grader",
        custom_error_message=f"no such grader; there are {', '.join(KINDS)}",
    ),
]


class Case(_Part):
    """One question, and what its answer must be. It passes when every grader is content."""

    id: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,60}$")]
    prompt: str = ""
    messages: tuple[dict[str, Any], ...] = ()
    tools: tuple[dict[str, Any], ...] = ()
    graders: tuple[Grader, ...] = Field(min_length=1)
    weight: float = Field(default=1.0, gt=0)
    max_tokens: int = Field(default=256, ge=1)
    temperature: float = Field(default=0.0, ge=0, le=2)
    repetitions: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _asks_something(self) -> Case:
        if bool(self.prompt) == bool(self.messages):
            raise ValueError("give prompt, or messages")
        return self

    def conversation(self, system: str) -> list[dict[str, Any]]:
        """The messages to send."""
        asked = list(self.messages) or [{"role": "user", "content": self.prompt}]
        return [{"role": "system", "content": system}, *asked] if system else asked


class Budget(_Part):
    """What the suite as a whole must keep; 0 asks for nothing."""

    first_token_p95_seconds: float = Field(default=0.0, ge=0)
    answer_p95_seconds: float = Field(default=0.0, ge=0)
    tokens_per_second: float = Field(default=0.0, ge=0)
    """Least throughput of all streams together."""


class Suite(_Part):
    """A suite."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,60}$")]
    description: str = ""
    system: str = ""
    repetitions: int = Field(default=1, ge=1)
    seed: int = 1
    """Of the first repetition; each further one counts up."""
    parallel: int = Field(default=4, ge=1, le=64)
    pass_share: float = Field(default=1.0, gt=0, le=1)
    """Least weighted share of cases that pass."""
    tolerance: float = Field(default=0.0, ge=0, le=1)
    """How far the share may fall below the baseline's."""
    budget: Budget = Budget()
    judge_model: str = ""
    """Model of `judge` graders; the judged one where it is empty, which flatters itself."""
    kind: Literal["suite"] = "suite"
    cases: tuple[Case, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _names_differ(self) -> Suite:
        names = [case.id for case in self.cases]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"several cases are called {', '.join(twice)}")
        return self


def find(name: str) -> Path:
    """Return the file of a suite: a path, or the name of one that is shipped.

    Raises:
        InputError: There is neither.
    """
    path = Path(name)
    if path.suffix in (".yml", ".yaml") and path.is_file():
        return path
    shipped = SHIPPED / f"{name}.yml"
    if shipped.is_file():
        return shipped
    raise InputError(
        f"there is no eval suite {name}",
        place=str(path),
        cure="name a YAML file, or one of: " + ", ".join(shipped_names()),
    )


def shipped_names() -> list[str]:
    """Name the suites that come with Rackhand."""
    return sorted(path.stem for path in SHIPPED.glob("*.yml"))


def load(name: str) -> Suite:
    """Read a suite.

    Raises:
        InputError: It is not there, no YAML, or a key is unknown, missing or wrong.
    """
    path = find(name)
    try:
        return Suite.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except yaml.YAMLError as error:
        raise InputError(f"not YAML: {error}".replace("\n", " "), place=str(path)) from error
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(str(part) for part in problem['loc'])}: {problem['msg']}"
            for problem in error.errors()[:5]
        )
        raise InputError(
            problems, place=str(path), cure="docs/evals.md shows every key of a suite"
        ) from error
