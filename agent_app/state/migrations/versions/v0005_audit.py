"""The audit's chain, outbox and data keys; erasures; whose a ticket is."""

from alembic import op

revision = "0005"
down_revision = "0004"

# Entries are written here first, in the transaction of what they tell about; a sealer chains them.
# Data keys open the personal part of entries; both are in `app`, where the app may delete.
_TABLES = """
CREATE TABLE app.audit_outbox (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    kind text NOT NULL,
    actor text NOT NULL DEFAULT '',
    key_id uuid,
    thread_id uuid,
    run_id uuid,
    correlation text NOT NULL DEFAULT '',
    details text NOT NULL DEFAULT '{}'
);

CREATE TABLE app.audit_keys (
    subject uuid PRIMARY KEY,
    key_id uuid,
    thread_id uuid,
    wrapped bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX audit_keys_key ON app.audit_keys (key_id);
CREATE INDEX audit_keys_thread ON app.audit_keys (thread_id);

CREATE TABLE audit.entries (
    number bigint PRIMARY KEY,
    at timestamptz NOT NULL,
    kind text NOT NULL,
    actor text NOT NULL,
    key_id uuid,
    thread_id uuid,
    run_id uuid,
    body text,
    sealed bytea,
    previous text NOT NULL,
    hash text NOT NULL UNIQUE,
    CHECK ((body IS NULL) <> (sealed IS NULL))
);
CREATE INDEX entries_key ON audit.entries (key_id, number);
CREATE INDEX entries_thread ON audit.entries (thread_id) WHERE thread_id IS NOT NULL;
CREATE INDEX entries_at ON audit.entries (at);

CREATE TABLE audit.anchors (
    number bigint PRIMARY KEY,
    hash text NOT NULL,
    removed bigint NOT NULL,
    at timestamptz NOT NULL
);

CREATE TABLE app.erasures (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    subject text NOT NULL CHECK (subject IN ('key', 'thread')),
    subject_id uuid NOT NULL,
    options jsonb NOT NULL,
    begun_by text NOT NULL,
    begun_at timestamptz NOT NULL DEFAULT now(),
    erased jsonb NOT NULL DEFAULT '{}',
    finished_at timestamptz,
    receipt jsonb
);
CREATE INDEX erasures_subject ON app.erasures (subject_id);
CREATE UNIQUE INDEX erasures_unfinished ON app.erasures (subject_id) WHERE finished_at IS NULL;

ALTER TABLE app.tickets ADD COLUMN key_id uuid;
CREATE INDEX tickets_key ON app.tickets (key_id)
"""

# The call stack names the one function that may remove; a setting could be set by anyone.
_REFUSE = """
CREATE FUNCTION audit.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    stack text;
BEGIN
    GET DIAGNOSTICS stack = PG_CONTEXT;
    IF TG_OP IN ('INSERT', 'DELETE') AND stack ~ '\\nPL/pgSQL function audit\\.drop_old\\(' THEN
        RETURN NULL;
    END IF;
    RAISE EXCEPTION 'audit.% is append-only: % is refused', TG_TABLE_NAME, TG_OP
        USING ERRCODE = 'insufficient_privilege',
            HINT = 'agent-app retention run removes what is older than retention.audit_days';
END $$
"""

_FOLLOW = """
CREATE FUNCTION audit.follow_head() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    head record;
BEGIN
    SELECT number, hash INTO head FROM audit.entries ORDER BY number DESC LIMIT 1;
    IF NEW.number <> coalesce(head.number, 0) + 1
        OR NEW.previous <> coalesce(head.hash, repeat('0', 64)) THEN
        RAISE EXCEPTION 'entry % does not follow the head of the chain', NEW.number
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END $$
"""

# Whoever has the app's password could call it: what is younger than 30 days stays in any case.
_DROP = """
CREATE FUNCTION audit.drop_old(before timestamptz, most integer) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    last bigint;
    dropped bigint;
BEGIN
    IF before > now() - interval '30 days' THEN
        RAISE EXCEPTION 'entries younger than 30 days are not removed'
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    SELECT coalesce(min(number) FILTER (WHERE at >= before) - 1, max(number)) INTO last
    FROM (SELECT number, at FROM audit.entries ORDER BY number LIMIT most) AS oldest;
    SELECT least(last, max(number) - 1) INTO last FROM audit.entries;
    SELECT count(*) INTO dropped FROM audit.entries WHERE number <= last;
    IF dropped = 0 THEN
        RETURN 0;
    END IF;
    INSERT INTO audit.anchors SELECT number, hash, dropped, now()
    FROM audit.entries WHERE number = last;
    DELETE FROM audit.entries WHERE number <= last;
    RETURN dropped;
END $$
"""

# ALWAYS: also where a superuser plays a replica.
_TRIGGERS = """
CREATE TRIGGER entries_follow BEFORE INSERT ON audit.entries
    FOR EACH ROW EXECUTE FUNCTION audit.follow_head();
CREATE TRIGGER entries_stay BEFORE UPDATE OR DELETE OR TRUNCATE ON audit.entries
    FOR EACH STATEMENT EXECUTE FUNCTION audit.refuse_change();
CREATE TRIGGER anchors_stay BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON audit.anchors
    FOR EACH STATEMENT EXECUTE FUNCTION audit.refuse_change();
ALTER TABLE audit.entries ENABLE ALWAYS TRIGGER entries_follow;
ALTER TABLE audit.entries ENABLE ALWAYS TRIGGER entries_stay;
ALTER TABLE audit.anchors ENABLE ALWAYS TRIGGER anchors_stay
"""


def upgrade() -> None:
    """Create what the audit needs."""
    statements = [*_TABLES.split(";\n"), _REFUSE, _FOLLOW, _DROP, *_TRIGGERS.split(";\n")]
    for statement in statements:
        if statement.strip():
            op.execute(statement)


def downgrade() -> None:
    """Refuse: the audit would be lost."""
    raise NotImplementedError("0005 holds the audit; restore a backup instead")
