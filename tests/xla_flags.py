"""XLA flags of the tests and of the processes that they start, where most time goes into compiling.

Most programs run once: unoptimized ones are ready twice as fast, and three times as fast without
the emitters of fusions, which are a choice up to jaxlib 0.10.
"""

import jaxlib.version

_EMITTERS = (
    ("--xla_cpu_use_fusion_emitters=false", "--xla_cpu_parallel_codegen_split_count=4")
    if jaxlib.version.__version_info__ < (0, 11)
    else ()
)


def xla_flags(devices: int | None = None) -> str:
    """Flags of quickly compiled programs for a number of CPU devices; None leaves it open."""
    count = () if devices is None else (f"--xla_force_host_platform_device_count={devices}",)
    return " ".join(
        (
            *_EMITTERS,
            *count,
            "--xla_backend_optimization_level=0",
            "--xla_llvm_disable_expensive_passes=true",
            # Several devices on two busy cores can be late by more than the usual 40 s.
            "--xla_cpu_collective_call_terminate_timeout_seconds=120",
        )
    )
