"""XLA's flags: the right ones for each accelerator, and the user's own values win."""

import os
import subprocess
import sys

import pytest

from lidit_jax.hardware import xla_flags
from lidit_jax.hardware.xla_flags import (
    AVOID_WRONG_SUMS,
    FLAGS,
    MULTISLICE,
    apply_flags,
    cpu_variables,
    detect_generation,
)


@pytest.mark.parametrize(
    ("name", "generation"),
    [
        ("v5litepod-16", "v5e"),
        ("v5p-256", "v5p"),
        ("v6e-64", "v6e"),
        ("v4-32", "v4"),
        ("tpu7x-128", "tpu7x"),
    ],
)
def test_generation_comes_from_what_schedulers_set(name, generation, monkeypatch):
    monkeypatch.setattr(xla_flags, "has_tpu", lambda: True)
    assert detect_generation({"TPU_ACCELERATOR_TYPE": name}) == generation
    assert detect_generation({"TPU_ACCELERATOR_TYPE": name, "JAX_PLATFORMS": "cpu"}) == "cpu"


def test_a_cpu_with_libtpu_is_no_tpu(monkeypatch):
    monkeypatch.setattr(xla_flags, "has_tpu", lambda: False)
    monkeypatch.setattr(xla_flags.Path, "exists", lambda path: False)
    assert detect_generation({"TPU_ACCELERATOR_TYPE": "v5litepod-8"}) == "cpu"


def test_cpus_get_their_flags_in_every_command_and_accelerators_only_in_training(monkeypatch):
    monkeypatch.setattr(xla_flags.metadata, "version", lambda package: "0.10.2")
    flag = f"{AVOID_WRONG_SUMS.name}={AVOID_WRONG_SUMS.value}"
    on_cpu = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--mine=1"}
    assert cpu_variables(on_cpu) == {"XLA_FLAGS": f"--mine=1 {flag}"}
    own = {"XLA_FLAGS": f"{AVOID_WRONG_SUMS.name}="}
    assert cpu_variables(on_cpu | own) == {}
    assert cpu_variables(on_cpu | {"LIDIT_XLA_FLAGS": "off"}) == {}
    assert cpu_variables({"LIDIT_ACCELERATOR": "v6e-8"}) == {}
    monkeypatch.setattr(xla_flags.metadata, "version", lambda package: "0.10.0")
    assert cpu_variables(on_cpu) == {}, "a jaxlib that would end at the flag"


def test_a_second_call_says_the_same():
    """`lidit train` says what every command has set before."""
    environment = {"JAX_PLATFORMS": "cpu"}
    assert apply_flags(environment) == apply_flags(environment)


@pytest.mark.parametrize(
    ("capability", "generation", "command_buffers"),
    [((9, 0), "gpu", False), ((10, 0), "blackwell", True), (None, "gpu", False)],
)
def test_blackwell_gets_command_buffers(capability, generation, command_buffers, monkeypatch):
    monkeypatch.setattr(xla_flags.Path, "exists", lambda path: str(path) == "/dev/nvidia0")
    monkeypatch.setattr(xla_flags.cuda, "compute_capability", lambda: capability)
    assert detect_generation({}) == generation
    environment = {}
    apply_flags(environment)
    given = "--xla_gpu_enable_command_buffer=FUSION,CUSTOM_CALL" in environment["XLA_FLAGS"]
    assert given == command_buffers


def test_every_setting_has_a_reason_and_a_source():
    for setting in (*MULTISLICE, *(one for group in FLAGS.values() for one in group)):
        assert setting.reason, setting.name
        assert setting.source.startswith("https://"), setting.name


def test_flags_are_added_to_what_the_user_has_set():
    environment = {"LIDIT_ACCELERATOR": "v6e-8", "LIBTPU_INIT_ARGS": "--mine=1"}
    lines = apply_flags(environment)
    assert environment["LIBTPU_INIT_ARGS"].startswith("--mine=1 --xla_tpu_")
    shown = next(line for line in lines if "scoped_vmem" in line)
    assert "98304  larger fusions" in shown, "flag and reason"
    assert shown.endswith(
        "(https://github.com/AI-Hypercomputer/maxtext/tree/main/src/maxtext/configs/tpu)"
    )


def test_the_users_own_value_wins():
    own = "--xla_tpu_scoped_vmem_limit_kib=65536"
    environment = {"LIDIT_ACCELERATOR": "v6e-8", "LIBTPU_INIT_ARGS": own}
    lines = apply_flags(environment)
    assert environment["LIBTPU_INIT_ARGS"].count("scoped_vmem") == 1
    assert f"  {own}  set by the user" in lines


def test_all_of_them_can_be_left_out():
    environment = {"LIDIT_ACCELERATOR": "v6e-8", "LIDIT_XLA_FLAGS": "off"}
    assert apply_flags(environment) == []
    assert "LIBTPU_INIT_ARGS" not in environment


def test_several_slices_add_their_own():
    environment = {"LIDIT_ACCELERATOR": "v5p-8", "MEGASCALE_NUM_SLICES": "2"}
    apply_flags(environment)
    assert "--megascale_grpc_premap_memory_bytes=17179869184" in environment["LIBTPU_INIT_ARGS"]


def test_libtpu_knows_every_flag():
    """An unknown flag ends the process, so libtpu itself is asked, without a TPU."""
    pytest.importorskip("libtpu")
    settings = {one.name: one for group in FLAGS.values() for one in group}
    flags = [f"{s.name}={s.value}" for s in settings.values() if s.variable == "LIBTPU_INIT_ARGS"]
    flags += [f"{setting.name}={setting.value}" for setting in MULTISLICE]
    variables = {
        "JAX_PLATFORMS": "cpu",
        "TPU_SKIP_MDS_QUERY": "1",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
        "TPU_LOG_DIR": "disabled",
        "LIBTPU_INIT_ARGS": " ".join(flags),
    }
    code = "from jax.experimental import topologies as t; t.get_topology_desc('v5e:2x2', 'tpu')"
    result = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | variables, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr[-2000:]


def test_xla_knows_the_flags_for_gpus():
    """XLA reads these flags on every platform, and ends the process when it knows one not."""
    flags = [f"{s.name}={s.value}" for s in FLAGS["blackwell"] if s.variable == "XLA_FLAGS"]
    code = "import jax; print(jax.devices()[0].platform)"
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": " ".join(flags)}
    result = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr[-2000:]
