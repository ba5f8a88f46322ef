"""`lidit doctor` on machines with an NVIDIA GPU, played by a stand-in for nvidia-smi."""

from importlib import metadata

import pytest

from lidit_jax import cuda, doctor
from lidit_jax.cuda import Plugin


@pytest.fixture
def nvidia_smi(tmp_path, monkeypatch):
    """Puts an nvidia-smi on PATH that prints one driver version."""

    def install(driver: str) -> None:
        program = tmp_path / "nvidia-smi"
        program.write_text(f"#!/bin/sh\necho {driver}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    return install


def _found() -> dict[str, doctor.Finding]:
    return {finding.name: finding for finding in doctor._devices()}


@pytest.mark.parametrize(("driver", "extra"), [("580.65.06", "cuda"), ("550.54.15", "cuda12")])
def test_an_idle_gpu_is_named_with_the_line_that_uses_it(nvidia_smi, driver, extra):
    nvidia_smi(driver)
    found = _found()
    assert "an NVIDIA GPU stands idle" in found["devices"].value
    assert found["devices"].remedy == f"pip install 'lidit-jax[{extra}]'"
    assert found["cuda"].value == f"driver {driver}, no CUDA plugin of JAX"


def test_a_matching_plugin_is_fine(nvidia_smi, monkeypatch):
    nvidia_smi("580.65.06")
    own = metadata.version("jaxlib")
    monkeypatch.setattr(cuda, "plugin", lambda: Plugin("jax-cuda13-plugin", own, "9.14.0"))
    found = _found()
    assert found["cuda"].status == "ok"
    assert found["cudnn"].value == "cuDNN 9.14.0"


@pytest.mark.parametrize(
    ("driver", "version", "message"),
    [("580.65.06", "0.0.1", "but jaxlib"), ("550.54.15", None, "needs driver 580 or later")],
)
def test_a_plugin_that_does_not_fit_is_named(nvidia_smi, monkeypatch, driver, version, message):
    nvidia_smi(driver)
    version = version or metadata.version("jaxlib")
    monkeypatch.setattr(cuda, "plugin", lambda: Plugin("jax-cuda13-plugin", version, None))
    found = _found()
    assert found["cuda"].status == "warning"
    assert message in found["cuda"].value
    assert found["cudnn"].status == "warning"


def test_a_machine_without_a_gpu_says_nothing_of_cuda(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert cuda.driver_version() is None
    assert {"cuda", "cudnn"}.isdisjoint(_found())
