"""Warning printed by commands if the installed XLA compiler gives wrong results."""

from __future__ import annotations

import sys


def warn_of_known_faults() -> None:
    """Print a line for each compiler fault that the user must fix; takes some milliseconds."""
    import jax

    from lidit_jax.hardware.known_faults import warnings

    for line in warnings(jax.devices()):
        print(line, file=sys.stderr)
