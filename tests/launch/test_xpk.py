"""XPK itself reads what `--on=gke` would call, in its own dry-run, without a cluster or network.

    python -m venv /tmp/xpk && /tmp/xpk/bin/pip install xpk==1.16.0
    LIDIT_XPK=/tmp/xpk/bin/xpk python -m pytest tests/launch/test_xpk.py

Skipped where there is no XPK; its many dependencies are best kept out of our environment.
"""

import os
import shlex
import shutil
import subprocess

import pytest

from tests.launch.test_dry_run import CASES

XPK = os.environ.get("LIDIT_XPK") or shutil.which("xpk")
pytestmark = pytest.mark.skipif(XPK is None, reason="xpk is not installed")


def test_xpk_accepts_what_is_generated(cloud, tmp_path):
    assert cloud.launch(*CASES["gke"]) == 0, cloud.errors
    shown = [shlex.split(line) for line in cloud.output.splitlines() if line.startswith("xpk ")]
    assert [command[2] for command in shown] == ["list", "create", "list", "delete"]
    manifest = tmp_path / "manifest.yaml"
    for command in shown:
        only_look = ["--dry-run", "--skip-validation"]
        if command[2] == "create":
            only_look.append(f"--output-manifest-file={manifest}")
        if "--wait-for-job-completion=lidit-first" in command:
            command.remove("--wait-for-job-completion=lidit-first")  # a dry-run finds no workload
        result = subprocess.run(
            [XPK, *command[1:], *only_look],
            env=os.environ | {"HOME": str(tmp_path)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-2000:]
    made = manifest.read_text()
    assert "kind: JobSet" in made
    assert "maxRestarts: 50" in made
    assert "stacktrace-explorer" in made
    assert "143" in made.partition("values: [")[2].partition("]")[0], "a stopped run is restarted"
    assert "lidit train --config=configs/demo.py" in made
