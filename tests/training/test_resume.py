"""Going on after a stop: equal to the bit, on another mesh too, and never with another run's model.

`tests/faults` kills processes; here runs stop in ways that one process can watch.
"""

import copy
import dataclasses
import functools
import json
import operator
import re
import shutil
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from lidit_jax.checkpoints.provenance import Provenance
from lidit_jax.errors import LiditError
from lidit_jax.training import loop
from lidit_jax.training.loop import train
from lidit_jax.training.resume import check_same_models, check_same_run


def losses(workdir, name="loss"):
    """Values of `metrics.jsonl` by step."""
    records = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return {record["step"]: record[name] for record in records if name in record}


@pytest.fixture
def stopped(trained, tmp_path):
    """A workdir that knows nothing beyond step 4 of the run in `trained`."""
    workdir = tmp_path / "stopped"
    shutil.copytree(trained / "checkpoints" / "4", workdir / "checkpoints" / "4")
    return workdir


def test_sigterm_saves_and_the_same_command_ends_as_if_nothing_had_happened(
    tiny_config, trained, tmp_path, terminated, capsys
):
    with terminated(3):
        assert train(tiny_config(), tmp_path).step == 3
    shown = capsys.readouterr().out
    assert "stopped at step 3; run the same command to go on" in shown
    assert re.search(r"compiled the step for 32x32 px in \d+\.\d s \(1 of 2\)\nstep 1/8", shown)
    assert [folder.name for folder in (tmp_path / "checkpoints").iterdir()] == ["3"]
    drawn = [file.name for file in (tmp_path / "images").iterdir()]
    assert drawn == ["step_000003.png"], "a run that has drawn nothing yet leaves a grid"

    state = train(tiny_config(), tmp_path)
    assert "resuming at step 3" in capsys.readouterr().out
    with loop.Checkpoints(trained) as checkpoints:
        shapes = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), state
        )
        expected = checkpoints.restore(8, shapes)
    assert state.step == state.position == 8
    jax.tree.map(np.testing.assert_array_equal, state, expected)
    assert losses(tmp_path) == losses(trained)
    assert losses(tmp_path, "validation_loss_ema")[8] == losses(trained, "validation_loss_ema")[8]


def test_another_mesh_goes_on_with_the_same_losses(tiny_config, trained, stopped):
    state = train(tiny_config("mesh.data=2", "mesh.fsdp=4", "training.image_every=0"), stopped)
    kernel = state.params["blocks"]["mlp"]["up"]["kernel"]
    assert kernel.sharding.shard_shape(kernel.shape)[1] == kernel.shape[1] // 4
    expected = {step: loss for step, loss in losses(trained).items() if step > 4}
    assert losses(stopped) == pytest.approx(expected, rel=1e-5)
    expected = losses(trained, "validation_loss")[8]
    assert losses(stopped, "validation_loss")[8] == pytest.approx(expected, rel=1e-5)


def test_a_tiny_model_learns_a_tiny_data_set(tiny_config, trained, stopped):
    """Steps may be added to a run: this one goes on from 4 to 56."""
    rare = ("training.eval_every=56", "training.checkpoint_every=56", "training.image_every=0")
    train(tiny_config("training.steps=56", *rare), stopped)
    curve = losses(trained) | losses(stopped)
    assert sorted(curve) == list(range(1, 57))
    first, last = (np.mean([curve[s] for s in steps]) for steps in (range(1, 9), range(49, 57)))
    assert last < 0.8 * first
    before = losses(trained, "validation_loss")[4]
    assert losses(stopped, "validation_loss")[56] < 0.9 * before
    assert losses(stopped, "validation_loss_ema")[56] < 0.9 * before


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("model.depth=3", "config.model.depth=2, not 3"),
        ("seed=1", "config.seed=0, not 1"),
        ("encoders.instruction=''", "config.encoders.instruction='Draw:', not ''"),
    ],
)
def test_another_run_in_the_same_workdir_is_refused(override, expected, tiny_config, trained):
    before = sorted(trained.rglob("*"))
    with pytest.raises(LiditError) as refusal:
        train(tiny_config(override), trained)
    assert str(refusal.value) == (
        f"{trained} holds a run with {expected}: name another workdir, or set it back"
    )
    assert sorted(trained.rglob("*")) == before


def test_another_learning_rate_is_refused_with_the_way_to_have_it(tiny_config, trained):
    with pytest.raises(LiditError) as refusal:
        train(tiny_config("optimizer.learning_rate=1e-5"), trained)
    assert str(refusal.value) == (
        f"{trained} holds a run with config.optimizer.learning_rate=0.002, not 1e-05: set it back, "
        f"or go on in another workdir with --config.training.init_from={trained} "
        "--config.training.init_optimizer=true, which takes over weights and moments"
    )


def test_an_encoder_whose_files_have_changed_is_refused(tiny_config, trained, monkeypatch):
    with loop.Checkpoints(trained) as checkpoints:
        metadata = checkpoints.metadata(8)
    metadata["encoders"][0]["fingerprint"]["weights"] = "0" * 64
    other = SimpleNamespace(provenance=Provenance.from_json(metadata))
    monkeypatch.setattr(loop, "make_task", lambda config, saved: other)
    with pytest.raises(LiditError, match="holds a run with another encoder of the same name: put"):
        train(tiny_config(), trained)


@pytest.mark.parametrize(
    ("part", "name"),
    [((), "config"), ((), "prefix_lengths"), ((), "latents"), (("encoders", 0), "fingerprint")],
    ids=str,
)
def test_a_checkpoint_that_has_lost_a_part_is_told_in_one_line(
    part, name, tiny_config, trained, monkeypatch
):
    with loop.Checkpoints(trained) as checkpoints:
        metadata = checkpoints.metadata(8)
    del functools.reduce(operator.getitem, part, metadata)[name]
    monkeypatch.setattr(loop.Checkpoints, "metadata", lambda self, step: metadata)
    with pytest.raises(LiditError) as refusal:
        train(tiny_config(), trained)
    assert str(refusal.value) == (
        f"cannot restore checkpoint {trained / 'checkpoints' / '8'}: \"it lacks '{name}'\"; delete "
        "that folder to continue from the previous one"
    )


def test_one_place_may_be_written_in_several_ways(tiny_config, trained, tmp_path, monkeypatch):
    """A path from here or from the root, and encoders that have moved but are the same files."""
    with loop.Checkpoints(trained) as checkpoints:
        metadata = checkpoints.metadata(8)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "set").mkdir()
    metadata["config"]["data"]["path"] = "set/"
    config = tiny_config()
    moved = [
        str(shutil.copytree(source, tmp_path / f"encoder-{k}"))
        for k, source in enumerate(config.encoders.sources)
    ]

    def check(path, sources):
        data = dataclasses.replace(config.data, path=path)
        encoders = dataclasses.replace(config.encoders, sources=tuple(sources))
        changed = dataclasses.replace(config, data=data, encoders=encoders)
        check_same_run(changed, metadata, trained)

    for path in ("set", "./set/", str(tmp_path / "set")):
        check(path, config.encoders.sources)
    check("set", [f"{source}/" for source in config.encoders.sources])
    check("set", moved)
    with pytest.raises(LiditError, match=r"config.data.path='set/', not 'other'"):
        check("other", moved)
    with pytest.raises(LiditError, match=r"config.encoders.sources="):
        check("set", reversed(moved))


def test_a_path_of_a_mixture_may_be_written_otherwise(tiny_config, tmp_path, monkeypatch):
    (tmp_path / "photos").mkdir()
    before = tiny_config(f"data.mixture=('folder:{tmp_path}/photos/',)")
    metadata = {"config": before.to_dict()}
    now, other = (tiny_config(f"data.mixture=('folder:{name}',)") for name in ("photos", "others"))
    monkeypatch.chdir(tmp_path)
    check_same_run(now, metadata, tmp_path)
    with pytest.raises(LiditError, match=r"config\.data\.mixture="):
        check_same_run(other, metadata, tmp_path)


def test_an_encoder_that_has_moved_is_the_same_model(trained):
    with loop.Checkpoints(trained) as checkpoints:
        metadata = checkpoints.metadata(8)
    moved = copy.deepcopy(metadata)
    moved["encoders"][0]["source"] = "/elsewhere"
    task = SimpleNamespace(provenance=Provenance.from_json(moved))
    check_same_models(task, Provenance.from_json(metadata), trained)


def test_a_batch_that_does_not_divide_is_refused(tiny_config, tmp_path):
    with pytest.raises(LiditError, match="batch_size=12 does not divide over 8 devices: take a"):
        train(tiny_config("training.batch_size=12"), tmp_path)
    assert list(tmp_path.iterdir()) == []
