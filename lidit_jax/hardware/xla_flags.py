"""XLA flags by accelerator, each with its reason and source.

    generation → flag → reason → source

The TPU and GPU flags come from projects that train on this hardware; none was measured by this
project. The CPU flags avoid bugs of XLA. All must be set before JAX initializes its backends. Flags
set by the user in LIBTPU_INIT_ARGS or XLA_FLAGS take precedence, one by one; LIDIT_XLA_FLAGS=off
disables all of them.
"""

from __future__ import annotations

import os
import re
from collections.abc import MutableMapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from packaging.specifiers import SpecifierSet

from lidit_jax.hardware import cuda
from lidit_jax.hardware.libtpu import has_tpu

_BLACKWELL = (10, 0)
"""Lowest compute capability of Blackwell (B200) and later GPUs."""
_MAXTEXT = "https://github.com/AI-Hypercomputer/maxtext/tree/main/src/maxtext/configs/tpu"
_AXLEARN = "https://github.com/apple/axlearn/blob/main/axlearn/common/compiler_options.py"
_NVIDIA = "https://docs.nvidia.com/jax-toolbox/performance-profiling/gpu-performance"
_JAX_TOOLBOX = "https://github.com/NVIDIA/JAX-Toolbox"
_IRONWOOD = "https://github.com/AI-Hypercomputer/tpu-recipes/tree/main/training/ironwood/wan2.1-14b"
_TRILLIUM = "https://github.com/AI-Hypercomputer/maxtext/blob/main/benchmarks/xla_flags_library.py"
_JAX = "https://docs.jax.dev/en/latest/gpu_memory_allocation.html"


@dataclass(frozen=True)
class Setting:
    """One XLA flag or environment variable."""

    name: str
    """`--xla_…`, or the name of an environment variable."""
    value: str
    reason: str
    source: str
    variable: str = "LIBTPU_INIT_ARGS"
    """Environment variable that holds the flag; equal to `name` if `name` is one."""
    jaxlib: str = ""
    """jaxlib versions that support the flag, as a version specifier; empty for all. XLA aborts the
    process on unknown flags."""

    @property
    def is_supported(self) -> bool:
        """Whether the installed jaxlib knows the flag."""
        return SpecifierSet(self.jaxlib).contains(metadata.version("jaxlib"), prereleases=True)


def _group(names: tuple[str, ...], reason: str, source: str) -> tuple[Setting, ...]:
    return tuple(Setting(f"--{name}", "true", reason, source) for name in names)


_OVERLAP_GATHER = _group(
    (
        "xla_tpu_enable_async_collective_fusion",
        "xla_tpu_enable_async_collective_fusion_fuse_all_gather",
        "xla_tpu_enable_async_collective_fusion_multiple_steps",
        "xla_tpu_overlap_compute_collective_tc",
        "xla_enable_async_all_gather",
    ),
    "FSDP gathers weights while the previous block computes",
    _MAXTEXT,
)
_OVERLAP_DATA_PARALLEL = _group(
    (
        "xla_tpu_enable_data_parallel_all_reduce_opt",
        "xla_tpu_data_parallel_opt_different_sized_ops",
    ),
    "gradients are summed over the data axis during the backward pass",
    _MAXTEXT,
)
_GATHER_OVER_A_SLICE = _group(
    ("xla_tpu_prefer_async_allgather_to_allreduce",),
    "weights split over a whole slice are gathered, not summed with zeros",
    _IRONWOOD,
)


def _sparse_core(source: str) -> tuple[Setting, ...]:
    return _group(
        (
            "xla_tpu_enable_sparse_core_collective_offload_all_gather",
            "xla_tpu_enable_sparse_core_collective_offload_reduce_scatter",
            "xla_tpu_enable_sparse_core_collective_offload_all_reduce",
            "xla_tpu_use_tc_device_shape_on_sc",
        ),
        "the SparseCores move weights and gradients while the matrix units compute",
        source,
    )


_GPU = (
    Setting(
        "--xla_gpu_enable_latency_hiding_scheduler",
        "true",
        "collectives overlap with computation",
        _NVIDIA,
        "XLA_FLAGS",
    ),
    # Without Triton, compiling the demo's step ahead of time for an H100, without autotuning, takes
    # a third less time. The speed on a GPU has not been compared.
    Setting(
        "--xla_gpu_enable_triton_gemm",
        "false",
        "cuBLAS for matrix products, as in NVIDIA's containers: Triton's compile and tune slowly",
        _JAX_TOOLBOX,
        "XLA_FLAGS",
    ),
    Setting(
        "XLA_PYTHON_CLIENT_MEM_FRACTION",
        "0.9",
        "JAX reserves 75% of the GPU's memory by default; cuDNN and NCCL need the rest",
        _JAX,
        "XLA_PYTHON_CLIENT_MEM_FRACTION",
    ),
)

AVOID_WRONG_SUMS = Setting(
    "--xla_cpu_experimental_ynn_fusion_type",
    "-reduce",
    "jaxlib 0.10.2 gives wrong sums over more than 32,768 rows, and crashes in sums of rank 7",
    "https://github.com/jax-ml/jax/issues/39103",
    "XLA_FLAGS",
    jaxlib=">=0.10.1,<0.12",
)
"""Makes XLA compile reductions with its own code; the crashes are jax issues 39257 and 40412.
`lidit_jax.hardware.known_faults` tests whether the installed version needs the flag."""

FLAGS: dict[str, tuple[Setting, ...]] = {
    "v4": (
        Setting("--xla_enable_async_all_gather", "true", _OVERLAP_GATHER[0].reason, _MAXTEXT),
        Setting(
            "TPU_MEGACORE",
            "MEGACORE_DENSE",
            "both cores of a chip act as one device",
            _MAXTEXT,
            "TPU_MEGACORE",
        ),
    ),
    "v5e": (*_OVERLAP_DATA_PARALLEL, *_OVERLAP_GATHER),
    "v5p": (
        *_OVERLAP_GATHER,
        *_OVERLAP_DATA_PARALLEL,
        Setting(
            "--xla_tpu_megacore_fusion_allow_ags",
            "false",
            "gathers are not fused, so that they can overlap",
            _MAXTEXT,
        ),
        *_group(
            ("xla_enable_async_collective_permute", "xla_tpu_enable_ag_backward_pipelining"),
            "the backward pass prefetches the weights of the next block",
            _MAXTEXT,
        ),
        *_GATHER_OVER_A_SLICE,
    ),
    # Collectives overlap on the SparseCores. Fusions, which overlap them on the TensorCore, have
    # given NaN with the splash kernel (github.com/AI-Hypercomputer/maxdiffusion/issues/429).
    "v6e": (
        *_OVERLAP_DATA_PARALLEL,
        *_sparse_core(_TRILLIUM),
        *(
            Setting(
                f"--xla_tpu_enable_async_collective_fusion_fuse_{kind}",
                "false",
                "either fusions or the SparseCores move data",
                _TRILLIUM,
            )
            for kind in ("all_gather", "all_reduce", "reduce_scatter")
        ),
        Setting(
            "--xla_sc_disable_megacore_partitioning",
            "true",
            "required by the SparseCores' collectives",
            _TRILLIUM,
        ),
        Setting(
            "--xla_tpu_scoped_vmem_limit_kib",
            "98304",
            "larger fusions fit into v6e's 128 MiB of VMEM",
            _MAXTEXT,
        ),
        Setting(
            "--xla_jf_spmd_threshold_for_windowed_einsum_mib",
            "1000000",
            "no collective matrix products, which gain little on v6e",
            _AXLEARN,
        ),
    ),
    "tpu7x": (
        *_group(
            (
                "xla_enable_async_all_gather",
                "xla_tpu_enable_async_collective_fusion",
                "xla_tpu_enable_async_collective_fusion_fuse_all_gather",
            ),
            _OVERLAP_GATHER[0].reason,
            _IRONWOOD,
        ),
        *_GATHER_OVER_A_SLICE,
        *_sparse_core(_IRONWOOD),
        Setting(
            "--xla_tpu_scoped_vmem_limit_kib",
            "65536",
            "larger fusions fit into VMEM",
            _IRONWOOD,
        ),
    ),
    "cpu": (AVOID_WRONG_SUMS,),
    # XLA's default command buffers (CUDA graphs): NVIDIA recommends others only from Blackwell on.
    "gpu": _GPU,
    "blackwell": (
        *_GPU,
        Setting(
            "--xla_gpu_enable_command_buffer",
            "FUSION,CUSTOM_CALL",
            "CUDA graphs of fusions and custom calls reduce the cost of launching kernels",
            _NVIDIA,
            "XLA_FLAGS",
        ),
    ),
}
"""Flags by accelerator, as named by `detect_generation`."""

MULTISLICE: tuple[Setting, ...] = (
    Setting(
        "--megascale_grpc_premap_memory_bytes",
        "17179869184",
        "the default of 4 GiB can double the step time",
        _AXLEARN,
    ),
    *_group(
        ("megascale_error_reporter_abort_on_hang", "megascale_error_reporter_abort_on_error"),
        "a hanging slice ends the job, so that it is restarted",
        _AXLEARN,
    ),
)
"""Additional flags for jobs of several slices."""


def detect_generation(environment: MutableMapping[str, str]) -> str:
    """Detect the accelerator, a name in `FLAGS`, without initializing JAX.

    Sources, in order: LIDIT_ACCELERATOR (set by the launcher); TPU_ACCELERATOR_TYPE if there is a
    TPU (otherwise `prepare_libtpu` may have set it); `/dev/nvidia0` and the driver.
    """
    if environment.get("JAX_PLATFORMS", "").startswith("cpu"):
        return "cpu"
    name = environment.get("LIDIT_ACCELERATOR", "")
    if not name and has_tpu():
        name = environment.get("TPU_ACCELERATOR_TYPE", "")
    if found := re.match(r"v5litepod|v5e|v5p|v4|v6e|tpu7x", name):
        return "v5e" if found[0] == "v5litepod" else found[0]
    if not Path("/dev/nvidia0").exists():
        return "cpu"
    capability = cuda.compute_capability()
    return "blackwell" if capability and capability >= _BLACKWELL else "gpu"


def apply_flags(environment: MutableMapping[str, str] = os.environ) -> list[str]:
    """Set the XLA flags of this machine's accelerator, or of its CPU if it has none.

    Call it before JAX initializes its backends. A second call changes nothing and returns the same.

    Returns:
      One line for each setting, with its reason and source, or with the user's own value.
    """
    if environment.get("LIDIT_XLA_FLAGS") == "off":
        return []
    generation = detect_generation(environment)
    settings = FLAGS[generation]
    slices = environment.get("LIDIT_SLICES") or environment.get("MEGASCALE_NUM_SLICES") or 1
    if int(slices) > 1 and generation != "cpu":
        settings += MULTISLICE
    lines = [f"XLA settings for {generation} (LIDIT_XLA_FLAGS=off leaves them out):"]
    for setting in settings:
        own = _set_by_user(setting, environment)
        if own is not None and own != setting.value:
            lines.append(f"  {setting.name}={own}  set by the user")
        elif setting.is_supported:
            if own is None:
                _set(setting, environment)
            lines.append(f"  {setting.name}={setting.value}  {setting.reason} ({setting.source})")
    return lines if len(lines) > 1 else []


def cpu_variables(environment: MutableMapping[str, str] = os.environ) -> dict[str, str]:
    """Return the variables that `apply_flags` sets on a machine without accelerator, else none.

    Every command needs them for correct results. Flags of accelerators only make training faster.
    """
    if detect_generation(environment) != "cpu":
        return {}
    flagged = dict(environment)
    apply_flags(flagged)
    return {name: value for name, value in flagged.items() if environment.get(name) != value}


def _set_by_user(setting: Setting, environment: MutableMapping[str, str]) -> str | None:
    given = environment.get(setting.variable)
    if given is None or setting.variable == setting.name:
        return given
    found = re.search(rf"(?:^|\s){re.escape(setting.name)}(?:=(\S*))?(?=\s|$)", given)
    if found is None:
        return None
    return "true" if found[1] is None else found[1]


def _set(setting: Setting, environment: MutableMapping[str, str]) -> None:
    if setting.variable == setting.name:
        environment[setting.name] = setting.value
        return
    given = environment.get(setting.variable, "")
    environment[setting.variable] = f"{given} {setting.name}={setting.value}".strip()
