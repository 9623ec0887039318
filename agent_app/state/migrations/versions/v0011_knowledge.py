"""Collections, headings, addresses, languages and vectors of the knowledge base.

Vectors are plain arrays, so that these tables are the same with and without pgvector; where it is,
`agent-app migrate` adds an index that casts them.
"""

from alembic import op

revision = "0011"
down_revision = "0010"

UP = """
ALTER TABLE app.knowledge_documents
    ADD COLUMN collection text NOT NULL DEFAULT 'default',
    ADD COLUMN url text NOT NULL DEFAULT '',
    ADD COLUMN language text NOT NULL DEFAULT 'english',
    ADD COLUMN made_with text NOT NULL DEFAULT '',
    ADD COLUMN bytes bigint NOT NULL DEFAULT 0,
    DROP CONSTRAINT knowledge_documents_path_key,
    ADD CONSTRAINT knowledge_documents_name UNIQUE (collection, path);

ALTER TABLE app.knowledge_chunks ADD COLUMN heading text NOT NULL DEFAULT '';
ALTER TABLE app.knowledge_chunks ALTER COLUMN words DROP EXPRESSION;

CREATE TABLE app.knowledge_embeddings (
    chunk_id bigint PRIMARY KEY REFERENCES app.knowledge_chunks (id) ON DELETE CASCADE,
    model text NOT NULL,
    dimensions integer NOT NULL,
    embedding real[] NOT NULL,
    embedded_at timestamptz NOT NULL DEFAULT now()
);
"""


def upgrade() -> None:
    """Add what collections and semantic search need."""
    for statement in UP.split(";\n"):
        if statement.strip():
            op.execute(statement)


def downgrade() -> None:
    """Refuse: documents of other collections would be lost."""
    raise NotImplementedError("0011 holds the knowledge base; restore a backup instead")
