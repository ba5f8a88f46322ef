"""Which parameters a pattern selects, and what is said of one that selects none."""

import pytest

from lidit_jax.errors import LiditError
from lidit_jax.weights.path_patterns import check_patterns, covering, selected

PATHS = (
    "blocks/mlp/up/kernel",
    "blocks/mlp/up/bias",
    "blocks/self_attention/query/kernel",
    "linguistic_refiner_0/projection/kernel",
    "linguistic_refiner_0/block_0/mlp/up/kernel",
    "output/linear/bias",
)


@pytest.mark.parametrize(
    ("patterns", "indices"),
    [
        ((), ()),
        (("blocks",), (0, 1, 2)),
        (("block",), ()),
        (("mlp",), ()),
        (("blocks/.*attention",), (2,)),
        ((".*/bias",), (1, 5)),
        (("blocks/mlp/up/kernel", "output|blocks/self_attention"), (0, 2, 5)),
        ((r"(?!linguistic_refiner_\d).*",), (0, 1, 2, 5)),
        (("(?!.*/projection).*",), (0, 1, 2, 4, 5)),
    ],
)
def test_a_pattern_matches_a_parameter_or_a_module_above_it_as_a_whole(patterns, indices):
    assert selected(patterns, PATHS) == {PATHS[i] for i in indices}


@pytest.mark.parametrize(
    ("pattern", "near"),
    [
        ("blocks/self_atention", "'blocks/self_attention'"),
        ("zzz", "'blocks', 'linguistic_refiner_0', 'output'"),
    ],
)
def test_one_that_matches_nothing_is_named_with_the_nearest(pattern, near):
    with pytest.raises(LiditError) as refusal:
        check_patterns("config.optimizer.freeze", ["output", pattern], PATHS)
    start = f"config.optimizer.freeze: {pattern!r} matches no parameter as a whole; there are "
    assert str(refusal.value).startswith(start + near)


def test_chosen_paths_are_told_as_the_fewest_modules():
    assert covering(set(), PATHS) == []
    assert covering(set(PATHS[:3]) | {PATHS[3]}, PATHS) == [
        "blocks",
        "linguistic_refiner_0/projection",
    ]
