"""`--on=local`: real processes that find each other and train one model."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from tests.faults.runs import RECIPE
from tests.xla_flags import xla_flags

TRAIN = ("train", "--config=demo", "--workdir=x")


def _launch(repository, *arguments, **variables) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "launch/run.py", "--on=local", *arguments],
        cwd=repository,
        env=os.environ | {name: str(value) for name, value in variables.items()},
        capture_output=True,
        text=True,
        timeout=280,
    )


def test_two_processes_train_one_model(repository, tiny_encoders, tmp_path):
    result = _launch(
        *(repository, "--processes=2", "train", f"--config={RECIPE}"),
        *(f"--workdir={tmp_path / 'run'}", f"--config.encoders.sources=('{tiny_encoders[0]}',)"),
        *(f"--config.data.cache_dir={tmp_path / 'data'}", "--config.training.steps=2"),
        "--config.optimizer.warmup_steps=1",
        *("--config.model.depth=1", "--config.sampling.steps=1", "--config.sampling.guidance=1.0"),
        *("--config.data.train_records=16", "--config.data.validation_records=8"),
        LIDIT_VENV=sys.prefix,
        XLA_FLAGS=xla_flags(),
    )
    assert result.returncode == 0, result.stderr[-2000:]
    assert result.stdout.count("starting at step 0") == 1, "only process 0 is heard"
    records = map(json.loads, (tmp_path / "run" / "metrics.jsonl").read_text().splitlines())
    assert [record["step"] for record in records if "loss" in record] == [1, 2]


def test_the_process_that_fails_is_heard_and_ends_the_job(repository, tmp_path):
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "python"
    program.write_text(
        "#!/usr/bin/env bash\n"
        "[[ $JAX_PROCESS_ID == 0 ]] && exec sleep 60\n"
        "echo 'no such chip'; exit 3\n"
    )
    program.chmod(0o755)
    result = _launch(repository, "--processes=2", *TRAIN, LIDIT_VENV=tmp_path)
    assert result.returncode == 3
    assert "process 1 ended with status 3\nno such chip" in result.stderr


def test_ctrl_c_lets_every_process_save(repository, tmp_path):
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "python"
    program.write_text(
        "#!/usr/bin/env bash\n"
        f"cd {tmp_path}\n"
        "trap 'touch \"saved$JAX_PROCESS_ID\"; kill %1; exit 0' TERM\n"
        'sleep 60 & touch "started$JAX_PROCESS_ID"; wait\n'
    )
    program.chmod(0o755)
    launch = subprocess.Popen(
        [sys.executable, "launch/run.py", "--on=local", "--processes=2", *TRAIN],
        cwd=repository,
        env=os.environ | {"LIDIT_VENV": str(tmp_path)},
    )
    deadline = time.monotonic() + 60
    while len(list(tmp_path.glob("started?"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    launch.send_signal(signal.SIGINT)
    assert launch.wait(60) == 130
    assert len(list(tmp_path.glob("saved?"))) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "what to run?"),
        (("train", "--workdir=x"), "needs --config"),
        (("train", "--config=demo"), "needs --workdir"),
        ((*TRAIN, "--dry-run"), "--dry-run belongs before train: it is an option of the launcher"),
        ((*TRAIN, "--processes=2"), "--processes belongs before train"),
        ((*TRAIN, "--name", "x"), "--name belongs before train"),
    ],
)
def test_mistakes_are_one_line(repository, arguments, message):
    result = _launch(repository, *arguments)
    assert result.returncode == 2
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1
