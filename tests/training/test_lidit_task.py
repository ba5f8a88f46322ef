"""The loss of LI-DiT: masks, caption dropout, times and noise, whatever the batch and the mesh."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding

from lidit_jax.encoders.conditions import PromptEncoders
from lidit_jax.parallel.mesh import batch_sharding, make_mesh, replicated
from lidit_jax.training.lidit_task import LIDiTTask
from lidit_jax.training.preparation import prepare
from tests.models.conftest import randomized
from tests.numerics import assert_rounded_to_bfloat16, rounding

STEP_KEY = jax.random.key(7)
ROWS = 16


@pytest.fixture(scope="module")
def task(tiny_config):
    config = tiny_config("diffusion.caption_dropout=0")
    return LIDiTTask(config, prepare(config))


@pytest.fixture(scope="module")
def batch(task, tmp_path_factory):
    first = next(task.data.batches(0, tmp_path_factory.mktemp("workdir"))).arrays
    assert len(first["index"]) == ROWS
    return first


@pytest.fixture(scope="module")
def fresh(task):
    return nn.unbox(jax.jit(task.init)(jax.random.key(0)))


@pytest.fixture(scope="module")
def params(fresh):
    """Away from their zero initialization, so that every input changes the loss."""
    return randomized(fresh)


@pytest.fixture(scope="module")
def loss_and_metrics(task):
    """`loss_and_metrics(params, batch, key)`, compiled once; `key` stands for (seed, step)."""
    return jax.jit(lambda params, batch, key: task.loss(params, task.frozen, batch, key))


@pytest.fixture(scope="module")
def loss(loss_and_metrics, params):
    """`loss(batch)` with parameters that are not zero."""
    return lambda batch, key=STEP_KEY: float(loss_and_metrics(params, batch, key)[0])


class Recorder:
    """Stands in for the network: remembers its inputs and predicts zeros."""

    def apply(self, variables, x_t, t, features, masks, prefix_lengths, mutable=()):
        self.x_t, self.t, self.features, self.masks, self.prefix_lengths = (
            x_t,
            t,
            features,
            masks,
            prefix_lengths,
        )
        prediction = jnp.zeros_like(x_t)
        return (prediction, {}) if mutable else prediction


@pytest.fixture
def recorder(task, monkeypatch):
    network = Recorder()
    for name in ("_model", "_training_model"):
        monkeypatch.setattr(task, name, network)
    return network


def rows(batch, chosen):
    return jax.tree.map(lambda leaf: np.asarray(leaf)[np.asarray(chosen)], batch)


def test_padding_does_not_matter_and_masks_do(loss, batch):
    noisy = tuple(
        np.where(mask[..., None], features, features.dtype.type(100))
        for features, mask in zip(batch["features"], batch["masks"], strict=True)
    )
    assert any((a != b).any() for a, b in zip(noisy, batch["features"], strict=True))
    assert loss(batch | {"features": noisy}) == pytest.approx(loss(batch), rel=1e-6)
    unmasked = tuple(np.ones_like(mask) for mask in batch["masks"])
    assert loss(batch | {"masks": unmasked}) != pytest.approx(loss(batch), rel=1e-5)


def test_the_network_sees_an_image_mixed_with_noise_and_the_time_times_1000(task, recorder, batch):
    """Flow: x_t = (1 - t) x0 + t noise; taken apart again, the noise must be standard normal."""
    value, _ = task.loss({}, task.frozen, batch, STEP_KEY)
    t = recorder.t / 1000
    assert ((t > 0) & (t < 1)).all()
    assert len(np.unique(t)) == ROWS, "one time a sample"
    mixed = t[:, None, None, None]
    noise = (recorder.x_t - (1 - mixed) * batch["latent"]) / mixed
    assert float(noise.mean()) == pytest.approx(0, abs=0.02)
    assert float(noise.std()) == pytest.approx(1, abs=0.02)
    assert recorder.prefix_lengths == tuple(stream.prefix_length for stream in task.data.streams)
    # Against a prediction of zero, the velocity loss is the mean square of noise - x0.
    expected = np.mean(np.square(noise - batch["latent"]))
    assert float(value) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.numeric
def test_dropped_captions_become_the_empty_prompt_with_its_instruction(
    task, tiny_config, recorder, batch, monkeypatch
):
    config = tiny_config("diffusion.caption_dropout=1")
    monkeypatch.setattr(task, "_config", config)
    task.loss({}, task.frozen, batch, STEP_KEY)
    unconditional, _ = PromptEncoders(config.encoders).encode([""])
    for k in range(2):
        valid = int(unconditional.masks[k].sum())
        assert valid == recorder.prefix_lengths[k] + 1, "instruction and end token"
        np.testing.assert_array_equal(recorder.masks[k].sum(axis=1), [valid] * ROWS)
        np.testing.assert_array_equal(recorder.masks[k][:, :valid], True)
        # As captions are stored; both encoders' sums, in batches of other sizes, were rounded.
        assert_rounded_to_bfloat16(
            recorder.features[k][:, :valid],
            np.broadcast_to(unconditional.features[k][:, :valid], (ROWS, valid, 16)),
            tolerance=2 * rounding(terms=32, sums=6 * 4),
        )


def test_draws_depend_on_step_and_record_not_on_place_or_company(loss, batch):
    whole = loss(batch)
    order = np.random.default_rng(0).permutation(ROWS)
    assert loss(rows(batch, order)) == pytest.approx(whole, rel=1e-6)
    halves = [loss(rows(batch, np.tile(np.arange(8) + start, 2))) for start in (0, 8)]
    assert np.mean(halves) == pytest.approx(whole, rel=1e-6)
    assert loss(batch, jax.random.key(8)) != pytest.approx(whole, rel=1e-5)
    other = batch | {"index": batch["index"] + 1}
    assert loss(other) != pytest.approx(whole, rel=1e-5)


def test_one_device_and_eight_give_the_same_loss(loss, task, params, batch, tiny_config):
    mesh = make_mesh(tiny_config().mesh)
    assert mesh.size == 8
    spread = jax.device_put(batch, batch_sharding(mesh))
    assert isinstance(spread["latent"].sharding, NamedSharding)
    on_mesh = jax.jit(task.loss)(
        *jax.device_put((params, task.frozen), replicated(mesh)), spread, STEP_KEY
    )
    assert float(on_mesh[0]) == pytest.approx(loss(batch), rel=1e-5)


def test_validation_has_eight_fixed_times_and_fixed_noise(task, recorder, batch):
    first = task.validation_losses({}, task.frozen, batch)
    times, x_t = recorder.t, recorder.x_t
    assert first.shape == (ROWS,)
    process = task._process
    expected = process.model_time(process.validation_times(8))
    np.testing.assert_allclose(times, expected[batch["index"] % 8], rtol=1e-6)
    np.testing.assert_array_equal(recorder.masks[0], batch["masks"][0])
    task.validation_losses({}, task.frozen, rows(batch, np.arange(ROWS)[::-1]))
    np.testing.assert_allclose(recorder.x_t[::-1], x_t, rtol=1e-6)


@pytest.mark.parametrize(("count", "each"), [(1, 1), (3, 3), (64, 8)])
def test_validation_covers_all_times_equally(count, each, tiny_config, recorder):
    """Also a single record, of which one time would tell next to nothing."""
    config = tiny_config(f"data.validation_records={count}")
    task = LIDiTTask(config, prepare(config))
    task._model = recorder
    assert task.data.validation_rows == 8 * each
    (batch,) = (batch.arrays for batch in task.data.validation(8 * each, (0, 1)))
    assert batch["valid"].all()
    task.validation_losses({}, task.frozen, batch)
    times, counts = np.unique(np.asarray(recorder.t), return_counts=True)
    expected = task._process.model_time(task._process.validation_times(8))
    np.testing.assert_allclose(times, expected, rtol=1e-6)
    assert set(counts) == {each}
    pairs = zip(batch["latent"], recorder.t, strict=True)
    seen = {(latent.tobytes(), float(t)) for latent, t in pairs}
    assert len(seen) == 8 * each, "each record once at a time"


def test_gate_sizes_of_every_refiner_block_and_stream_are_logged(
    loss_and_metrics, fresh, params, batch
):
    """Means over the batch and the width, of both gates of a block."""
    _, metrics = loss_and_metrics(params, batch, STEP_KEY)
    gates = {name: float(value) for name, value in metrics.items() if name.startswith("gates/")}
    linguistic = {f"gates/linguistic_refiner_{k}/block_0" for k in range(2)}
    collaborative = {f"gates/collaborative_refiner/block_0_stream_{k}" for k in range(2)}
    assert gates.keys() == linguistic | collaborative
    assert all(value > 0 for value in gates.values())
    _, metrics = loss_and_metrics(fresh, batch, STEP_KEY)
    assert [float(metrics[name]) for name in gates] == [0] * 4, "no part of them yet"
