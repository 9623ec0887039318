"""Where texts become vectors: an endpoint that speaks OpenAI's `/v1/embeddings`."""

from pydantic import AnyHttpUrl, Field

from agent_app.config.section import Section


class Embeddings(Section):
    """One embedding model and who serves it, for the semantic cache and the knowledge base.

    Without the section the cache finds the same words only, and the knowledge base is searched by
    full text.
    """

    endpoint: AnyHttpUrl
    """Its base as OpenAI's SDK takes it, http://127.0.0.1:8010/v1; without a path, /v1 is meant."""
    model: str = Field(min_length=1)
    """Its name at the endpoint; another one makes all vectors of the knowledge base anew."""
    dimensions: int = Field(ge=1, le=16_000)
    """Length of its vectors; another length is refused as an answer.

    PostgreSQL indexes up to 2,000 and compares longer ones one by one.
    """
    credential: str = Field(default="", pattern=r"^[a-z0-9_]*$")
    """File name of its API key among the credentials; "" sends none."""
    seconds: float = Field(default=5, gt=0)
    """Wall clock of one request; what needed it then goes on without it."""
    resident: bool = False
    """It runs on our own hosts, so texts of resident keys may go there, and `tls_ca_file` vouches
    for it instead of the system's CAs."""
    batch: int = Field(default=32, ge=1, le=2048)
    """Texts in one request when documents are embedded."""
    query_prefix: str = ""
    """Put before a question, as some models want it: `query: `."""
    document_prefix: str = ""
    """Put before a passage: `passage: `; another one makes all vectors anew."""
