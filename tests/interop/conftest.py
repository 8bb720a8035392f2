"""What the tests with other libraries share.

These come with the dependency groups `interop` and `ray`.
"""

from __future__ import annotations

import os
import sys

os.environ.setdefault("JAX_PLATFORMS", "cpu")

# Only where it is named, as `make test-ray` does: Ray is large, and its start takes long.
collect_ignore = ["test_ray.py"]

# The release of jax that is pinned needs Python 3.11.
if sys.version_info < (3, 11):
    collect_ignore.append("test_jax.py")
