"""Stages: a run that starts from the weights of another."""

from pathlib import Path

import jax
import numpy as np
import optax
import pytest

from lidit_jax.checkpoints.opener import open_model
from lidit_jax.checkpoints.provenance import Provenance
from lidit_jax.checkpoints.state import TrainState, create_state
from lidit_jax.errors import LiditError
from lidit_jax.training.initialization import (
    change_notes,
    inherited_statistics,
    initialize_from_run,
)
from lidit_jax.training.loop import train
from lidit_jax.training.optimizers import make_optimizer

pytestmark = pytest.mark.output


@pytest.fixture(scope="module")
def averages(trained):
    """The averaged weights that the tiny run ended with."""
    return open_model(trained).load()


def fresh(params):
    """A state at step 0 whose parameters are ones."""
    ones = jax.tree.map(lambda leaf: jax.numpy.ones_like(leaf), params)
    return TrainState(
        step=jax.numpy.int32(0),
        position=jax.numpy.int32(0),
        key=jax.numpy.zeros(2, np.uint32),
        params=ones,
        ema_params=jax.tree.map(jax.numpy.copy, ones),
        opt_state=(),
    )


def test_latent_statistics_come_with_the_weights(tiny_config, trained):
    provenance = open_model(trained).provenance
    config = tiny_config(f"training.init_from={trained}")
    begun = inherited_statistics(config, None, Path("runs/new"))
    assert tuple(begun.statistics.mean) == provenance.latent_mean
    assert tuple(begun.statistics.std) == provenance.latent_std
    assert (begun.autoencoder, begun.place) == ("pixels", str(trained))

    resumed = Provenance(latent_mean=(1.0,), latent_std=(2.0,), autoencoder="a vae")
    kept = inherited_statistics(config, resumed, Path("runs/new"))
    assert kept.statistics == (1.0, 2.0), "its own, not those it began with"
    assert (kept.autoencoder, kept.place) == ("a vae", "runs/new")
    assert inherited_statistics(tiny_config(), None, Path("runs/new")) is None


def test_weights_that_served_something_else_are_told(tiny_config, trained):
    encoders = open_model(trained).provenance.encoders
    config = tiny_config(f"training.init_from={trained}")
    elsewhere = [stream | {"source": "a copy"} for stream in encoders]
    assert change_notes(elsewhere, config, []) == []
    for name, value in (("layer", -9), ("prefix", "Paint:"), ("fingerprint", {})):
        other = [encoders[0] | {name: value}, encoders[1]]
        (line,) = change_notes(other, config, [])
        assert line.startswith(f"{trained} was trained with other text encoders, layers or another")
    assert change_notes(encoders[:1], config, [])
    new = [f"linguistic_refiner_{k}/projection/kernel" for k in range(2)]
    assert change_notes(other, config, new[:1]), "the other stream's weights meet new features"
    assert change_notes(other, config, new) == []
    config = tiny_config(f"training.init_from={trained}", "model.heads=2", "model.remat=full")
    assert change_notes(encoders, config, []) == [f"config.model.heads=2, with 4 in {trained}"]


def test_weights_and_averages_start_from_the_averages_of_the_stage_before(
    tiny_config, trained, averages
):
    state, missing = initialize_from_run(
        fresh(averages), tiny_config(f"training.init_from={trained}")
    )
    assert missing == []
    assert state.step == 0
    for tree in (state.params, state.ema_params):
        jax.tree.map(np.testing.assert_array_equal, tree, averages)
    first, second = (jax.tree.leaves(tree)[0] for tree in (state.params, state.ema_params))
    assert first.unsafe_buffer_pointer() != second.unsafe_buffer_pointer(), "both are donated"


@pytest.fixture(scope="module")
def grown(averages):
    """Parameters of a model with a new refiner, and other features in its first stream."""
    output, first = averages["output"], averages["linguistic_refiner_0"]
    wide = first["projection"] | {"kernel": jax.numpy.zeros((7, 32))}
    return averages | {
        "new_refiner": {"kernel": output["linear"]["kernel"]},
        "linguistic_refiner_0": first | {"projection": wide},
    }


NEW = ("linguistic_refiner_0/projection", "new_refiner")


def test_what_is_named_as_new_stays_as_initialized(tiny_config, trained, averages, grown):
    """A fine-tune with a new part, and with an encoder of other features."""
    config = tiny_config(f"training.init_from={trained}/checkpoints/4", f"training.init_new={NEW}")
    state, missing = initialize_from_run(fresh(grown), config)
    new = ["linguistic_refiner_0/projection/bias", "linguistic_refiner_0/projection/kernel"]
    assert missing == [*new, "new_refiner/kernel"]
    assert (state.params["new_refiner"]["kernel"] == 1).all()
    assert (state.params["linguistic_refiner_0"]["projection"]["kernel"] == 1).all()
    assert not (state.params["output"]["linear"]["kernel"] == 1).all()


@pytest.mark.parametrize(
    ("new", "message"),
    [
        (
            NEW[:1],
            "it lacks new_refiner/kernel: use the same config.model and encoders, or let these "
            "start afresh with --config.training.init_new=\"('linguistic_refiner_0/projection', "
            "'new_refiner')\"",
        ),
        (
            NEW[1:],
            "there and [7, 32] here: use the same config.model and encoders, or let these start",
        ),
        (("new_refner",), "config.training.init_new: 'new_refner' matches no parameter as a whole"),
    ],
)
def test_what_is_missing_or_of_another_shape_is_refused_by_name(
    new, message, tiny_config, trained, grown
):
    config = tiny_config(f"training.init_from={trained}", f"training.init_new={new}")
    with pytest.raises(LiditError) as refusal:
        initialize_from_run(fresh(grown), config)
    assert message in str(refusal.value)


def test_a_part_that_has_no_place_any_more_is_refused_by_name(tiny_config, trained, averages):
    smaller = {name: part for name, part in averages.items() if name != "collaborative_refiner"}
    with pytest.raises(LiditError, match="this model has no collaborative_refiner/block_0_stream"):
        initialize_from_run(fresh(smaller), tiny_config(f"training.init_from={trained}"))
    dropped = "training.init_new=('collaborative_refiner',)"
    config = tiny_config(f"training.init_from={trained}", dropped)
    assert initialize_from_run(fresh(smaller), config)[1] == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["training.init_from=''"], "needs a source of all other weights in config.training.init"),
        (
            ["training.init_optimizer=true"],
            "init_optimizer takes over all weights and moments: set",
        ),
    ],
)
def test_new_parts_need_weights_beside_them(settings, message, tiny_config):
    with pytest.raises(LiditError, match=message):
        tiny_config("training.init_from=demo", "training.init_new=('output',)", *settings)


def test_a_run_says_what_it_started_from_and_does_not_go_on_with_the_old_steps(
    tiny_config, trained, averages, tmp_path, capsys
):
    """It begins as the first stage of another model does: one part new, the backbone frozen."""
    stage = ["training.init_new=('collaborative_refiner',)", "training.steps=4"]
    stage += ["training.image_every=0", f"training.init_from={trained}"]
    stage += ["optimizer.freeze=('blocks','output')"]
    state = train(tiny_config(*stage), tmp_path)
    output = capsys.readouterr().out
    assert "starting at step 0" in output
    assert f"weights from {trained}; " in output
    assert "parameters start afresh, in collaborative_refiner" in output
    assert "M parameters; frozen: blocks, output" in output
    assert state.step == 4
    for part, stays in {"blocks": True, "output": True, "linguistic_refiner_0": False}.items():
        for tree in (state.params, state.ema_params):
            before, after = (jax.tree.leaves(one[part]) for one in (averages, tree))
            same = [np.array_equal(a, b) for a, b in zip(before, after, strict=True)]
            assert all(same) if stays else not all(same)
    with pytest.raises(LiditError, match="set it back, or begin a new stage in another workdir"):
        train(tiny_config(*stage[:-1]), tmp_path)
    both = [f"training.init_from={tmp_path}", "training.init_optimizer=true"]
    with pytest.raises(LiditError, match=r"has the moments of other parameters, with config\.opti"):
        initialize_from_run(fresh(averages), tiny_config(*both))


@pytest.fixture(scope="module")
def with_optimizer(tiny_config, trained):
    return tiny_config(f"training.init_from={trained}", "training.init_optimizer=true")


@pytest.fixture(scope="module")
def created(tiny_config, averages):
    """A fresh state with the optimizer of the tiny run."""
    config = tiny_config()
    optimizer = make_optimizer(config)
    zeros = jax.tree.map(lambda leaf: jax.numpy.zeros(leaf.shape, leaf.dtype), averages)
    state = create_state(lambda key: zeros, optimizer, config)
    return jax.jit(lambda: state)()


def parts(state, kind):
    """All parts of the optimizer's state of one type."""
    leaves = jax.tree.leaves(state.opt_state, is_leaf=lambda part: isinstance(part, kind))
    return [part for part in leaves if isinstance(part, kind)]


def test_the_optimizer_may_be_taken_over_too(with_optimizer, trained, created):
    """Raw weights, averages and moments go on; step, data and learning rate begin anew."""
    state, missing = initialize_from_run(created, with_optimizer)
    assert missing == []
    for name, raw in {"params": True, "ema_params": False}.items():
        weights = open_model(trained, raw=raw).load()
        jax.tree.map(np.testing.assert_array_equal, getattr(state, name), weights)
    (moments,) = parts(state, optax.ScaleByAdamState)
    assert moments.count == 8
    assert all(np.any(leaf) for leaf in jax.tree.leaves(moments.nu))
    (schedule,) = parts(state, optax.ScaleByScheduleState)
    assert schedule.count == state.step == state.position == 0
    np.testing.assert_array_equal(state.key, created.key)


def test_another_optimizer_is_refused(with_optimizer, created):
    other = created.replace(opt_state=optax.sgd(1.0).init(created.params))
    with pytest.raises(LiditError, match="does not hold this model with this optimizer; set it to"):
        initialize_from_run(other, with_optimizer)


def test_an_exported_folder_has_no_moments(tiny_config, created):
    config = tiny_config("training.init_from=demo", "training.init_optimizer=true")
    with pytest.raises(LiditError, match="'demo' has weights alone; name a workdir in"):
        initialize_from_run(created, config)
