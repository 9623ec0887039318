"""Makes the host collection importable, whichever test is first."""

import rendering  # noqa: F401
