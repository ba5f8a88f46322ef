"""`--dry-run` prints every command and file; the goldens are what it printed when last reviewed.

UPDATE_GOLDENS=1 python -m pytest tests/launch/test_dry_run.py      writes them anew
"""

import os
import re
import subprocess
from pathlib import Path

import pytest

GOLDEN = Path(__file__).parent / "golden"
TRAIN = ("train", "--config=configs/demo.py", "--config.training.prompts=('a red circle',)")
BUCKET = (*TRAIN, "--workdir=gs://bucket/runs/first")
SHARED = (*TRAIN, "--workdir=/shared/runs/first")
TPU = ("--zone=us-east5-b", "--project=p", "--dry-run")
CASES = {
    "tpu_vm": ("--on=tpu-vm", "--accelerator=v6e-64", *TPU, *BUCKET),
    "tpu_vm_multislice_spot": (
        *("--on=tpu-vm", "--accelerator=v5p-256", "--slices=2", "--capacity=spot"),
        *(*TPU, *BUCKET),
    ),
    "tpu_vm_reserved": (
        *("--on=tpu-vm", "--accelerator=v5litepod-16", "--capacity=reserved"),
        *(*TPU, *BUCKET),
    ),
    "tpu_vm_zones": (
        *("--on=tpu-vm", "--accelerator=v6e-64", *TPU, "--zone=us-east5-b,us-east1-d"),
        *BUCKET,
    ),
    "gke": (
        *("--on=gke", "--cluster=c", "--accelerator=v6e-256", "--slices=2", "--capacity=spot"),
        *("--image=us-docker.pkg.dev/p/images/lidit", *TPU, *BUCKET),
    ),
    "slurm_process_per_gpu": (
        *("--on=slurm", "--nodes=4", "--gpus-per-node=8", "--sbatch=--partition=gpu"),
        *("--dry-run", *SHARED),
    ),
    "slurm_process_per_node": (
        *("--on=slurm", "--nodes=2", "--gpus-per-node=4", "--process-per=node"),
        *("--dry-run", *SHARED),
    ),
    "slurm_bucket": (*("--on=slurm", "--dry-run", *TRAIN, "--workdir=s3://bucket/runs/first"),),
    "docker": ("--on=docker", "--dry-run", *SHARED),
    "docker_bucket": ("--on=docker", "--dry-run", *BUCKET),
    "local": ("--on=local", "--processes=2", "--dry-run", *SHARED),
}


@pytest.mark.parametrize("case", CASES)
def test_dry_run_prints_what_was_reviewed_and_runs_nothing(cloud, case):
    assert cloud.launch(*CASES[case], HOME="/home/someone", LIDIT_VENV="/none") == 0, cloud.errors
    assert cloud.calls() == []
    shown = _without_what_changes(cloud.output, cloud.checkout)
    golden = GOLDEN / f"{case}.txt"
    if os.environ.get("UPDATE_GOLDENS"):
        golden.write_text(shown)
    assert shown == golden.read_text()


def _without_what_changes(output: str, checkout: Path) -> str:
    commit = subprocess.run(
        ("git", "rev-parse", "--short=12", "HEAD"), cwd=checkout, capture_output=True, text=True
    ).stdout.strip()
    for pattern, name in (
        (commit, "COMMIT"),
        (re.escape(str(checkout.parent)), "FOLDER"),
        (r"/\S*/lidit-\w{8}/", "TEMPORARY/"),
        (r"localhost:\d+", "localhost:PORT"),
        (r"\S+/bin/python[\d.]*", "PYTHON"),
        (r"--user=\d+:\d+", "--user=USER"),
    ):
        output = re.sub(pattern, name, output)
    return output
