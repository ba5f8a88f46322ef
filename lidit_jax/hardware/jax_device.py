"""What is read of a device, which has no type that a checker could see."""

from __future__ import annotations

from typing import Protocol, runtime_checkable


@runtime_checkable
class JaxDevice(Protocol):
    """A `jax.Device`, or the description of one that a program is compiled for.

    jaxlib is a library in C++ without type stubs.
    """

    @property
    def platform(self) -> str:
        """ "tpu", "gpu" or "cpu"."""
        ...

    @property
    def device_kind(self) -> str:
        """As JAX spells it, such as "TPU v5 lite"."""
        ...

    @property
    def process_index(self) -> int:
        """Process that the device belongs to."""
        ...
