"""Two real processes of four devices each train one model, stop, and go on as one of eight."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.faults.runs import RECIPE, saved_arrays, unequal
from tests.xla_flags import xla_flags

STEPS = 6


class Job:
    """`lidit train` of the tiny recipe on some processes with eight devices in all."""

    def __init__(self, folder: Path, encoder: str, workdir: str):
        self.folder, self.workdir, self._encoder = folder, folder / workdir, encoder

    def start(self, processes: int, *overrides: str) -> str:
        """Runs to the end; returns what process 0 printed."""
        started = self.begin(processes, *overrides)
        outputs = [process.communicate(timeout=300)[0] for process in started]
        assert [process.returncode for process in started] == [0] * processes, outputs
        return outputs[0]

    def begin(self, processes: int, *overrides: str) -> list[subprocess.Popen]:
        """The processes, as they start."""
        with socket.socket() as probe:
            probe.bind(("localhost", 0))
            port = probe.getsockname()[1]
        command = [sys.executable, "-m", "lidit_jax.cli", "train", f"--config={RECIPE}"]
        command += [f"--workdir={self.workdir}", f"--config.encoders.sources=('{self._encoder}',)"]
        command += [f"--config.data.cache_dir={self.folder / 'data'}", "--config.mesh.fsdp=2"]
        command += [f"--config.training.steps={STEPS}", "--config.training.checkpoint_every=3"]
        command += ["--config.optimizer.warmup_steps=1", "--config.training.image_every=0"]
        command += [f"--config.{override}" for override in overrides]
        started = []
        for number in range(processes):
            environment = os.environ | {
                "XLA_FLAGS": xla_flags(8 // processes),
                "JAX_COMPILATION_CACHE_DIR": str(self.folder / "xla"),
            }
            if processes > 1:
                environment |= {
                    "JAX_COORDINATOR_ADDRESS": f"localhost:{port}",
                    "JAX_NUM_PROCESSES": str(processes),
                    "JAX_PROCESS_ID": str(number),
                }
            started.append(
                subprocess.Popen(
                    command,
                    env=environment,
                    cwd=RECIPE.parents[1],
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                )
            )
        return started

    def losses(self) -> dict[int, float]:
        """Training loss by step."""
        records = map(json.loads, (self.workdir / "metrics.jsonl").read_text().splitlines())
        return {record["step"]: record["loss"] for record in records if "loss" in record}


@pytest.fixture(scope="module")
def job(tmp_path_factory, tiny_encoders):
    folder = tmp_path_factory.mktemp("processes")
    return lambda workdir: Job(folder, tiny_encoders[0], workdir)


@pytest.fixture(scope="module")
def undisturbed(job):
    """Two processes, never stopped, which draw pictures at their end."""
    run = job("undisturbed")
    run.start(2, f"training.image_every={STEPS}")
    assert (run.workdir / "images" / f"step_{STEPS:06d}.png").exists()
    return run


@pytest.fixture(scope="module")
def halfway(undisturbed, job):
    """`halfway("name")`: a job whose workdir knows nothing beyond step 3 of the other one."""

    def halfway(workdir):
        run = job(workdir)
        place = Path("checkpoints", "3")
        shutil.copytree(undisturbed.workdir / place, run.workdir / place)
        return run

    return halfway


def later(losses, last=STEPS):
    """Losses of the steps after the third."""
    return {step: loss for step, loss in losses.items() if 3 < step <= last}


def test_two_processes_go_on_to_the_bit(undisturbed, halfway):
    resumed = halfway("resumed")
    assert "resuming at step 3" in resumed.start(2)
    expected, got = (saved_arrays(run.workdir, STEPS) for run in (undisturbed, resumed))
    assert unequal(expected, got) == []
    assert resumed.losses() == later(undisturbed.losses())


def test_one_process_of_eight_devices_goes_on_with_the_same_losses(undisturbed, halfway):
    alone = halfway("alone")
    assert "resuming at step 3" in alone.start(1)
    assert alone.losses() == pytest.approx(later(undisturbed.losses()), rel=1e-5)


def test_weights_split_over_both_processes_give_the_same_losses(undisturbed, job, tmp_path):
    """From an empty cache: each process prepares with the encoder on its own four devices."""
    split = job("split")
    split.start(2, "training.steps=2", "mesh.fsdp=8", f"data.cache_dir={tmp_path}")
    expected = {step: loss for step, loss in undisturbed.losses().items() if step <= 2}
    assert split.losses() == pytest.approx(expected, rel=1e-5)


def test_two_processes_may_go_on_encoding_captions_themselves(undisturbed, halfway):
    """Whose features the first three steps read from the disk; the encoder is split over both."""
    online = halfway("online")
    online.start(2, "training.steps=4", "data.text_features=online", "data.encode_steps=2")
    assert online.losses() == pytest.approx(later(undisturbed.losses(), 4), rel=1e-5)


def test_a_slice_whose_disk_is_lost_goes_on_from_the_other(undisturbed, job):
    """Both are killed with step 4 on their disks, of which the workdir has only step 3."""
    run = job("slices")
    local = run.folder / "local"
    settings = ("mesh.replica=2", f"training.local_checkpoints={local}", "training.local_every=2")
    started = run.begin(2, *settings)
    while len(list(local.glob("*/4"))) < 2 and all(process.poll() is None for process in started):
        time.sleep(0.005)
    for process in started:
        process.kill()
    outputs = [process.communicate()[0] for process in started]
    assert len(list(local.glob("*/4"))) == 2, outputs
    assert [folder.name for folder in run.workdir.glob("checkpoints/[0-9]")] == ["3"]
    (first,) = local.glob("*-0")
    shutil.rmtree(first)
    assert "resuming at step 4" in run.start(2, *settings)
    expected, got = (saved_arrays(each.workdir, STEPS) for each in (undisturbed, run))
    assert unequal(expected, got) == []
    assert run.losses() == undisturbed.losses()


def test_half_a_set_of_variables_is_refused(job, monkeypatch):
    monkeypatch.setenv("JAX_NUM_PROCESSES", "2")
    command = [sys.executable, "-m", "lidit_jax.cli", "train", f"--config={RECIPE}"]
    command += [f"--workdir={job('refused').workdir}"]
    result = subprocess.run(command, capture_output=True, text=True, cwd=RECIPE.parents[1])
    assert result.returncode == 2
    wanted = r"JAX_NUM_PROCESSES set without JAX_COORDINATOR_ADDRESS, JAX_PROCESS_ID: set all three"
    assert re.search(wanted, result.stderr)
