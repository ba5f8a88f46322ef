"""Hosts that do not mean the same run refuse to start; those that do, share its records."""

import os
import socket
import subprocess
import sys

import pytest

from lidit_jax.errors import LiditError
from lidit_jax.training import host_consistency
from lidit_jax.training.host_consistency import (
    check_data_consistency,
    check_program_consistency,
)
from tests.faults.runs import RECIPE
from tests.training.stand_ins import Linear
from tests.xla_flags import xla_flags


@pytest.fixture
def others(monkeypatch):
    """Lets a second process, that is not there, answer what a function makes of our answer."""

    def answer(change):
        monkeypatch.setattr(host_consistency.jax, "process_count", lambda: 2)
        monkeypatch.setattr(host_consistency, "all_gather", lambda mine: [mine, change(mine)])

    return answer


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("config.seed", 3, r"process 1 has config.seed=3, process 0 has 0: start the same"),
        ("code", "0" * 16, r"process 1 has code='0000000000000000', process 0 has .*same commit"),
        ("jax", "0.0.1", r"process 1 has jax='0.0.1'"),
        ("--workdir", "elsewhere", r"process 1 has --workdir='elsewhere'"),
        ("checkpoint format", 99, r"process 1 has checkpoint format=99"),
    ],
)
def test_the_first_difference_is_named(name, value, message, others, tiny_config, tmp_path):
    others(lambda facts: facts | {name: value})
    with pytest.raises(LiditError, match=message):
        check_program_consistency(tiny_config(), tmp_path)


def test_equal_hosts_go_on_and_may_keep_their_data_where_they_like(others, tiny_config, tmp_path):
    others(lambda facts: facts)
    check_program_consistency(tiny_config(), tmp_path)


def test_other_data_is_refused(others, tiny_config):
    others(lambda facts: facts | {"training records": 59})
    with pytest.raises(LiditError, match="process 1 has training records=59, process 0 has 60"):
        check_data_consistency(Linear(tiny_config()), 0)


def test_other_image_shapes_are_refused(others, tiny_config):
    others(lambda facts: facts | {"image shapes": "((32, 32),)"})
    with pytest.raises(LiditError, match=r"image shapes='\(\(32, 32\),\)', process 0 has '\(\(48"):
        check_data_consistency(Linear(tiny_config()), 0)


def test_two_processes_with_the_same_records_are_refused(others, tiny_config):
    """The second one believes that it is the first."""
    others(lambda mine: mine)
    with pytest.raises(LiditError, match="batch 5 are not its 16 records, each once: give every"):
        check_data_consistency(Linear(tiny_config()), 5)


def test_two_processes_with_their_own_records_go_on(others, tiny_config):
    task = Linear(tiny_config())

    def second(mine):
        if isinstance(mine, dict):
            return mine
        return task.data.order.batch(5, 1, 2).records.tolist()

    others(second)
    check_data_consistency(task, 5)


def test_two_real_processes_see_the_same_line(tmp_path):
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "lidit_jax.cli", "train", f"--config={RECIPE}"]
    command += [f"--workdir={tmp_path}", "--config.encoders.sources=('none',)"]
    started = []
    for number in range(2):
        variables = {
            "JAX_COORDINATOR_ADDRESS": f"localhost:{port}",
            "JAX_NUM_PROCESSES": "2",
            "JAX_PROCESS_ID": str(number),
            "XLA_FLAGS": xla_flags(1),
        }
        started.append(
            subprocess.Popen(
                [*command, f"--config.seed={7 + number}"],
                env=os.environ | variables,
                cwd=RECIPE.parents[1],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    for process in started:
        output = process.communicate(timeout=280)[0]
        assert process.returncode == 2, output
        assert "lidit: error: process 1 has config.seed=8, process 0 has 7: start the" in output
    assert list(tmp_path.iterdir()) == [], "nothing was written"
