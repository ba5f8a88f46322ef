"""Known bugs of dependencies: effect, remedy and detection.

    versions → effect → remedy → source → whether it happens here

Where a test of a few milliseconds can show a bug, it is detected by that test and not by version
number, so that fixed versions raise no warning.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from lidit_jax.hardware.jax_device import JaxDevice
from lidit_jax.hardware.xla_flags import AVOID_WRONG_SUMS


@dataclass(frozen=True)
class Fault:
    """Known bug of some versions of a package."""

    versions: str
    """Versions known to have the bug."""
    effect: str
    remedy: str
    source: str
    happens: Callable[[Sequence[JaxDevice]], bool]
    """Whether the bug occurs on these devices."""
    avoided: bool = False
    """Whether this package works around the bug, so that the user need not act."""


def _sums_are_wrong(devices: Sequence[JaxDevice]) -> bool:
    """Test a sum of squares after row 32,768 whose result is exact in float32 and bfloat16."""
    if devices[0].platform != "cpu":
        return False
    last = 2**15
    rows = np.zeros((last + 1, 3), np.float32)
    rows[-1, 0] = last
    square = jax.vmap(lambda row: jnp.sum((jnp.eye(3, dtype=row.dtype) @ row) ** 2))
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        return float(np.asarray(jax.jit(square)(rows))[-1]) != last**2


def _half_precision_is_missing(devices: Sequence[JaxDevice]) -> bool:
    """Test compilation of a float16 conversion."""
    if devices[0].platform != "cpu":
        return False
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        try:
            jax.jit(lambda number: number.astype(jnp.float32))(np.ones((), np.float16))
        except jax.errors.JaxRuntimeError:
            return True
    return False


def _on_several_cpu_devices(devices: Sequence[JaxDevice]) -> bool:
    return len(devices) > 1 and devices[0].platform == "cpu"


WRONG_SUMS = Fault(
    versions="jaxlib 0.10.2 and 0.11.0",
    effect="compiled programs give wrong sums on CPUs",
    remedy=f"set XLA_FLAGS={AVOID_WRONG_SUMS.name}={AVOID_WRONG_SUMS.value}, or install another "
    "jaxlib",
    source=AVOID_WRONG_SUMS.source,
    happens=_sums_are_wrong,
)
STORED_PROGRAMS = Fault(
    versions="jaxlib 0.10",
    effect="on several CPU devices, programs read from JAX's compilation cache run their "
    "collectives in any order, which leads to deadlock",
    remedy="that cache is not used there",
    source="observed in training on eight CPU devices",
    happens=_on_several_cpu_devices,
    avoided=True,
)
HALF_PRECISION = Fault(
    versions="jaxlib 0.10.2 and 0.12.0",
    effect="on CPUs without F16C, programs that convert float16 do not compile "
    "(__extendhfsf2 is not found)",
    remedy="NumPy converts float16 weights there",
    source="observed with XLA_FLAGS=--xla_cpu_max_isa=SSE4_2",
    happens=_half_precision_is_missing,
    avoided=True,
)
FAULTS = (WRONG_SUMS, STORED_PROGRAMS, HALF_PRECISION)


def warnings(devices: Sequence[JaxDevice]) -> list[str]:
    """Return one line per bug that occurs on these devices and that the user must fix."""
    return [
        f"warning: {fault.effect} ({fault.versions}; {fault.source}): {fault.remedy}"
        for fault in FAULTS
        if not fault.avoided and fault.happens(devices)
    ]
