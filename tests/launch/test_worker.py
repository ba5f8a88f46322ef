"""What runs on a worker: scripts that can be started again at any moment."""

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest


@pytest.fixture
def worker(repository, tmp_path):
    """`launch/worker.sh` beside a `lidit` that takes a second and then ends as told."""
    (tmp_path / "launch").mkdir()
    shutil.copy(repository / "launch" / "worker.sh", tmp_path / "launch")
    lidit = tmp_path / ".venv" / "bin" / "lidit"
    lidit.parent.mkdir(parents=True)
    lidit.write_text('#!/usr/bin/env bash\necho "started $*"\nsleep 1\nexit "${2#--status=}"\n')
    lidit.chmod(0o755)

    def call(*arguments: str, **options) -> subprocess.CompletedProcess:
        script = str(Path("launch") / "worker.sh")
        return subprocess.run(
            ["bash", script, *arguments], cwd=tmp_path, capture_output=True, text=True, **options
        )

    return call


def test_the_run_is_shown_and_its_status_returned(worker):
    result = worker("follow", "--", "train", "--status=3")
    assert result.returncode == 3
    assert result.stdout == "started train --status=3\n"
    assert worker("status").stdout == "3\n"


def test_a_lost_connection_finds_the_same_run_again(worker):
    with pytest.raises(subprocess.TimeoutExpired):
        worker("follow", "--", "train", "--status=0", timeout=0.5)
    assert worker("status").stdout == "running\n"
    result = worker("follow", "--", "train", "--status=0")
    assert result.returncode == 0
    assert result.stdout.count("started") == 1
    assert worker("follow", "--", "train", "--status=0").stdout.count("started") == 1


def test_a_run_that_failed_is_started_again(worker):
    worker("follow", "--", "train", "--status=3")
    assert worker("follow", "--", "train", "--status=3").stdout.count("started") == 2


def test_set_up_twice_installs_once(repository, tmp_path):
    python = _recorded_python(repository, tmp_path)
    for _ in range(2):
        subprocess.run(
            ["bash", "launch/setup_worker.sh", "--platform=tpu", "--store=gcs"],
            cwd=tmp_path,
            check=True,
            capture_output=True,
        )
    installs = [line for line in _lines(python) if " install " in line]
    assert len(installs) == 2, "packages, then the encoders' weights"
    assert f"--editable {tmp_path}[tpu,gcs]" in installs[0]
    assert installs[0].startswith(f"{tmp_path}/launch/constraints.txt ")


@pytest.mark.parametrize(("platform", "extras"), [("tpu", "[tpu,gcs]"), ("cuda", "[cuda,gcs,s3]")])
def test_the_quick_start_in_an_image_installs_nothing(repository, tmp_path, platform, extras):
    """The image's own variables and set-up, then what `launch/quickstart.sh` does first."""
    python = _recorded_python(repository, tmp_path)
    dockerfile = (repository / "launch" / "docker" / f"{platform}.Dockerfile").read_text()
    variables = dict(re.findall(r"(LIDIT_\w+)=(\S+)", dockerfile))
    (tmp_path / "bin").mkdir()
    no_driver = tmp_path / "bin" / "nvidia-smi"
    no_driver.write_text("#!/usr/bin/env bash\nexit 9\n")
    no_driver.chmod(0o755)
    for command in (
        re.search(r"bash (launch/setup_worker.sh --platform=\w+)", dockerfile)[1],
        "-c 'source launch/_environment.sh && install_environment run'",
    ):
        result = subprocess.run(
            ["bash", *shlex.split(command)],
            cwd=tmp_path,
            env=os.environ | variables | {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"},
            check=True,
            capture_output=True,
            text=True,
        )
    assert "packages are up to date" in result.stdout
    installs = [line for line in _lines(python) if " install " in line]
    assert len(installs) == 2
    assert f"--editable {tmp_path}{extras}" in installs[0]


def test_set_up_refuses_an_unknown_platform(repository):
    result = subprocess.run(
        ["bash", "launch/setup_worker.sh", "--platform=abacus"],
        cwd=repository,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 2
    assert "--platform=tpu, cuda or cpu" in result.stderr


def _recorded_python(repository: Path, root: Path) -> Path:
    """A checkout whose environment has a pip that only writes down what it was asked for."""
    shutil.copytree(repository / "launch", root / "launch")
    shutil.copy(repository / "pyproject.toml", root)
    python = root / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/usr/bin/env bash\necho "$PIP_CONSTRAINT $*" >>"$0.calls"\n')
    python.chmod(0o755)
    return python


def _lines(python: Path) -> list[str]:
    return python.with_name("python.calls").read_text().splitlines()
