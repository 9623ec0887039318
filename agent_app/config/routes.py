"""Where a request may go when a model's own engines cannot serve it, or not well."""

from typing import Annotated, Literal

from pydantic import AnyHttpUrl, Field, model_validator

from agent_app.config.section import Section

DegradeReason = Literal["unavailable", "busy"]
EscalateReason = Literal["empty", "arguments", "schema", "repeated_calls", "length"]


class Cloud(Section):
    """One OpenAI-compatible service elsewhere."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,39}$")
    """Ours for it: usage, audit and metrics say cloud:<name>."""
    endpoint: AnyHttpUrl
    """Its base as OpenAI's SDK takes it, such as https://api.example.com/v1."""
    model: str = Field(min_length=1)
    """Its name for the model."""
    credential: str = Field(default="", pattern=r"^[a-z0-9_]*$")
    """File name of its API key among the credentials; "" sends none."""
    credential_header: str = "Authorization"
    """Where the API key goes; as `Bearer …` in Authorization, as it is elsewhere."""
    headers: dict[str, str] = Field(default_factory=dict)
    """More headers; nothing secret, for that there is `credential`."""
    price_per_million_prompt: float = Field(default=0.0, ge=0)
    """In your currency, for the audit."""
    price_per_million_completion: float = Field(default=0.0, ge=0)
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """What it calls the bound on an answer."""
    drop: tuple[str, ...] = ()
    """Parameters of OpenAI's API that it does not take, such as `seed`."""
    seconds: float = Field(default=120, gt=0)
    """Longest that one answer may take."""
    silence_seconds: float = Field(default=30, gt=0)
    """Longest silence before and within an answer."""
    breaker_failures: int = Field(default=3, ge=1)
    """Failures in a row after which it is left alone."""
    breaker_seconds: float = Field(default=30, gt=0)
    """For so long; then one request tries it."""
    proxy: str = ""
    """HTTP proxy on the way there."""
    tls_ca_file: str = ""
    """CA that vouches for it; "" means the system's."""

    @model_validator(mode="after")
    def _secrets_are_not_here(self) -> "Cloud":
        secret = {"authorization", "api-key", "x-api-key", self.credential_header.lower()}
        if found := sorted(name for name in self.headers if name.lower() in secret):
            raise ValueError(f"headers: {found[0]} is a secret; name its file in `credential`")
        return self


class Route(Section):
    """The policy of one model. Its own engines always come first, but for `over_medium: cloud`."""

    cloud: Cloud | None = None
    degrade_on: tuple[DegradeReason, ...] = ("unavailable", "busy")
    """Engines down or failing; all of them full beyond the queue's bound."""
    escalate_on: tuple[EscalateReason, ...] = ()
    """Faults of an answer for which the cloud is asked once, per step."""
    local_seconds: float = Field(default=3, ge=0)
    """How long our engines may fail before the cloud is asked, instead of engine_wait_seconds."""
    over_medium: Annotated[str, Field(min_length=1)] = "local"
    """Beyond a key's medium budget: `local` (no cloud), `cloud` (first), or another model."""
    cloud_budget_tokens: int = Field(default=0, ge=0)
    """Tokens of a key in a calendar month (UTC) at this cloud; needed where there is a cloud."""

    @model_validator(mode="after")
    def _cloud_is_bounded(self) -> "Route":
        if self.cloud is not None and not self.cloud_budget_tokens:
            raise ValueError("cloud_budget_tokens must bound what a key may spend at the cloud")
        if self.cloud is None and self.over_medium == "cloud":
            raise ValueError("over_medium is cloud, but there is no cloud")
        return self
