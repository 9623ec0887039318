"""What the secret `audit_secret` does: it wraps data keys and signs exports and receipts."""

import secrets
from typing import Any
from uuid import UUID

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from agent_app.audit.chain import canonical
from agent_app.errors import ConfigError

SECRET_CHARACTERS = 16
KEY_BYTES = 32
NONCE_BYTES = 12  # of AES-GCM, NIST SP 800-38D


class Vault:
    """Wraps and signs.

    Signatures are Ed25519 and not HMAC: whoever checks one needs the public key only, and could
    not have made it.

    Args:
        secret: `audit_secret`, at least 16 characters.

    Raises:
        ConfigError: It is empty or short.
    """

    def __init__(self, secret: str) -> None:
        if len(secret) < SECRET_CHARACTERS:
            raise ConfigError(
                f"audit_secret is shorter than {SECRET_CHARACTERS} characters",
                place="credential audit_secret",
                cure="write 32 random bytes in hex into it (openssl rand -hex 32)",
            )
        self._wrapping = _derive(secret, b"rackhand audit: data keys")
        signing = _derive(secret, b"rackhand audit: signatures")
        self._signer = Ed25519PrivateKey.from_private_bytes(signing)
        self.public_key = self._signer.public_key().public_bytes_raw().hex()

    def wrap(self, data_key: bytes, subject: UUID) -> bytes:
        """Return a data key as the database keeps it."""
        return encrypt(self._wrapping, data_key, subject)

    def unwrap(self, wrapped: bytes, subject: UUID) -> bytes:
        """Return the data key.

        Raises:
            ConfigError: Another secret wrapped it.
        """
        try:
            return decrypt(self._wrapping, wrapped, subject)
        except InvalidTag as error:
            raise ConfigError(
                "another secret wrapped the data keys of the audit",
                place="credential audit_secret",
                cure="put the first one back; without it sealed entries stay closed for good",
            ) from error

    def sign(self, document: dict[str, Any]) -> str:
        """Return the signature of a document, in hex."""
        return self._signer.sign(canonical(document).encode()).hex()


def _derive(secret: str, purpose: bytes) -> bytes:
    return HKDF(SHA256(), KEY_BYTES, salt=None, info=purpose).derive(secret.encode())


def make_data_key() -> bytes:
    """Return a new random data key."""
    return secrets.token_bytes(KEY_BYTES)


def encrypt(key: bytes, data: bytes, subject: UUID) -> bytes:
    """Return nonce and ciphertext (AES-256-GCM), bound to the subject."""
    nonce = secrets.token_bytes(NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, data, subject.bytes)


def decrypt(key: bytes, sealed: bytes, subject: UUID) -> bytes:
    """Return what was encrypted.

    Raises:
        InvalidTag: Another key or subject, or altered bytes.
    """
    return AESGCM(key).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], subject.bytes)


def is_signed(document: dict[str, Any], signature: str, public_key: str) -> bool:
    """Return whether a signature is of this document and key."""
    try:
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(public_key))
        key.verify(bytes.fromhex(signature), canonical(document).encode())
    except (InvalidSignature, ValueError):
        return False
    return True
