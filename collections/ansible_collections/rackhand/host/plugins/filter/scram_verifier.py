# Copyright: the Rackhand founders
"""PostgreSQL's SCRAM-SHA-256 verifier of a password, computed on the control machine."""

from __future__ import annotations

DOCUMENTATION = r"""
name: scram_verifier
short_description: PostgreSQL's SCRAM-SHA-256 verifier of a password
description:
  - Gives what PostgreSQL keeps in C(pg_authid.rolpassword); no clear password reaches the host.
  - The salt is derived from password and role; the same input gives the same verifier, and a second
    run has nothing to change.
positional: role
options:
  _input: {description: The password; printable ASCII., type: str, required: true}
  role: {description: The role's name., type: str, required: true}
"""

EXAMPLES = r"""
verifier: "{{ postgres_owner_password | rackhand.host.scram_verifier('rackhand_owner') }}"
"""

RETURN = r"""
_value: {description: "C(SCRAM-SHA-256$4096:salt$StoredKey:ServerKey)", type: str}
"""

import base64
import hashlib
import hmac
from collections.abc import Callable

from ansible.errors import AnsibleFilterError

ITERATIONS = 4096  # PostgreSQL's scram_iterations
SALT_BYTES = 16  # PostgreSQL's SCRAM_DEFAULT_SALT_LEN


def scram_verifier(password: str, role: str) -> str:
    """Return the verifier of `password` for `role` (RFC 5803, as PostgreSQL writes it).

    Raises AnsibleFilterError for an empty password, and for one outside printable ASCII: only
    there is SASLprep (RFC 4013) the identity.
    """
    if not password or not all(" " <= character <= "~" for character in password):
        raise AnsibleFilterError(
            f"the password of PostgreSQL role {role} is empty or not printable ASCII; set another"
        )
    key = password.encode("ascii")
    salt = hmac.digest(key, f"rackhand scram salt {role}".encode(), "sha256")[:SALT_BYTES]
    salted = hashlib.pbkdf2_hmac("sha256", key, salt, ITERATIONS)
    stored_key = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server_key = hmac.digest(salted, b"Server Key", "sha256")
    salt64, stored64, server64 = (
        base64.b64encode(part).decode() for part in (salt, stored_key, server_key)
    )
    return f"SCRAM-SHA-256${ITERATIONS}:{salt64}${stored64}:{server64}"


class FilterModule:
    """The collection's filters of this file."""

    def filters(self) -> dict[str, Callable[..., str]]:
        """Name to function."""
        return {"scram_verifier": scram_verifier}
