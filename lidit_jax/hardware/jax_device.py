"""Static type for the attributes of a JAX device."""

from __future__ import annotations

from typing import Protocol, runtime_checkable


@runtime_checkable
class JaxDevice(Protocol):
    """`jax.Device`, or the description of a device for ahead-of-time compilation.

    jaxlib is a library in C++ without type stubs.
    """

    @property
    def platform(self) -> str:
        """ "tpu", "gpu" or "cpu"."""
        ...

    @property
    def device_kind(self) -> str:
        """Device kind as spelled by JAX, such as "TPU v5 lite"."""
        ...

    @property
    def process_index(self) -> int:
        """Index of the process that owns the device."""
        ...
