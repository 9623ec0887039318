"""What vouches for a webhook."""

import hashlib
import hmac
from uuid import UUID


def sign(secret: str, timestamp: str, body: str) -> str:
    """Return the signature a receiver compares: HMAC-SHA256 of `<timestamp>.<body>`, in hex."""
    text = f"{timestamp}.{body}".encode()
    return hmac.new(secret.encode(), text, hashlib.sha256).hexdigest()


def key_secret(secret: str, key_id: UUID) -> str:
    """Return the secret that signs the webhooks of one key's jobs.

    Each key has its own, made from the credential: the holder of one key can check what is meant
    for it and cannot forge what is meant for another.
    """
    return hmac.new(secret.encode(), f"webhooks of {key_id}".encode(), hashlib.sha256).hexdigest()
