"""LI-DiT against a second implementation of the paper in PyTorch (`pytorch/model.py`).

Parameters are random and nowhere zero, streams have padding of different lengths, and the image is
not square. Errors are the largest absolute difference over the rms of what PyTorch gives, in
float32. They were at most 2e-5 when this was written; most of that are the float32 angles of the
time's sinusoids, for the refined tokens alone it was 8e-6 and for pooled vectors 3e-7.
"""

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from lidit_jax.benchmarks.torch_training import (
    TorchTrainer,
    parameter_groups,
    x0_velocity_loss,
)
from lidit_jax.config.schema import Config, DiffusionConfig, OptimizerConfig, RefinerConfig
from lidit_jax.diffusion import process as processes
from lidit_jax.models import LIDiT
from lidit_jax.models.flops import TextStream
from lidit_jax.models.refiner import CollaborativeRefiner, LinguisticRefiner
from lidit_jax.pytorch import layout
from lidit_jax.pytorch.model import LIDiTTransformer
from lidit_jax.training.optimizers import is_decayed

from ..numerics import BFLOAT16, rounding
from ..quick import random_parameters
from .conftest import small_config

pytestmark = pytest.mark.numeric

TOLERANCE = 1e-4

SWITCHES = {
    "the paper's": {},
    "rope": {"position": "rope"},
    "sincos": {"position": "sincos"},
    "conv+rope": {"position": "conv+rope"},
    "conv+sincos": {"position": "conv+sincos"},
    "other sizes": {"patch": 1, "heads": 2, "depth": 1, "mlp_ratio": 2, "qk_norm": False},
    "causal refiner": {"refiner": RefinerConfig(causal=True)},
    "no gate": {"refiner": RefinerConfig(gate=False)},
    "pool of the prompt": {"refiner": RefinerConfig(pool="prompt")},
    "concat only": {"refiner": RefinerConfig(blocks=0, collaborative_blocks=0)},
    "deeper refiners": {"refiner": RefinerConfig(blocks=3, collaborative_blocks=2, mlp_ratio=2)},
    "as HunyuanVideo's": {
        "refiner": RefinerConfig(feature_norm="none", pool_raw=True, own_time_embedder=True)
    },
    "as PixArt's": {
        "width": 48,
        "position": "sincos",
        "sincos_extent": 5.0,
        "sincos_order": "column_first",
        "qk_norm": False,
        "cross_attention": "plain",
        "output_modulation": "table",
        "size_embedding": 8,
        "refiner": RefinerConfig(blocks=0, feature_norm="none", projection="mlp", pool="none"),
    },
    "plain cross-attention and output table": {
        "cross_attention": "plain",
        "output_modulation": "table",
    },
    "size embedding and extent, without pooled vector": {
        "width": 48,
        "position": "conv+sincos",
        "sincos_extent": 2.5,
        "size_embedding": 1,
        "refiner": RefinerConfig(pool="none", projection="mlp"),
    },
}


def torch_state(params, config) -> dict[str, np.ndarray]:
    """Parameters, or their gradients, by the names of PyTorch's `state_dict`; float32."""
    state = {}
    for path, leaf in flax.traverse_util.flatten_dict(params, sep="/").items():
        array = np.asarray(leaf, np.float32)
        layers = zip(
            layout.torch_names(path, array.shape), layout.torch_layers(path, array), strict=True
        )
        state |= {
            name: np.ascontiguousarray(layout.to_torch(path, layer, config))
            for name, layer in layers
        }
    return state


def both(config, inputs):
    """The two models with the same random parameters."""
    ours = LIDiT(config)
    params = random_parameters(ours.init, *inputs)
    streams = [TextStream(f.shape[-1], 1, 0, *f.shape[2:-1]) for f in inputs[2]]
    widths = [stream.mixed_width(config.refiner) for stream in streams]
    layers = [stream.layers for stream in streams]
    theirs = LIDiTTransformer(config, widths, inputs[0].shape[-1], layers)
    theirs.load_state_dict(jax.tree.map(torch.tensor, torch_state(params, config)))
    return ours, params, theirs


def apply(model, params, inputs):
    *arrays, prefix_lengths = inputs
    run = jax.jit(lambda params, *arrays: model.apply({"params": params}, *arrays, prefix_lengths))
    return run(params, *arrays)


def to_torch(values):
    return jax.tree.map(lambda a: a if isinstance(a, int) else torch.tensor(np.asarray(a)), values)


def relative_error(ours, theirs):
    theirs = theirs.detach().numpy()
    return np.abs(np.asarray(ours) - theirs).max() / np.sqrt(np.mean(np.square(theirs)))


@pytest.fixture
def inputs(inputs):
    """A picture that is wider than high."""
    _, *rest = inputs
    x_t = np.random.default_rng(1).normal(size=(2, 4, 8, 4))
    return jnp.asarray(x_t, jnp.float32), *rest


@pytest.mark.parametrize("name", SWITCHES)
def test_the_whole_network(name, inputs):
    ours, params, theirs = both(small_config(**SWITCHES[name]), inputs)
    out = apply(ours, params, inputs)
    assert relative_error(out, theirs(*to_torch(inputs))) < TOLERANCE


@pytest.mark.parametrize("name", ["the paper's", "as HunyuanVideo's"])
def test_the_whole_network_in_bfloat16_is_float32_s_but_for_rounding(name, inputs):
    """Of five blocks in a row, two of them refiners', each rounds 12 results: its norms,
    modulations, projections, attentions, activations and sums. Parameters, times and norms'
    statistics are float32: a time in bfloat16 would turn its sinusoids by whole radians.
    """
    ours, params, theirs = both(small_config(dtype="bfloat16", **SWITCHES[name]), inputs)
    exact = theirs(*to_torch(inputs))
    error = relative_error(apply(ours, params, inputs), exact)
    assert BFLOAT16 / 4 < error <= rounding(terms=1, sums=5 * 12, epsilon=BFLOAT16)


@pytest.mark.parametrize("mix", ["concatenate", "average", "learned_average"])
def test_several_layers_of_a_stream(mix, inputs):
    x_t, t, (_, second), *rest = inputs
    scales = jnp.array([1.0, 20.0, 0.1])[:, None]
    several = scales * jnp.asarray(np.random.default_rng(3).normal(size=(2, 9, 3, 24)), jnp.float32)
    inputs = x_t, t, (several, second), *rest
    ours, params, theirs = both(small_config(depth=1, refiner=RefinerConfig(layer_mix=mix)), inputs)
    out = apply(ours, params, inputs)
    assert relative_error(out, theirs(*to_torch(inputs))) < TOLERANCE
    if mix != "average":
        flipped = x_t, t, (several[:, :, ::-1], second), *rest
        assert relative_error(out, theirs(*to_torch(flipped))) > 10 * TOLERANCE


@pytest.mark.parametrize("streams", [1, 3])
def test_one_and_three_streams(streams, inputs):
    x_t, t, features, masks, prefix_lengths = inputs
    pick = [1, 0, 1][:streams]
    chosen = (
        x_t,
        t,
        *(tuple(group[k] for k in pick) for group in (features, masks, prefix_lengths)),
    )
    ours, params, theirs = both(small_config(), chosen)
    out = apply(ours, params, chosen)
    assert relative_error(out, theirs(*to_torch(chosen))) < TOLERANCE


def test_what_the_refiners_hand_on(inputs):
    """Tokens, pooled vector and condition of every stream, and the context, where it is valid."""
    ours, params, theirs = both(small_config(), inputs)
    *arrays, prefix_lengths = inputs
    refiners = LinguisticRefiner | CollaborativeRefiner
    _, state = jax.jit(
        lambda params, *arrays: ours.apply(
            {"params": params},
            *arrays,
            prefix_lengths,
            capture_intermediates=lambda module, _: isinstance(module, refiners),
            mutable=["intermediates"],
        )
    )(params, *arrays)
    captured = state["intermediates"]
    _, t, features, masks, _ = to_torch(inputs)
    time = theirs.time_embedder(t)
    refined, context, context_mask = theirs.refine(features, masks, t, time, prefix_lengths)
    for k, mask in enumerate(inputs[3]):
        stream = captured[f"linguistic_refiner_{k}"]["__call__"][0]
        tokens, pooled, gates = refined[k]
        assert relative_error(stream.tokens[mask], tokens[masks[k]]) < TOLERANCE
        assert relative_error(stream.pooled, pooled) < TOLERANCE
        assert relative_error(stream.condition, gates) < TOLERANCE

    collaborated = captured["collaborative_refiner"]["__call__"][0]
    cropped = [x[:, n:] for x, n in zip(collaborated, prefix_lengths, strict=True)]
    ours_context = jnp.concatenate(cropped, axis=1)[np.asarray(context_mask)]
    assert relative_error(ours_context, context[context_mask]) < TOLERANCE


def test_every_gradient_of_the_diffusion_loss(inputs):
    """The demo's loss; each parameter's gradient to 1e-4 of its own rms (required: 1e-3)."""
    config = small_config(position="conv+rope")
    x0, _, features, masks, prefix_lengths = inputs
    ours, params, theirs = both(config, inputs)
    process = processes.from_config(
        DiffusionConfig(process="flow", prediction="x0", loss="velocity")
    )
    noise = jnp.asarray(np.random.default_rng(2).normal(size=x0.shape), jnp.float32)
    t = jnp.array([0.02, 0.7])

    def loss(params):
        x_t, time = process.add_noise(x0, noise, t), process.model_time(t)
        prediction = ours.apply({"params": params}, x_t, time, features, masks, prefix_lengths)
        return jnp.mean(process.loss(prediction, x0, noise, t))

    value, gradients = jax.jit(jax.value_and_grad(loss))(params)
    torch_value = x0_velocity_loss(
        theirs, *to_torch((x0, noise, t, features, masks, prefix_lengths))
    )
    torch_value.backward()
    np.testing.assert_allclose(value, torch_value.item(), rtol=1e-5)

    expected = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    gradients = torch_state(gradients, config)
    assert gradients.keys() == expected.keys()
    for name, gradient in gradients.items():
        if "refiner" in name and name.endswith("to_k.bias"):
            # One vector added to all keys shifts a query's logits alike: without QK-norm nothing
            # depends on it, and only rounding is left.
            assert max(np.abs(g).max() for g in (gradient, expected[name])) < 1e-5
            continue
        assert relative_error(gradient, expected[name]) < 1e-4, name


def test_weight_decay_acts_on_the_same_parameters(inputs):
    config = small_config()
    _, params, theirs = both(config, inputs)
    marked = jax.tree_util.tree_map_with_path(
        lambda path, leaf: jnp.full(leaf.shape, is_decayed(path)), params
    )
    ours = {name: bool(mark.all()) for name, mark in torch_state(marked, config).items()}
    decayed, others = parameter_groups(theirs, 0.1)
    assert (decayed["weight_decay"], others["weight_decay"]) == (0.1, 0.0)
    found = {id(parameter): True for parameter in decayed["params"]}
    found |= {id(parameter): False for parameter in others["params"]}
    assert ours == {name: found[id(p)] for name, p in theirs.named_parameters()}


def test_a_step_changes_every_parameter_and_its_average(inputs):
    config = small_config()
    _, _, theirs = both(config, inputs)
    x0, _, features, masks, prefix_lengths = to_torch(inputs)
    unconditional = {"features": [f[:1] for f in features], "masks": [m[:1] for m in masks]}
    objective = DiffusionConfig(process="flow", prediction="x0", loss="velocity")
    recipe = Config(model=config, diffusion=objective, optimizer=OptimizerConfig(warmup_steps=1))
    trainer = TorchTrainer(theirs, recipe, prefix_lengths, unconditional)
    before = [p.detach().clone() for p in trainer.parameters]
    batch = {"latent": x0, "features": features, "masks": masks}
    losses = [trainer.step(batch).item() for _ in range(2)]
    assert np.isfinite(losses).all()
    for old, *changed in zip(before, trainer.parameters, trainer.averages, strict=True):
        assert not any(torch.equal(old, new) for new in changed)


def test_a_dropped_mask_would_be_noticed(inputs):
    """The comparison above has teeth: without padding masks the outputs differ by far more."""
    x_t, t, features, masks, prefix_lengths = inputs
    ours, params, theirs = both(small_config(), inputs)
    out = apply(ours, params, inputs)
    for k in range(2):
        forgotten = tuple(jnp.ones_like(m) if i == k else m for i, m in enumerate(masks))
        without = theirs(*to_torch((x_t, t, features, forgotten, prefix_lengths)))
        assert relative_error(out, without) > 100 * TOLERANCE
