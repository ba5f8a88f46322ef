"""What a run trains beside its frozen parameters, and what that changes in its plan."""

import dataclasses

import pytest

from lidit_jax.config.load import load_recipe
from lidit_jax.errors import LiditError
from lidit_jax.hardware.topologies import parse_topology
from lidit_jax.models.flops import forward_flops
from lidit_jax.planning.memory import parameter_count
from lidit_jax.planning.plan import describe_text, make_plan
from lidit_jax.planning.roofline import Split
from lidit_jax.training.trained_parts import _rows, parameter_sizes, trained_parts

WHOLE = load_recipe("lidit_1b")
STREAMS = describe_text(WHOLE).streams
BACKBONE = "(?!linguistic_refiner|collaborative_refiner).*"


def frozen(*patterns):
    optimizer = dataclasses.replace(WHOLE.optimizer, freeze=patterns)
    return dataclasses.replace(WHOLE, optimizer=optimizer)


def test_rows_of_every_kernel_make_the_counted_operations():
    sizes = parameter_sizes(WHOLE, STREAMS)
    assert sum(sizes.values()) == parameter_count(WHOLE, STREAMS)
    products = sum(size * _rows(path, STREAMS, 256) for path, size in sizes.items())
    forward = forward_flops(WHOLE.model, 256, 16, STREAMS)
    inner = sum(2 * s.tokens**2 for s in STREAMS) * WHOLE.model.refiner.blocks
    inner += 2 * 2 * STREAMS[0].tokens * STREAMS[1].tokens
    scores = forward.attention + 2 * inner * WHOLE.model.width
    assert 2 * products == pytest.approx(forward.total - scores, rel=1e-12)


def test_what_is_frozen_takes_no_moments_no_gradients_and_less_time():
    some = frozen(BACKBONE)
    trained = trained_parts(some, STREAMS, 256)
    refiners = sum(n for path, n in parameter_sizes(some, STREAMS).items() if "refiner" in path)
    assert trained.parameters == refiners
    topology, split = parse_topology("v5e:4x4"), Split(fsdp=16)
    before, after = (make_plan(config, topology, split) for config in (WHOLE, some))
    share = trained.parameters / before.parameters
    assert (after.parameters, after.trained) == (before.parameters, trained.parameters)
    for use in ("optimizer", "gradients"):
        old, new = (getattr(plan.memory, use) for plan in (before, after))
        assert new == pytest.approx(share * old)
    assert after.memory.parameters == before.memory.parameters
    assert after.memory.averages == before.memory.averages
    for term, part in {"products": (2 + 1 + trained.products) / 4, "ici_gradients": share}.items():
        old, new = (getattr(plan.prediction, term) for plan in (before, after))
        assert new == pytest.approx(part * old), term
    assert after.model_flops < before.model_flops


def test_a_plan_of_patterns_that_fit_nothing_is_refused():
    with pytest.raises(
        LiditError, match=r"config\.optimizer\.freeze: 'blocs' matches no parameter"
    ):
        trained_parts(frozen("blocs"), STREAMS, 256)
