"""How documents are cut, searched and shown."""

from pydantic import Field, model_validator

from agent_app.config.section import Section


class Knowledge(Section):
    """The knowledge base; a changed value reaches a document when it is ingested again."""

    language: str = Field(default="english", pattern=r"^[a-z_]+$")
    """PostgreSQL's text search configuration; `simple` neither stems nor drops any word."""
    passage_characters: int = Field(default=1200, ge=100, le=8000)
    """Most characters of one passage: what is found, shown to the model and cited."""
    overlap_characters: int = Field(default=150, ge=0)
    """How much of a passage's end the next one of the same section begins with."""
    results: int = Field(default=4, ge=1, le=20)
    """Passages of one search."""
    file_bytes: int = Field(default=20_000_000, ge=1024)
    """A larger document is passed over, and said so."""

    @model_validator(mode="after")
    def _passages_advance(self) -> "Knowledge":
        if self.overlap_characters * 2 > self.passage_characters:
            raise ValueError("overlap_characters must be at most half of passage_characters")
        return self
