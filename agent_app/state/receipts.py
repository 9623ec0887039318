"""The receipt of an erasure: what went, when, by whom; signed, and checked again at any time."""

from datetime import UTC, datetime
from typing import Any

import psycopg

from agent_app.audit.chain import Head, digest
from agent_app.audit.vault import Vault, is_signed

BEYOND = [
    "backups, until they are rotated out: restore one, then erase again",
    "PostgreSQL's dead rows and WAL, until vacuum and recycling overwrite them",
    "logs and traces, which hold ids and figures, until they are rotated out",
    "metrics by the key's name, until Prometheus drops them",
    "webhooks that were delivered",
    "prefix caches in the engines' memory, until they are overwritten",
]
"""What no command on this host can reach; told in each receipt."""
_PROOF = ("hash", "public_key", "signature")


def make_receipt(erasure: dict[str, Any], vault: Vault, *, head: Head) -> dict[str, Any]:
    """Return the signed receipt of a row of `app.erasures`."""
    counts: dict[str, int] = erasure["erased"]
    content = {
        "receipt": str(erasure["id"]),
        "subject": erasure["subject"],
        "subject_id": str(erasure["subject_id"]),
        "options": erasure["options"],
        "begun_at": erasure["begun_at"].astimezone(UTC).isoformat(),
        "finished_at": datetime.now(UTC).isoformat(),
        "by": erasure["begun_by"],
        "erased": {s: n for s, n in sorted(counts.items()) if n and not s.startswith("kept ")},
        "kept": {s[5:]: n for s, n in sorted(counts.items()) if n and s.startswith("kept ")},
        "audit_head": str(head),
        "beyond": BEYOND,
    }
    proof = {"hash": digest(content), "public_key": vault.public_key}
    return {**content, **proof, "signature": vault.sign({**content, **proof})}


def problems_of(
    receipt: dict[str, Any], connection: psycopg.Connection[Any], *, public_key: str
) -> list[str]:
    """Return what is wrong with a receipt by itself and by the audit; nothing is well.

    Args:
        receipt: As `erase` printed it.
        connection: To the database with the audit.
        public_key: Of the one who must have signed it.
    """
    content = {name: value for name, value in receipt.items() if name not in _PROOF}
    signed = {name: value for name, value in receipt.items() if name != "signature"}
    problems = []
    if receipt.get("hash") != digest(content):
        problems.append("it was altered: its hash is another")
    if not is_signed(signed, str(receipt.get("signature")), public_key):
        problems.append("the signature is not of this receipt and our key")
    row = connection.execute(_TOLD, {"part": f'%"receipt_hash":"{receipt.get("hash")}"%'})
    if not (row.fetchone() or (False,))[0]:
        problems.append("the audit has no entry of it")
    return problems


# Once chained the body is canonical; in the outbox it has spaces.
_TOLD = """
SELECT EXISTS (SELECT FROM audit.entries WHERE kind = 'erase.done' AND body LIKE %(part)s)
    OR EXISTS (SELECT FROM app.audit_outbox
               WHERE kind = 'erase.done' AND replace(details, ': ', ':') LIKE %(part)s)
"""
