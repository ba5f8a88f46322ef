"""TPU VMs: asked for, set up, lost, asked for again, given back, whatever goes wrong."""

import shutil
import subprocess

import pytest

FAIL, INTERRUPT = ("FAKE_FAIL",), ("FAKE_INTERRUPT",)
PLACE = ("--on=tpu-vm", "--accelerator=v6e-16", "--zone=us-east5-b", "--poll-seconds=0.01")
TRAIN = ("train", "--config=configs/demo.py", "--workdir=gs://bucket/runs/first")


def _verbs(cloud) -> list[str]:
    """The calls in short: create, describe, scp, ssh, delete."""
    return [call.split()[4] for call in cloud.calls() if "queued-resources" in call]


def test_a_preempted_run_is_asked_for_again_and_ends_with_nothing_left(cloud):
    (cloud.folder / "preemptions").write_text("one\n")
    assert cloud.launch(*PLACE, "--capacity=spot", *TRAIN) == 0
    once = ["create", "describe", "describe", "scp", "ssh", "ssh", "ssh"]
    assert _verbs(cloud) == ["describe", *once, "describe", "delete", *once, "delete"]
    follow = [call for call in cloud.calls() if "worker.sh follow" in call]
    assert len(follow) == 2
    assert follow[0] == follow[1], "the same command resumes"
    assert "--workdir=gs://bucket/runs/first" in follow[0]
    assert cloud.left() == []


def test_a_run_that_saved_itself_in_time_is_not_taken_for_finished(cloud):
    (cloud.folder / "preemptions").write_text("saved\ntaken\n")
    assert cloud.launch(*PLACE, "--capacity=spot", *TRAIN) == 0
    assert _verbs(cloud).count("create") == 2
    assert sum("LIDIT_STOPPED_STATUS=143" in call for call in cloud.calls()) == 3 + 1
    assert cloud.left() == []


def test_too_many_preemptions_end_the_launch(cloud):
    (cloud.folder / "preemptions").write_text("one\ntwo\n")
    assert cloud.launch(*PLACE, "--restarts=1", *TRAIN) == 2
    assert "preempted 2 times" in cloud.errors
    assert cloud.left() == []


def test_the_status_of_training_is_the_status_of_the_launch(cloud):
    assert cloud.launch(*PLACE, *TRAIN, FAKE_STATUS=7) == 7
    assert cloud.left() == []


@pytest.mark.parametrize("what", [FAIL, INTERRUPT, (*FAIL, *INTERRUPT)], ids="-".join)
def test_no_call_that_fails_or_is_interrupted_leaves_anything(cloud, what):
    assert cloud.launch(*PLACE, *TRAIN) == 0
    calls = cloud.calls()
    for number, call in enumerate(calls, start=1):
        cloud.forget()
        status = cloud.launch(*PLACE, *TRAIN, **dict.fromkeys(what, number))
        assert cloud.left() == [], f"left behind when this went wrong: {call}"
        if "FAKE_INTERRUPT" in what:
            assert status == 130, call
        else:
            assert status in (0, 1, 2), f"{call}\n{cloud.errors}"
        assert "Traceback" not in cloud.errors


@pytest.mark.parametrize(
    ("place", "train", "message"),
    [
        (("--zone=nowhere",), (), "zone nowhere does not offer v6e-16"),
        ((), ("--workdir=gs://missing/run",), "bucket gs://missing cannot be read"),
        (
            (),
            ("--workdir=gs://private/run",),
            "no account is active (ERROR: (gcloud) You do not currently have an active account "
            "selected.): run `gcloud auth login`",
        ),
        ((), ("--workdir=runs/here",), "would be lost with the machines"),
        ((), ("--workdir=gs://bucket",), "name a folder in a bucket"),
        (
            (),
            ("--workdir=gs://BUCKET/runs/first",),
            "BUCKET is not a valid bucket name (lower-case",
        ),
        (("--zone=poor",), (), "no quota for v6e-16 (on-demand) in poor: ERROR: Quota limit"),
        (("--accelerator=v9-8",), (), "--accelerator=v9-8 is not known"),
        (("--accelerator=tpu7x-8",), (), "use --on=gke"),
        (("--name=Bad_Name",), (), "--name=Bad_Name"),
        (("--zone=us-east5-b,",), (), "which zone? --zone=us-east5-b"),
        (("--zone=a,b,a",), (), "--zone=a,b,a: a zone is given twice"),
        (("--zone=us-east5-b,nowhere",), (), "zone nowhere does not offer v6e-16"),
        (("--zone=poor,broken",), (), "the request for v6e-16 in broken failed: try another zone"),
        ((), ("--config=/elsewhere/x.py:v5e",), "name a recipe by its path inside the repository"),
        ((), ("--config=configs/ignored.py",), "name a recipe by its path inside the repository"),
    ],
)
def test_mistakes_are_one_line_and_nothing_is_created(cloud, place, train, message):
    given = {argument.partition("=")[0]: argument for argument in (*TRAIN[1:], *train)}
    assert cloud.launch(*PLACE, *place, "train", *given.values()) == 2
    assert message in cloud.errors
    assert len(cloud.errors.splitlines()) == 1
    assert cloud.left() == []


def test_a_name_in_use_is_neither_taken_nor_deleted(cloud):
    (cloud.folder / "things" / "lidit-first").write_text("ACTIVE\n")
    assert cloud.launch(*PLACE, *TRAIN) == 2
    assert "lidit-first exists already (ACTIVE)" in cloud.errors
    assert cloud.left() == ["lidit-first"]


def _zones(cloud, verb: str) -> list[str]:
    """The zones that were named to a verb, in order."""
    calls = [call for call in cloud.calls() if f"queued-resources {verb} " in call]
    return [part[7:] for call in calls for part in call.split() if part.startswith("--zone=")]


@pytest.mark.parametrize(
    ("unhelpful", "minutes", "reason"),
    [
        ("poor", 30, "no quota for v6e-16 (on-demand) in poor"),
        ("broken", 30, "the request for v6e-16 in broken failed"),
        ("full", 0, "no v6e-16 in full within 0 minutes"),
    ],
)
def test_the_next_zone_is_tried_where_one_gives_nothing(cloud, unhelpful, minutes, reason):
    zones = (f"--zone={unhelpful},us-east5-b", f"--zone-minutes={minutes}")
    assert cloud.launch(*PLACE, *zones, *TRAIN) == 0, cloud.errors
    assert reason in cloud.output
    assert "trying us-east5-b" in cloud.output
    assert _zones(cloud, "create") == [unhelpful, "us-east5-b"]
    assert _zones(cloud, "delete") == [unhelpful, "us-east5-b"], "each where it was asked for"
    assert set(_zones(cloud, "ssh")) == {"us-east5-b"}
    assert cloud.left() == []


def test_after_a_preemption_the_preferred_zone_comes_first_again(cloud):
    (cloud.folder / "preemptions").write_text("one\n")
    assert cloud.launch(*PLACE, "--zone=poor,us-east5-b", *TRAIN) == 0
    assert _zones(cloud, "create") == ["poor", "us-east5-b"] * 2
    assert cloud.left() == []


@pytest.mark.parametrize("what", [FAIL, INTERRUPT], ids="-".join)
def test_nothing_is_left_in_any_of_the_zones(cloud, what):
    place = (*PLACE, "--zone=full,us-east5-b", "--zone-minutes=0")
    assert cloud.launch(*place, *TRAIN) == 0
    calls = cloud.calls()
    first, second = (i for i, call in enumerate(calls, start=1) if " create " in call)
    for number in range(first, second + 2):
        call = calls[number - 1]
        cloud.forget()
        status = cloud.launch(*place, *TRAIN, **dict.fromkeys(what, number))
        assert cloud.left() == [], f"left behind when this went wrong: {call}"
        assert status == 130 if "FAKE_INTERRUPT" in what else status in (0, 1, 2), call
        assert "Traceback" not in cloud.errors


def test_a_dirty_work_tree_is_refused_before_anything_else(cloud, tmp_path):
    cloud.checkout = shutil.copytree(cloud.checkout, tmp_path / "dirty")
    (cloud.checkout / "configs" / "mine.py").write_text("changed = True\n")
    assert cloud.launch(*PLACE, *TRAIN) == 2
    assert "not committed: configs/mine.py" in cloud.errors
    assert cloud.calls() == []


def test_a_bucket_that_is_named_as_a_folder_is_mounted(cloud):
    data = "--config.data.path=/gcs/pictures/cats"
    assert cloud.launch(*PLACE, *TRAIN, data) == 0
    setup = next(call for call in cloud.calls() if "setup_worker.sh" in call)
    assert "setup_worker.sh --platform=tpu --store=gcs --mount=pictures --compile-cache" in setup


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "data.path=/home/me/cats",
            "config.data.path=/home/me/cats is on this machine, and only the commit is copied to "
            "the others: copy it to a bucket and name it as /gcs/BUCKET/FOLDER",
        ),
        ("data.path=cats", "config.data.path=cats is on this machine"),
        ("encoders.sources=('smollm2', '~/my-llm')", "config.encoders.sources=~/my-llm is on this"),
        ("encoders.sources=('llm.gguf',)", "name its hub id, or copy it to a bucket and name it"),
        ("vae.source=runs/vae/exported", "config.vae.source=runs/vae/exported is on this machine"),
        ("vae.source=ignored/vae", "config.vae.source=ignored/vae is on this machine"),
        ("training.init_from=runs/demo", "copy it to a bucket and name it as gs://BUCKET/FOLDER"),
    ],
)
def test_what_nothing_copies_there_is_refused_in_the_dry_run_too(cloud, override, message):
    assert cloud.launch(*PLACE, "--dry-run", *TRAIN, f"--config.{override}") == 2
    assert message in cloud.errors
    assert len(cloud.errors.splitlines()) == 1
    assert cloud.launch(*PLACE, "--dry-run", *TRAIN, *f"--config.{override}".split("=", 1)) == 2
    assert cloud.output == ""


def test_a_choice_of_the_recipe_counts_too(cloud):
    chosen = (TRAIN[0], f"{TRAIN[1]}:pairs", TRAIN[2])
    assert cloud.launch(*PLACE, "--dry-run", *chosen) == 2
    assert "config.training.init_from=runs/demo is on this machine" in cloud.errors
    override = "--config.training.init_from=gs://bucket/runs/demo"
    assert cloud.launch(*PLACE, "--dry-run", *chosen, override) == 0


@pytest.mark.parametrize(
    "override",
    [
        "data.path=/gcs/pictures/cats",
        "data.path=configs",
        "encoders.sources=('smollm2', 'Qwen/Qwen3-0.6B', '/gcs/models/llm')",
        "vae.source=pixels",
        "vae.source=madebyollin/taef1",
        "training.init_from=gs://bucket/runs/512px",
        "training.init_from=demo",
    ],
)
def test_what_is_there_passes(cloud, override):
    """Hub ids, buckets, packaged names, and what the commit holds."""
    assert cloud.launch(*PLACE, "--dry-run", *TRAIN, f"--config.{override}") == 0, cloud.errors


def test_what_is_staged_is_the_commit(cloud):
    commit = subprocess.run(
        ("git", "rev-parse", "HEAD"), cwd=cloud.checkout, capture_output=True, text=True
    ).stdout
    assert cloud.launch(*PLACE, *TRAIN) == 0
    copies = [call for call in cloud.calls() if " scp " in call]
    assert f"lidit-{commit[:12]}.tar.gz" in copies[0]
