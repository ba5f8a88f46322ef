"""GKE and Slurm: followed to the end, and nothing left when a tool fails or Ctrl-C comes."""

import pytest

FAIL, INTERRUPT = ("FAKE_FAIL",), ("FAKE_INTERRUPT",)


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
@pytest.mark.parametrize("what", [FAIL, INTERRUPT, (*FAIL, *INTERRUPT)], ids="-".join)
def test_no_call_that_fails_or_is_interrupted_leaves_anything(cloud, place, what):
    arguments = place(cloud)
    assert cloud.launch(*arguments) == 0, cloud.errors
    assert cloud.left() == []
    for number, call in enumerate(cloud.calls(), start=1):
        cloud.forget()
        status = cloud.launch(*arguments, **dict.fromkeys(what, number))
        assert cloud.left() == [], f"left behind when this went wrong: {call}"
        assert status == 130 if "FAKE_INTERRUPT" in what else status in (0, 1, 2), call
        assert "Traceback" not in cloud.errors


def test_a_detached_job_is_left_alone(cloud):
    assert cloud.launch("--detach", *_slurm(cloud)) == 0
    assert cloud.left() == ["17"]
    assert "job 17" in cloud.output


def test_a_detached_workload_is_left_alone(cloud):
    assert cloud.launch("--detach", *_gke(cloud)) == 0
    assert cloud.left() == ["lidit-first"]


@pytest.mark.parametrize(("place", "thing"), [(_gke, "lidit-first"), (_slurm, "17")])
def test_a_name_in_use_is_neither_taken_nor_deleted(cloud, place, thing):
    assert cloud.launch("--detach", *place(cloud)) == 0
    assert cloud.launch(*place(cloud)) == 2
    assert "lidit-first exists already" in cloud.errors
    assert cloud.left() == [thing]


def test_gke_names_a_zone_without_the_cluster_before_anything_is_built(cloud):
    assert cloud.launch(*_gke(cloud)[:3], "--zone=nowhere", *_gke(cloud)[4:]) == 2
    assert "no cluster c there" in cloud.errors
    assert len(cloud.errors.splitlines()) == 1
    assert not any(call.startswith("docker") for call in cloud.calls())


def test_gke_takes_one_zone(cloud):
    assert cloud.launch(*_gke(cloud)[:3], "--zone=a,b", *_gke(cloud)[4:]) == 2
    assert "--zone=a,b: on GKE name one zone, that of the cluster" in cloud.errors
    assert cloud.calls() == []


def test_a_stage_that_was_broken_off_is_unpacked_again(cloud):
    assert cloud.launch("--detach", *_slurm(cloud)) == 0
    (stage,) = (cloud.folder / "shared").glob("lidit-*")
    assert (stage / "configs" / "demo.py").is_file()
    stage.rename(f"{stage}.part")
    (cloud.folder / "things" / "17").unlink()
    assert cloud.launch("--detach", *_slurm(cloud)) == 0
    assert (stage / "configs" / "demo.py").is_file()


def test_gke_says_what_it_needs(cloud):
    train = ("train", "--config=configs/demo.py", "--workdir=gs://bucket/x")
    assert cloud.launch("--on=gke", *train) == 2
    assert "--on=gke needs --cluster" in cloud.errors
