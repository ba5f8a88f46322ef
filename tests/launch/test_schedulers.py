"""GKE and Slurm: followed to the end, and nothing left when a tool fails or Ctrl-C comes."""

import pytest


def _gke(cloud) -> tuple[str, ...]:
    return (
        *("--on=gke", "--cluster=c", "--accelerator=v6e-16", "--zone=us-east5-b"),
        *("--image=registry/lidit", "train", "--config=configs/demo.py"),
        "--workdir=gs://bucket/runs/first",
    )


def _slurm(cloud) -> tuple[str, ...]:
    workdir = cloud.folder / "shared" / "first"
    workdir.parent.mkdir(exist_ok=True)
    return (
        *("--on=slurm", "--poll-seconds=0.01", "train", "--config=configs/demo.py"),
        f"--workdir={workdir}",
    )


@pytest.mark.parametrize("place", [_gke, _slurm])
@pytest.mark.parametrize("what", ["FAKE_FAIL", "FAKE_INTERRUPT"])
def test_no_call_that_fails_or_is_interrupted_leaves_anything(cloud, place, what):
    arguments = place(cloud)
    assert cloud.launch(*arguments) == 0, cloud.errors
    assert cloud.left() == []
    for number, call in enumerate(cloud.calls(), start=1):
        cloud.forget()
        status = cloud.launch(*arguments, **{what: number})
        assert cloud.left() == [], f"left behind when this went wrong: {call}"
        assert status == 130 if what == "FAKE_INTERRUPT" else status in (0, 1, 2), call
        assert "Traceback" not in cloud.errors


def test_a_detached_job_is_left_alone(cloud):
    assert cloud.launch("--detach", *_slurm(cloud)) == 0
    assert cloud.left() == ["17"]
    assert "job 17" in cloud.output


def test_a_detached_workload_is_left_alone(cloud):
    assert cloud.launch("--detach", *_gke(cloud)) == 0
    assert cloud.left() == ["lidit-first"]


def test_gke_says_what_it_needs(cloud):
    train = ("train", "--config=configs/demo.py", "--workdir=gs://bucket/x")
    assert cloud.launch("--on=gke", *train) == 2
    assert "--on=gke needs --cluster" in cloud.errors
