"""What the tests with other libraries share. These come with the dependency group `interop`."""

from __future__ import annotations

import os
import sys

os.environ.setdefault("JAX_PLATFORMS", "cpu")

# The release of jax that is pinned needs Python 3.11.
collect_ignore = ["test_jax.py"] if sys.version_info < (3, 11) else []
