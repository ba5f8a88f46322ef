"""Faults of the installed compiler are found by what it computes."""

import dataclasses
import os
import subprocess
import sys

import jax
import pytest

from lidit_jax.hardware import known_faults
from lidit_jax.hardware.known_faults import STORED_PROGRAMS, WRONG_SUMS, warnings
from lidit_jax.hardware.xla_flags import AVOID_WRONG_SUMS

_SUMS = """
import jax
from lidit_jax.hardware.known_faults import warnings
print(*warnings(jax.devices()))
"""
# https://github.com/jax-ml/jax/issues/40412: jaxlib 0.10.2 crashes here.
_RANK_7 = """
import jax, jax.numpy as jnp
x = jnp.ones((3, 1, 2, 2, 8, 8, 8))
print(float(jax.jit(lambda a, b: jnp.sum(a * b, axis=3))(x, x).sum()))
"""


def run(code, flags):
    variables = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags, "LIDIT_XLA_FLAGS": "off"}
    command = [sys.executable, "-c", code]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | variables
    )


def test_these_programs_compute_right():
    assert not WRONG_SUMS.happens(jax.devices())
    assert warnings(jax.devices()) == []


def test_sums_of_rank_7_do_not_crash():
    flag = f"{AVOID_WRONG_SUMS.name}={AVOID_WRONG_SUMS.value}"
    result = run(_RANK_7, flag)
    assert result.stdout.strip() == str(3.0 * 2 * 2 * 8**3), result.stderr[-300:]


def test_without_the_flag_the_self_test_says_what_is_true_of_this_version():
    """The versions that are known to be wrong must be found, and no other may be blamed."""
    result = run(_SUMS, "")
    assert result.returncode == 0, result.stderr[-300:]
    if jax.lib.__version__ == "0.10.2":
        assert "wrong sums" in result.stdout
        assert f"{AVOID_WRONG_SUMS.name}={AVOID_WRONG_SUMS.value}" in result.stdout
    elif "wrong sums" in result.stdout:
        pytest.fail(f"add jaxlib {jax.lib.__version__} to the versions of WRONG_SUMS")


def test_a_processor_without_half_precision_is_told_of():
    """No warning: weights are converted by NumPy, see `tests/weights/test_streaming.py`."""
    code = """
import jax
from lidit_jax.hardware.known_faults import HALF_PRECISION, warnings
print(HALF_PRECISION.happens(jax.devices()), *warnings(jax.devices()))
"""
    flags = f"{AVOID_WRONG_SUMS.name}={AVOID_WRONG_SUMS.value}"
    result = run(code, f"{flags} --xla_cpu_max_isa=SSE4_2")
    assert result.returncode == 0, result.stderr[-300:]
    if jax.lib.__version__ in ("0.10.2", "0.12.0", "0.12.0.1"):
        assert result.stdout == "True\n"
    elif result.stdout == "True\n":
        pytest.fail(f"add jaxlib {jax.lib.__version__} to the versions of HALF_PRECISION")


def test_what_goes_wrong_is_said_with_its_remedy_and_what_is_avoided_is_not(monkeypatch):
    broken = dataclasses.replace(WRONG_SUMS, happens=lambda devices: True)
    monkeypatch.setattr(known_faults, "FAULTS", (broken, STORED_PROGRAMS))
    (line,) = warnings(jax.devices())
    assert line.startswith("warning: compiled programs give wrong sums on CPUs")
    assert line.endswith(WRONG_SUMS.remedy)
    assert STORED_PROGRAMS.happens(jax.devices()), "eight CPU devices"


def test_accelerators_are_not_asked():
    class Gpu:
        platform = "gpu"

    assert not any(fault.happens([Gpu(), Gpu()]) for fault in known_faults.FAULTS)
