"""`lidit doctor` on machines with an NVIDIA GPU, played by a stand-in for nvidia-smi."""

from importlib import metadata

import pytest

from lidit_jax.attention import gpu
from lidit_jax.commands import doctor_findings
from lidit_jax.hardware import cuda
from lidit_jax.hardware.cuda import Plugin


@pytest.fixture
def nvidia_smi(tmp_path, monkeypatch):
    """Puts an nvidia-smi on PATH that prints one driver version."""

    def install(driver: str) -> None:
        program = tmp_path / "nvidia-smi"
        program.write_text(f"#!/bin/sh\necho {driver}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    return install


def _found() -> dict[str, doctor_findings.Finding]:
    return {finding.name: finding for finding in doctor_findings._devices()}


@pytest.mark.parametrize(("driver", "extra"), [("580.65.06", "cuda"), ("550.54.15", "cuda12")])
def test_an_idle_gpu_is_named_with_the_line_that_uses_it(nvidia_smi, driver, extra):
    nvidia_smi(driver)
    found = _found()
    assert "an NVIDIA GPU is not used" in found["devices"].value
    assert found["devices"].remedy == f"pip install 'lidit-jax[{extra}]'"
    assert found["cuda"].value == f"driver {driver}, no CUDA plugin for JAX"


def test_a_matching_plugin_is_fine(nvidia_smi, monkeypatch):
    nvidia_smi("580.65.06")
    own = metadata.version("jaxlib")
    monkeypatch.setattr(cuda, "plugin", lambda: Plugin("jax-cuda13-plugin", own, "9.14.0"))
    found = _found()
    assert found["cuda"].status == "ok"
    assert found["cudnn"].value == "cuDNN 9.14.0"


@pytest.mark.parametrize(
    ("driver", "version", "message"),
    [
        ("580.65.06", "0.0.1", "versions must match"),
        ("550.54.15", None, "needs driver 580 or later"),
    ],
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


@pytest.mark.parametrize(
    ("answer", "capability"), [("9.0", (9, 0)), ("12.0", (12, 0)), ("[N/A]", None)]
)
def test_the_compute_capability_comes_from_the_driver(nvidia_smi, answer, capability):
    nvidia_smi(answer)
    assert cuda.compute_capability() == capability


def test_cudnn_attention_is_tried_and_its_failure_named(monkeypatch):
    """There is no GPU here, so it fails as it does where cuDNN does not load."""
    finding = doctor_findings._attention("cudnn")
    assert finding.status == "warning"
    assert finding.value.startswith("cuDNN's kernel fails (")
    assert "--config.model.attention=reference" in finding.remedy


@pytest.mark.parametrize(
    ("difference", "status", "value"),
    [
        (0.004, "ok", "plain XLA in float32; tested: differs from XLA by 0.4%"),
        (0.3, "warning", "cuDNN's kernel differs from plain XLA by 30.0%"),
        (float("nan"), "warning", "cuDNN's kernel differs from plain XLA by nan%"),
    ],
)
def test_cudnn_attention_must_come_close(difference, status, value, monkeypatch):
    monkeypatch.setattr(gpu, "cudnn_difference", lambda: difference)
    finding = doctor_findings._attention("cudnn")
    assert finding.status == status
    assert finding.value.endswith(value)
