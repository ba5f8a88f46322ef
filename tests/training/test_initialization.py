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
    encoder_change_warning,
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


def test_weights_that_know_other_text_encoders_are_told(trained):
    encoders = open_model(trained).provenance.encoders
    elsewhere = [stream | {"source": "a copy"} for stream in encoders]
    assert encoder_change_warning(elsewhere, str(trained)) == []
    for name, value in (("layer", -9), ("prefix", "Paint:"), ("fingerprint", {})):
        other = [encoders[0] | {name: value}, encoders[1]]
        (line,) = encoder_change_warning(other, str(trained))
        assert line.startswith(f"{trained} was trained with other text encoders, layers or another")
    assert encoder_change_warning(encoders[:1], str(trained))


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


def test_what_the_source_lacks_stays_as_initialized(tiny_config, trained, averages):
    """A fine-tune with a new part."""
    state, missing = initialize_from_run(
        fresh(averages | {"new_refiner": {"kernel": averages["output"]["linear"]["kernel"]}}),
        tiny_config(f"training.init_from={trained}/checkpoints/4"),
    )
    assert missing == ["new_refiner/kernel"]
    assert (state.params["new_refiner"]["kernel"] == 1).all()
    assert not (state.params["output"]["linear"]["kernel"] == 1).all()


def test_another_shape_is_refused_by_name(tiny_config, trained, averages):
    other = averages | {"output": {"linear": {"kernel": np.zeros((3, 3), np.float32)}}}
    other = jax.tree.map(jax.numpy.asarray, other)
    with pytest.raises(LiditError, match=r"output/linear/kernel has shape \[32, 192\] there and"):
        initialize_from_run(fresh(other), tiny_config(f"training.init_from={trained}"))


def test_a_run_says_what_it_started_from_and_does_not_go_on_with_the_old_steps(
    tiny_config, trained, tmp_path, capsys
):
    settings = (f"training.init_from={trained}", "training.steps=4", "training.image_every=0")
    state = train(tiny_config(*settings), tmp_path)
    output = capsys.readouterr().out
    assert "starting at step 0" in output
    assert f"weights from {trained}; 0 parameters start afresh" in output
    assert state.step == 4


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
