"""What commands that compute say when the installed compiler computes wrong."""

from __future__ import annotations

import sys


def warn_of_known_faults() -> None:
    """Prints a line for each fault that the user must mend; takes some milliseconds."""
    import jax

    from lidit_jax.hardware.known_faults import warnings

    for line in warnings(jax.devices()):
        print(line, file=sys.stderr)
