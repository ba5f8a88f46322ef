"""Encoders that run during training: the features of the disk, from weights that nothing trains."""

import json
from pathlib import Path

import flax.linen as nn
import jax
import numpy as np
import pytest

from lidit_jax.data.cache import configured
from lidit_jax.parallel.mesh import batch_sharding, make_mesh
from lidit_jax.parallel.rules import LOGICAL_AXIS_RULES, sharded_shapes
from lidit_jax.planning.collectives import find_collectives
from lidit_jax.training.device_prefetch import DevicePrefetch
from lidit_jax.training.lidit_task import LIDiTTask
from lidit_jax.training.loop import train
from lidit_jax.training.preparation import prepare
from tests.models.conftest import randomized
from tests.training.test_resume import losses

KEY = jax.random.key(7)
ONLINE = ("data.text_features=online", "mesh.data=2", "mesh.fsdp=2", "mesh.tensor=2")


@pytest.fixture(scope="module")
def cached(tiny_config):
    return LIDiTTask(tiny_config(), prepare(tiny_config()))


@pytest.fixture(scope="module")
def online(tiny_config):
    """It never encodes the captions beforehand."""

    def refuse(*arguments):
        raise AssertionError("captions were encoded before training")

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(configured, "text_cache", refuse)
        config = tiny_config(*ONLINE)
        return LIDiTTask(config, prepare(config))


@pytest.fixture(scope="module")
def params(cached):
    return randomized(nn.unbox(jax.jit(cached.init)(jax.random.key(0))))


def first_batch(task):
    return next(task.data.batches(0, Path("unused"))).arrays


@pytest.fixture(scope="module")
def expected(cached, params):
    """The loss on one device, from features of the disk."""
    value, _ = jax.jit(cached.loss)(params, cached.frozen, first_batch(cached), KEY)
    return float(value)


def loss_of(task):
    return lambda params, frozen, batch: task.loss(params, frozen, task.encode(frozen, batch), KEY)[
        0
    ]


def test_features_are_those_of_the_disk(cached, online):
    """To a bfloat16's last bit, and 1e-5 of their rms, as everywhere: values near zero are sums
    that two compilations round differently."""
    batch, stored = first_batch(online), first_batch(cached)
    features = jax.jit(online.encode)(online.frozen, batch)["features"]
    for ours, theirs, mask, ids in zip(
        features, stored["features"], stored["masks"], batch["ids"], strict=True
    ):
        assert ours.dtype == theirs.dtype
        assert ours.shape[:2] == ids.shape
        # Padding differs: the length of the longest caption is known only from the disk.
        assert ours.shape[1] >= mask.shape[1]
        found = np.asarray(ours, np.float32)[:, : mask.shape[1]][mask]
        expected = theirs.astype(np.float32)[mask]
        near_zero = 1e-5 * np.sqrt(np.mean(expected**2))
        np.testing.assert_allclose(found, expected, rtol=2**-7, atol=near_zero)


def test_one_device_and_a_mesh_that_splits_the_encoders_give_the_loss_of_the_disk(
    online, params, expected, tiny_config
):
    alone = jax.device_put((params, online.frozen), jax.devices()[0])
    batch = first_batch(online)
    assert float(jax.jit(loss_of(online))(*alone, batch)) == pytest.approx(expected, rel=1e-5)

    mesh = make_mesh(tiny_config(*ONLINE).mesh)
    frozen = jax.device_put(online.frozen, online.frozen_shardings(mesh))
    for stream in frozen.encoders:
        q = stream.params["layers"]["q"]
        assert q.sharding.shard_shape(q.shape) == (4, 8, 8), "of [4, 16, 16]"
    with nn.logical_axis_rules(LOGICAL_AXIS_RULES):
        shapes = sharded_shapes(mesh, jax.eval_shape(online.init, KEY))
    split = jax.tree.map(lambda leaf, shape: jax.device_put(leaf, shape.sharding), params, shapes)
    with jax.set_mesh(mesh), nn.logical_axis_rules(LOGICAL_AXIS_RULES):
        rows = jax.device_put(batch, batch_sharding(mesh))
        program = jax.jit(loss_of(online)).lower(split, frozen, rows).compile()
        assert float(program(split, frozen, rows)) == pytest.approx(expected, rel=1e-5)


def test_weights_are_gathered_block_by_block_and_activations_never(online, tiny_config):
    """Of the vocabulary only the found rows move: the table is the largest of all arrays."""
    mesh = make_mesh(tiny_config(*ONLINE).mesh)
    frozen = jax.device_put(online.frozen, online.frozen_shardings(mesh))
    batch = jax.device_put(first_batch(online), batch_sharding(mesh))
    with jax.set_mesh(mesh), nn.logical_axis_rules(LOGICAL_AXIS_RULES):
        program = jax.jit(online.encode, out_shardings=batch_sharding(mesh))
        compiled = program.lower(frozen, batch).compile()
    found = find_collectives(compiled.as_text(), mesh)
    in_blocks, outside = (
        {(c.kind, *sorted(c.axes)) for c in found if c.in_loop == inside}
        for inside in (True, False)
    )
    assert in_blocks == {("all-gather", "fsdp"), ("all-reduce", "tensor")}
    assert outside == {("all-gather", "fsdp"), ("all-to-all", "fsdp")}
    gathers = {
        inside: [c.size for c in found if c.kind == "all-gather" and c.in_loop == inside]
        for inside in (True, False)
    }
    assert max(gathers[True]) <= 4 * 16 * 32 / 2, "a weight of a block, split over tensor"
    tokens = max(stream.tokens for stream in online.data.streams)
    assert max(gathers[False]) == 4 * 8 * tokens, "token ids"


def test_several_layers_are_those_of_the_disk_and_their_weights_are_trained(tiny_config):
    """On a mesh the states of all layers stay where their rows are, as one layer's do."""
    settings = ("encoders.layers=((-1, 1), 'all')", "model.refiner.layer_mix=learned_average")
    stored = LIDiTTask(tiny_config(*settings), prepare(tiny_config(*settings)))
    config = tiny_config(*settings, *ONLINE)
    several = LIDiTTask(config, prepare(config))
    assert [stream.token_shape for stream in several.data.streams] == [(2, 16), (4, 16)]
    mesh = make_mesh(config.mesh)
    frozen = jax.device_put(several.frozen, several.frozen_shardings(mesh))
    batch = jax.device_put(first_batch(several), batch_sharding(mesh))
    with jax.set_mesh(mesh), nn.logical_axis_rules(LOGICAL_AXIS_RULES):
        encode = jax.jit(several.encode, out_shardings=batch_sharding(mesh))
        compiled = encode.lower(frozen, batch).compile()
        features = compiled(frozen, batch)["features"]
    found = find_collectives(compiled.as_text(), mesh)
    assert {c.kind for c in found if c.in_loop} == {"all-gather", "all-reduce"}
    assert max(c.size for c in found if c.kind == "all-gather" and c.in_loop) <= 4 * 16 * 32 / 2
    from_disk = first_batch(stored)
    for ours, theirs, mask in zip(features, from_disk["features"], from_disk["masks"], strict=True):
        near = np.asarray(ours, np.float32)[:, : mask.shape[1]][mask]
        expected = theirs.astype(np.float32)[mask]
        near_zero = 1e-5 * np.sqrt(np.mean(expected**2))
        np.testing.assert_allclose(near, expected, rtol=2**-7, atol=near_zero)

    params = randomized(nn.unbox(jax.jit(stored.init)(jax.random.key(0))))
    gradients, _ = jax.jit(jax.grad(stored.loss, has_aux=True))(
        params, stored.frozen, from_disk, KEY
    )
    for stream in range(2):
        weights = gradients[f"linguistic_refiner_{stream}"]["layer_mix"]["weights"]
        assert np.abs(weights).min() > 0


def test_weights_are_an_argument_and_no_constant(online):
    jaxpr = jax.make_jaxpr(online.encode)(online.frozen, first_batch(online))
    constants = sum(np.size(constant) for constant in jaxpr.consts)
    weights = sum(leaf.size for leaf in jax.tree.leaves(online.frozen.encoders))
    assert constants < weights / 20, "tables of rotary positions at most"


def test_several_steps_are_encoded_at_once_and_a_resumed_run_meets_the_same_features(
    online, tiny_config, tmp_path
):
    config = tiny_config(*ONLINE, "data.encode_steps=2")
    mesh = make_mesh(config.mesh)
    frozen = jax.device_put(online.frozen, online.frozen_shardings(mesh))
    prefetch = DevicePrefetch(online, config, frozen, batch_sharding(mesh))
    from_start = prefetch.training(0, tmp_path)
    batches = [next(from_start) for _ in range(4)]
    resumed = prefetch.training(3, tmp_path)
    for batch in batches[3:]:
        again = next(resumed)
        np.testing.assert_array_equal(again.records, batch.records)
        jax.tree.map(np.testing.assert_array_equal, again.arrays, batch.arrays)
    example = prefetch.training_example(0)
    assert jax.tree.map(lambda leaf: leaf.sharding, batches[0].arrays) == jax.tree.map(
        lambda leaf: leaf.sharding, example
    )
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), batches[0].arrays) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), example
    )
    alone = jax.jit(online.encode)(frozen, prefetch.put(first_batch(online)))
    for ours, theirs in zip(batches[0].arrays["features"], alone["features"], strict=True):
        np.testing.assert_allclose(
            np.asarray(ours, np.float32), np.asarray(theirs, np.float32), rtol=2**-7, atol=1e-5
        )


def test_a_run_learns_what_it_learns_from_the_disk_and_saves_no_encoder(
    tiny_config, trained, tmp_path
):
    settings = ("data.text_features=online", "data.encode_steps=3", "training.steps=4")
    config = tiny_config(*settings, "training.score_every=4", "training.score_prompts=1")
    train(config, tmp_path)
    first = {step: loss for step, loss in losses(trained).items() if step <= 4}
    assert losses(tmp_path) == pytest.approx(first, rel=1e-5)
    before = losses(trained, "validation_loss")[4]
    assert losses(tmp_path, "validation_loss")[4] == pytest.approx(before, rel=1e-5)
    saved, expected = (
        json.loads((run / "checkpoints" / "4" / "state" / "_METADATA").read_text())
        for run in (tmp_path, trained)
    )
    assert saved["tree_metadata"].keys() == expected["tree_metadata"].keys()
    assert 0 <= losses(tmp_path, "scene_score")[4] <= 1
