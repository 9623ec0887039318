"""Models and the engines that serve them."""

from pydantic import AnyHttpUrl, Field, model_validator

from agent_app.config.section import Section


class Model(Section):
    """One model and the engines that serve it under that name."""

    endpoints: tuple[AnyHttpUrl, ...] = Field(min_length=1)
    max_output_tokens: int = Field(default=1024, ge=1)
    """Most tokens of one answer; also the cap on what a client may ask for."""
    context_length: int = Field(default=8192, ge=64)
    """Tokens the engine accepts; older turns are left out of the prompt beyond it."""
    temperature: float = Field(default=0.0, ge=0.0, le=2.0)
    """Used where the client names none; 0 makes agents repeatable."""
    revision: str = ""
    """Which weights; part of what tells cached answers apart."""
    usage_per_chunk: bool = True
    """Ask for usage with each chunk, as vLLM gives it; false for engines that refuse the option."""
    continues: bool = True
    """Engines go on from an answer's beginning where asked to (`continue_final_message`), so that a
    stream of /v1 outlives its engine; false for those that would begin anew. vLLM and SGLang do."""
    concurrency: int = Field(default=256, ge=0)
    """Completions of each endpoint at a time, over all processes; 0 is no bound.

    At or below the engine's own --max-num-seqs, or its queue, which knows no keys, fills first.
    vLLM's server takes 256 by default, 1024 on GPUs of 70 GiB and more.
    """
    engine_priority: bool = False
    """Send `priority` too; for vLLM with --scheduling-policy priority, any other refuses it."""

    @model_validator(mode="after")
    def _answer_fits(self) -> "Model":
        if self.max_output_tokens >= self.context_length:
            raise ValueError("max_output_tokens must be less than context_length")
        return self
