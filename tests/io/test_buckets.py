"""Runs, prepared data and outputs in a bucket.

The stores are stand-ins on this machine (`tests/fake_gcs.py`, moto); the clients are the real ones:
Orbax with TensorStore's drivers, and gcsfs and s3fs behind etils' paths.
"""

import json

import jax
import numpy as np
import pytest

from lidit_jax.checkpoints.opener import open_model
from lidit_jax.checkpoints.orbax import Checkpoints
from lidit_jax.cli import main
from lidit_jax.io.bucket_sync import Staging
from lidit_jax.io.output import atomic_file, atomic_path, writable_folder
from lidit_jax.io.paths import to_path
from lidit_jax.training.loop import train
from tests.checkpoints.test_orbax import KEEP, SHAPES, state
from tests.stores import gcs_store, s3_store


@pytest.fixture(scope="module")
def store():
    """An empty bucket named "bucket"."""
    with gcs_store() as store:
        yield store


def test_an_object_appears_whole_or_not_at_all(store):
    folder = to_path("gs://bucket/output")
    with writable_folder(folder, "--out"), atomic_file(folder / "a.txt") as file:
        file.write(b"first")
        assert store.names("bucket", "output") == []
    assert store.read("bucket", "output/a.txt") == b"first"
    broken_off = atomic_file(folder / "b.txt")
    broken_off.__enter__().write(b"half")
    assert not broken_off.__exit__(ZeroDivisionError, ZeroDivisionError(), None)
    assert store.names("bucket", "output") == ["output/a.txt"]


@pytest.mark.parametrize("place", ["bucket", "disk"])
def test_a_file_written_by_name_appears_whole_or_not_at_all(store, place, tmp_path):
    folder = to_path("gs://bucket/named") if place == "bucket" else tmp_path

    def write_half():
        with atomic_path(folder / "broken") as local:
            local.write_bytes(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert not (folder / "broken").exists()
    with atomic_path(folder / "whole") as local:
        assert local.parent.is_dir()
        local.write_bytes(b"all of it")
        assert not (folder / "whole").exists()
    assert (folder / "whole").read_bytes() == b"all of it"
    assert [path.name for path in folder.iterdir()] == ["whole"]


def test_a_missing_bucket_is_one_line_and_is_not_made(store, capsys):
    assert main(["train", "--config=demo", "--workdir=gs://missing/run"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("lidit: error: --workdir: cannot write to gs://missing/run (")
    assert error.endswith("does the bucket exist, and do your credentials let you write to it?\n")
    assert list(store.buckets) == ["bucket"]


def test_checkpoints_count_once_their_last_object_is_there(store):
    workdir = to_path("gs://bucket/checkpoints-only")
    with Checkpoints(workdir, KEEP) as checkpoints:
        for step in range(1, 4):
            checkpoints.save(step, state(step), {"config": {"seed": step}})
    with Checkpoints(workdir) as checkpoints:
        assert checkpoints.steps() == [2, 3]
        assert checkpoints.metadata(3)["config"] == {"seed": 3}
        jax.tree.map(np.testing.assert_array_equal, checkpoints.restore(3, SHAPES), state(3))
    (workdir / "checkpoints" / "3" / "commit_success.txt").unlink()
    with Checkpoints(workdir) as checkpoints:
        assert checkpoints.steps() == [2]
    with Checkpoints(workdir, KEEP) as checkpoints:
        checkpoints.save(3, state(7), {})
    with Checkpoints(workdir) as checkpoints:
        assert checkpoints.restore(3, SHAPES).step == 7


def test_what_grows_is_copied_again_and_a_store_that_refuses_costs_no_run(store, capsys):
    with Staging(to_path("gs://bucket/growing")) as staging:
        for text in ("a\n", "b\n"):
            with (staging.folder / "log").open("a") as file:
                file.write(text)
        store.refuses = "growing/"
        staging._copy()
        assert "gs://bucket/growing does not accept log" in capsys.readouterr().out
        store.refuses = ""
    assert store.read("bucket", "growing/log") == b"a\nb\n"
    again = Staging(to_path("gs://bucket/growing"))
    again.fetch("log")
    again.fetch("never-written")
    assert [file.read_text() for file in again.folder.iterdir()] == ["a\nb\n"]
    again.close()


def test_a_run_is_trained_resumed_and_exported_there(store, tiny_config, capsys):
    workdir = to_path("gs://bucket/runs/first")
    train(tiny_config("training.steps=4", "training.image_every=0"), workdir)
    state = train(tiny_config("training.steps=6"), workdir)
    assert state.step == 6
    assert "resuming at step 4 in gs://bucket/runs/first" in capsys.readouterr().out
    names = {name.removeprefix("runs/first/") for name in store.names("bucket", "runs/first/")}
    assert {"config.json", "parameters.txt", "loss.png", "report.html", "metrics.jsonl"} <= names
    assert "images/step_000006.png" in names
    assert sum(name.startswith("tensorboard/events") for name in names) == 2, "one a start"
    lines = store.read("bucket", "runs/first/metrics.jsonl").decode().splitlines()
    steps = [record["step"] for record in map(json.loads, lines) if "loss" in record]
    assert steps == [1, 2, 3, 4, 5, 6], "both starts"
    page = store.read("bucket", "runs/first/report.html").decode()
    assert page.count("data:image/png;base64,") == 2

    for source in ("gs://bucket/runs/first", "gs://bucket/runs/first/checkpoints/6"):
        model = open_model(source)
        assert model.step == 6
    params = model.load()
    jax.tree.map(np.testing.assert_array_equal, params, state.ema_params)
    assert main(["export", f"--checkpoint={source}", "--out=gs://bucket/exported"]) == 0
    assert store.names("bucket", "exported/") == [
        "exported/README.md",
        "exported/config.json",
        "exported/images/samples.png",
        "exported/model.safetensors",
    ]
    exported = open_model("gs://bucket/exported")
    assert jax.tree.structure(exported.load()) == jax.tree.structure(params)
    assert exported.shapes == model.shapes


@pytest.fixture
def s3():
    """An empty bucket named "bucket" in moto's stand-in for S3."""
    with s3_store() as client:
        yield client


def test_checkpoints_and_outputs_in_s3(s3, capsys):
    workdir = to_path("s3://bucket/run")
    with writable_folder(workdir, "--workdir"), atomic_file(workdir / "config.json") as file:
        file.write(b"{}")
    assert (workdir / "config.json").read_bytes() == b"{}"
    with Checkpoints(workdir, KEEP) as checkpoints:
        for step in range(1, 4):
            checkpoints.save(step, state(step), {"config": {"seed": step}})
    (workdir / "checkpoints" / "3" / "commit_success.txt").unlink()
    with Checkpoints(workdir) as checkpoints:
        assert checkpoints.steps() == [2], "the last object makes it count"
        jax.tree.map(np.testing.assert_array_equal, checkpoints.restore(2, SHAPES), state(2))
        weights = checkpoints.weights(2, "ema_params").load()
    jax.tree.map(np.testing.assert_array_equal, weights, state(2).ema_params)
    assert main(["train", "--config=demo", "--workdir=s3://missing/run"]) == 2
    assert "cannot write to s3://missing/run (FileNotFoundError" in capsys.readouterr().err
