"""Makes the collection's own modules importable, as Ansible does."""

import rendering  # noqa: F401
