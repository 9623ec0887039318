"""The cache of answers."""

from pydantic import Field

from agent_app.config.section import Section


class SemanticCache(Section):
    """Answers to questions that ask for the same in other words."""

    threshold: float = Field(default=0.65, gt=0, le=1)
    """Cosine from which a kept question is a candidate; what decides is the check after it."""
    candidates: int = Field(default=32, ge=1, le=512)
    """Newest questions compared, per key and per everything else that is the same."""
    characters: int = Field(default=600, ge=1)
    """Longest question; a longer one is seldom asked twice and hides its differences well."""
    seconds: float = Field(default=4, gt=0)
    """Longest that vector and check may hold an answer back."""


class Cache(Section):
    """Answers kept in Redis, per key; all of it is off by default."""

    exact: bool = False
    """Answer a request that is the same in every part from its first answer."""
    seconds: int = Field(default=3600, ge=1)
    """How long an answer is kept."""
    semantic: SemanticCache | None = None

    @property
    def on(self) -> bool:
        """Whether anything is kept at all."""
        return self.exact or self.semantic is not None
