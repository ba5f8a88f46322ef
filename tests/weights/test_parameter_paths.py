from flax.core import FrozenDict

from lidit_jax.weights.parameter_paths import by_path


def test_leaves_have_paths_in_the_order_of_the_tree():
    tree = {"output": FrozenDict({"linear": {"kernel": 1, "bias": 2}}), "embedding": 3}
    assert list(by_path(tree).items()) == [
        ("output/linear/kernel", 1),
        ("output/linear/bias", 2),
        ("embedding", 3),
    ]
