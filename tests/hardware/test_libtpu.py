"""An installed libtpu keeps quiet on a machine without a TPU, for users of Python too."""

import os
import subprocess
import sys

import pytest

from lidit_jax.hardware.libtpu import has_tpu

LOOK_FOR_DEVICES = "import lidit_jax, jax; jax.devices()"


@pytest.mark.skipif(has_tpu(), reason="libtpu has work to do here")
def test_looking_for_devices_prints_nothing():
    """In a user's own program, before which nobody has set anything."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("TPU_", "JAX_", "TF_CPP_"))
    }
    # Else libtpu gives up before it can complain, where another test is compiling for TPUs.
    environment["ALLOW_MULTIPLE_LIBTPU_LOAD"] = "1"
    result = subprocess.run(
        [sys.executable, "-c", LOOK_FOR_DEVICES], env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""


def test_what_the_user_has_set_stays(monkeypatch):
    from lidit_jax.hardware import libtpu

    monkeypatch.setattr(libtpu, "has_tpu", lambda: False)
    monkeypatch.setenv("TPU_WORKER_ID", "3")
    monkeypatch.delenv("TPU_LOG_DIR", raising=False)
    libtpu.prepare_libtpu()
    assert os.environ["TPU_WORKER_ID"] == "3"
    assert os.environ["TPU_LOG_DIR"] == "disabled"


def test_a_machine_with_a_tpu_is_left_alone(monkeypatch):
    from lidit_jax.hardware import libtpu

    monkeypatch.setattr(libtpu, "has_tpu", lambda: True)
    monkeypatch.delenv("TPU_ACCELERATOR_TYPE", raising=False)
    libtpu.prepare_libtpu()
    assert "TPU_ACCELERATOR_TYPE" not in os.environ
